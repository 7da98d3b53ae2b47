use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kvm::MsiMessage;

/// An x86 MSI message, decoded (Intel SDM 3A, 11.11; destination bits beyond 8 as KVM defines them).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsiView {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// A physical APIC ID, or a logical set; see `destination_mode`.
    pub destination: u32,
    /// "physical" or "logical".
    pub destination_mode: String,
    /// Interrupt vector in the guest, 0 to 255.
    pub vector: u8,
    /// "fixed", "lowest-priority", "smi", "nmi", "init", "extint" or "reserved".
    pub delivery: String,
    /// "edge" or "level".
    pub trigger: String,
}

impl From<MsiMessage> for MsiView {
    fn from(MsiMessage { address, data }: MsiMessage) -> MsiView {
        // Bits 19:12; bits 11:5 are bits 14:8 of it (KVM_FEATURE_MSI_EXT_DEST_ID), and with x2APIC IDs in the 32-bit
        // format the upper half of the address holds bits 31:8 (KVM_CAP_X2APIC_API).
        let destination = (address >> 12 & 0xff) | (address >> 5 & 0x7f) << 8 | (address >> 32 & 0xffff_ff00);
        let delivery = match data >> 8 & 7 {
            0 => "fixed",
            1 => "lowest-priority",
            2 => "smi",
            4 => "nmi",
            5 => "init",
            7 => "extint",
            _ => "reserved",
        };
        MsiView {
            address,
            data,
            destination: destination as u32,
            destination_mode: if address & 4 != 0 { "logical" } else { "physical" }.into(),
            vector: data as u8,
            delivery: delivery.into(),
            trigger: if data & 1 << 15 != 0 { "level" } else { "edge" }.into(),
        }
    }
}

impl fmt::Display for MsiView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MsiView { vector, destination, delivery, destination_mode, .. } = self;
        match destination_mode.as_str() {
            "logical" => write!(f, "vector {vector} ({vector:#x}) to logical {destination:#x}, {delivery}"),
            _ => write!(f, "vector {vector} ({vector:#x}) to CPU {destination}, {delivery}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_data_are_taken_apart() {
        let view = MsiView::from(MsiMessage { address: 0xfee0_3004, data: 0x8125 });
        assert_eq!((view.destination, view.destination_mode.as_str()), (3, "logical"));
        assert_eq!((view.vector, &*view.delivery, &*view.trigger), (0x25, "lowest-priority", "level"));
        let view = MsiView::from(MsiMessage { address: 0xfee0_1000, data: 0x41 });
        assert_eq!(view.to_string(), "vector 65 (0x41) to CPU 1, fixed");
    }

    #[test]
    fn destinations_beyond_255_are_found_in_both_formats() {
        let extended = MsiMessage { address: 0xfee0_2000 | 0x3 << 5, data: 0 };
        assert_eq!(MsiView::from(extended).destination, 0x302);
        let x2apic = MsiMessage { address: 0x0000_0100_fee0_2000, data: 0 };
        assert_eq!(MsiView::from(x2apic).destination, 0x102);
    }
}
