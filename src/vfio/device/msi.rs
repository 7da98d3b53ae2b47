use crate::kvm::{MsiMessage, VectorState};
use crate::pci::ConfigSpace;

/// Capability ID of MSI.
pub const MSI_CAPABILITY: u8 = 0x05;

const ENABLE: u16 = 1;
const CAN_64_BIT: u16 = 1 << 7;
const CAN_MASK: u16 = 1 << 8;

/// The places of the MSI capability's registers (PCI Local Bus 3.0, 6.8.1). Their values are in the [`ConfigSpace`].
#[derive(Clone, Copy, Debug)]
pub struct Msi {
    at: usize,
    /// The device's message control: number of vectors, 64-bit addresses, masking.
    control: u16,
    /// Vectors, 1 to 32.
    most: usize,
}

impl Msi {
    /// The capability at `at`; `count` is the number of vectors that VFIO offers.
    pub fn new(at: usize, control: u16, count: u32) -> Msi {
        let most = (1usize << (control >> 1 & 7).min(5)).min(count.max(1) as usize);
        Msi { at, control, most }
    }

    /// Bytes of the capability with this control register.
    pub fn len(control: u16) -> usize {
        let address = if control & CAN_64_BIT != 0 { 14 } else { 10 };
        // Two reserved bytes align the mask; 32 mask and 32 pending bits.
        if control & CAN_MASK != 0 { address + 10 } else { address }
    }

    fn data_at(&self) -> usize {
        self.at + if self.control & CAN_64_BIT != 0 { 12 } else { 8 }
    }

    /// Where the pending bits are, if it has any.
    pub fn pending_at(&self) -> Option<usize> {
        (self.control & CAN_MASK != 0).then(|| self.data_at() + 8)
    }

    /// Lays out the capability: MSI is off, there is no message, and only the bits that a driver may change are writable.
    pub fn lay_out(&self, config: &mut ConfigSpace) {
        config.set(self.at + 2, &(self.control & !(ENABLE | 0x70)).to_le_bytes());
        config.set(self.at + 4, &[0; 20][..Msi::len(self.control) - 4]);
        config.allow(self.at + 2, &(ENABLE | 0x70).to_le_bytes());
        config.allow(self.at + 4, &0xffff_fffcu32.to_le_bytes());
        if self.control & CAN_64_BIT != 0 {
            config.allow(self.at + 8, &[0xff; 4]);
        }
        config.allow(self.data_at(), &[0xff; 2]);
        if self.control & CAN_MASK != 0 {
            config.allow(self.data_at() + 4, &[0xff; 4]);
        }
    }

    /// The state of each vector that the guest wants; `None` while MSI is off.
    pub fn states(&self, config: &ConfigSpace) -> Option<Vec<VectorState>> {
        let control = config.u16(self.at + 2);
        if control & ENABLE == 0 {
            return None;
        }
        let count = (1usize << (control >> 4 & 7).min(5)).min(self.most);
        let mut address = u64::from(config.u32(self.at + 4) & !3);
        if self.control & CAN_64_BIT != 0 {
            address |= u64::from(config.u32(self.at + 8)) << 32;
        }
        let data = u32::from(config.u16(self.data_at()));
        let masks = if self.control & CAN_MASK != 0 { config.u32(self.data_at() + 4) } else { 0 };
        // The device puts the vector's number into the low bits of the data.
        let low = count.next_power_of_two() as u32 - 1;
        let state = |n: u32| VectorState {
            message: MsiMessage { address, data: data & !low | n },
            masked: masks >> n & 1 != 0,
        };
        Some((0..count as u32).map(state).collect())
    }

    /// Switches MSI off, as a reset does.
    pub fn reset(&self, config: &mut ConfigSpace) {
        self.lay_out(config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::Identity;

    fn msi(control: u16) -> (Msi, ConfigSpace) {
        let mut config = ConfigSpace::new(Identity::default());
        let msi = Msi::new(0x50, control, 32);
        msi.lay_out(&mut config);
        (msi, config)
    }

    #[test]
    fn the_length_follows_from_the_control_register() {
        assert_eq!([0, 1 << 7, 1 << 8, 3 << 7].map(Msi::len), [10, 14, 20, 24]);
    }

    #[test]
    fn each_vector_has_the_message_with_its_number_and_its_mask_bit() {
        // Four vectors offered, 64 bits, maskable.
        let (msi, mut config) = msi(2 << 1 | 3 << 7);
        assert_eq!(msi.states(&config), None);
        config.write(0x54, &0xfee0_1003u32.to_le_bytes());
        config.write(0x58, &1u32.to_le_bytes());
        config.write(0x5c, &0x4041u16.to_le_bytes());
        config.write(0x60, &0b0100u32.to_le_bytes());
        config.write(0x52, &(2u16 << 4 | 1).to_le_bytes());
        let states = msi.states(&config).unwrap();
        let message = |n: u32| MsiMessage { address: 0x1_fee0_1000, data: 0x4040 + n };
        let expected: Vec<_> = (0..4).map(|n| VectorState { message: message(n), masked: n == 2 }).collect();
        assert_eq!(states, expected);
        assert_eq!(msi.pending_at(), Some(0x64));
        msi.reset(&mut config);
        assert_eq!(msi.states(&config), None);
    }

    #[test]
    fn a_guest_cannot_ask_for_more_vectors_than_there_are() {
        let (msi, mut config) = msi(0);
        config.write(0x52, &(7u16 << 4 | 1).to_le_bytes());
        assert_eq!(msi.states(&config).unwrap().len(), 1);
        assert_eq!(config.u16(0x52) & 0x18e, 0, "what the device lacks cannot be switched on");
    }
}
