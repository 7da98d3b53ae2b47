use bitflags::bitflags;

/// The length of a function's config space in bytes (PCI Express Base 5.0, 7.2): 256 legacy bytes, then extended ones.
pub const CONFIG_LEN: usize = 4096;

/// The first offset for capabilities: a type 0 header ends here.
const FIRST_CAPABILITY: usize = 0x40;
/// The end of the legacy space, which holds the capabilities.
const LEGACY_LEN: usize = 0x100;

pub(super) const BARS: usize = 0x10;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CAPABILITY_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;

bitflags! {
    /// The bits of the command register (PCI Local Bus 3.0, 6.2.2) that a guest may change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u16 {
        /// I/O BARs are decoded.
        const IO = 1 << 0;
        /// Memory BARs are decoded.
        const MEMORY = 1 << 1;
        /// The function may read and write guest memory. The bit is stored and not enforced, because no device here
        /// starts a transfer that its driver did not request through a queue.
        const BUS_MASTER = 1 << 2;
        /// The function does not assert INTx.
        const INTX_DISABLE = 1 << 10;
    }
}

/// The identity of a function (PCI Local Bus 3.0, 6.2.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Class, subclass and programming interface, 24 bits: 0x010000 is a storage controller.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// 0: no INTx; 1 to 4: INTA# to INTD#.
    pub interrupt_pin: u8,
}

/// A capability without its offset and next pointer.
#[derive(Clone, Debug)]
pub struct Capability {
    /// Capability ID (PCI Code and ID Assignment): 0x09 vendor specific, 0x11 MSI-X.
    pub id: u8,
    /// The bytes from offset 2 of the capability on.
    pub body: Vec<u8>,
    /// The bits of `body` that a guest may write; bytes beyond its end are read-only.
    pub writable: Vec<u8>,
}

/// The capability does not fit into the 192 bytes that a type 0 header leaves.
#[derive(Debug, thiserror::Error)]
#[error("no room in PCI config space for capability {id:#04x} of {len} bytes")]
pub struct NoRoom {
    /// ID of the capability.
    pub id: u8,
    /// Length of the capability in bytes.
    pub len: usize,
}

/// The config space of one function as data: the value of each byte, and which of its bits a guest may change.
///
/// Any access of any width at any offset is safe: bytes beyond the end read as ones and ignore writes, as for an absent
/// function. Accesses have no side effects. After a write, the owner reads [`ConfigSpace::command`], the BARs and the
/// capabilities, and acts on what changed.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_LEN]>,
    writable: Box<[u8; CONFIG_LEN]>,
    /// Offset of the next capability, and offset of the pointer that will lead to it.
    free: usize,
    link: usize,
}

impl ConfigSpace {
    /// Returns a type 0 header without BARs and capabilities.
    pub fn new(identity: Identity) -> ConfigSpace {
        let mut config = ConfigSpace {
            bytes: Box::new([0; CONFIG_LEN]),
            writable: Box::new([0; CONFIG_LEN]),
            free: FIRST_CAPABILITY,
            link: CAPABILITY_POINTER,
        };
        config.set(0x00, &identity.vendor.to_le_bytes());
        config.set(0x02, &identity.device.to_le_bytes());
        config.set(0x08, &[identity.revision]);
        config.set(0x09, &identity.class.to_le_bytes()[..3]);
        config.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        config.set(0x2e, &identity.subsystem.to_le_bytes());
        config.set(0x3d, &[identity.interrupt_pin]);
        config.allow(COMMAND, &Command::all().bits().to_le_bytes());
        // Cache line size and latency timer have no meaning on PCI Express, but software may store them.
        config.allow(0x0c, &[0xff, 0xff]);
        config.allow(INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Fills `data` from `offset` on. Bytes beyond the end are 0xff.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Performs a guest's write: changes only the writable bits.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, new) in (usize::from(offset)..CONFIG_LEN).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | new & mask;
        }
    }

    /// Performs a write of the device: changes any bit. Bytes beyond the end are dropped.
    pub fn set(&mut self, offset: usize, data: &[u8]) {
        for (at, new) in (offset..CONFIG_LEN).zip(data) {
            self.bytes[at] = *new;
        }
    }

    /// Sets which bits a guest may write, from `offset` on.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (at, bits) in (offset..CONFIG_LEN).zip(mask) {
            self.writable[at] = *bits;
        }
    }

    /// Returns the two bytes at `offset`, little endian.
    pub fn u16(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset as u16, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Returns the four bytes at `offset`, little endian.
    pub fn u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset as u16, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Returns the command register.
    pub fn command(&self) -> Command {
        Command::from_bits_truncate(self.u16(COMMAND))
    }

    /// Sets or clears the Interrupt Status bit. It shows the state of INTx even while INTx is disabled (PCI 6.2.3).
    pub fn set_interrupt_status(&mut self, asserted: bool) {
        let status = self.bytes[STATUS] & !STATUS_INTERRUPT;
        self.bytes[STATUS] = if asserted { status | STATUS_INTERRUPT } else { status };
    }

    /// Appends a capability to the list. Returns the offset of its ID byte, a multiple of 4.
    ///
    /// # Errors
    /// The legacy config space is full.
    pub fn add_capability(&mut self, capability: &Capability) -> Result<u8, NoRoom> {
        let len = 2 + capability.body.len();
        let at = self.free;
        if at + len > LEGACY_LEN {
            return Err(NoRoom { id: capability.id, len });
        }
        self.set(at, &[capability.id, 0]);
        self.set(at + 2, &capability.body);
        let reach = capability.writable.len().min(capability.body.len());
        self.allow(at + 2, &capability.writable[..reach]);
        self.bytes[self.link] = at as u8;
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.link = at + 1;
        self.free = (at + len).next_multiple_of(4);
        Ok(at as u8)
    }
}

/// Walks a capability list as a driver does. Returns (ID, offset) pairs in list order. `read` reads one byte of config
/// space. Stops after 48 steps, because no more capabilities fit and the list may have a loop.
pub fn capabilities(mut read: impl FnMut(u8) -> u8) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    if read(STATUS as u8) & STATUS_CAPABILITIES == 0 {
        return found;
    }
    let mut at = read(CAPABILITY_POINTER as u8) & !3;
    while usize::from(at) >= FIRST_CAPABILITY && found.len() < 48 {
        found.push((read(at), at));
        // `at` is a multiple of 4, so `at + 1` cannot overflow.
        at = read(at + 1) & !3;
    }
    found
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
