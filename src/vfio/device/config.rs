use crate::pci::{BarOffset, CONFIG_LEN, Command, ConfigSpace, Identity, MSIX_CAPABILITY, capabilities};
use crate::vfio::device::msi::{MSI_CAPABILITY, Msi};
use crate::vfio::device::rules::{self, Rule};
use crate::vfio::kernel::device_fd::DeviceFd;

/// Index of the config space region.
pub const CONFIG_REGION: u32 = 7;

const COMMAND: usize = 0x04;
const BARS: usize = 0x10;
const LEGACY: usize = 0x100;
const FLR_CAPABLE: u32 = 1 << 28;
const INITIATE_FLR: u8 = 0x80;

/// The places of registers in a device's config space.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The MSI-X capability and its table size, table and pending bits.
    pub msix: Option<(usize, u16, BarOffset, BarOffset)>,
    /// The MSI capability and its control register.
    pub msi: Option<(usize, u16)>,
    /// Device Control, upper byte: bit 7 resets the function.
    flr_express: Option<usize>,
    /// Advanced Features Control: bit 0 resets the function.
    flr_advanced: Option<usize>,
}

/// A passed-through device's config space as its guest sees it: the table in [`rules`] says for
/// each byte whether the device or the VMM implements it, or whether it is hidden.
#[derive(Clone)]
pub struct PassthroughConfig {
    /// Emulated bytes.
    pub own: ConfigSpace,
    rules: Box<[Rule; CONFIG_LEN]>,
    /// The places of registers.
    pub places: Places,
}

/// The device's config space, read once.
struct Snapshot(Vec<u8>);

impl Snapshot {
    fn read(fd: &dyn DeviceFd) -> Snapshot {
        let size =
            fd.regions().get(CONFIG_REGION as usize).map_or(0, |r| r.size).min(CONFIG_LEN as u64) as usize;
        let mut bytes = vec![0; size];
        for (at, word) in bytes.chunks_exact_mut(4).enumerate() {
            // A word that cannot be read is 0: no capability starts there.
            let _ = fd.read(CONFIG_REGION, 4 * at as u64, word);
        }
        Snapshot(bytes)
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn head(&self, at: usize) -> [u8; 8] {
        std::array::from_fn(|n| self.byte(at + n))
    }
}

impl PassthroughConfig {
    /// Applies the table to the device behind `fd`. `intx`: whether the guest gets a level line.
    pub fn new(fd: &dyn DeviceFd, intx: bool) -> PassthroughConfig {
        let device = Snapshot::read(fd);
        let mut own = ConfigSpace::new(Identity { interrupt_pin: intx.into(), ..Identity::default() });
        own.set(0x0e, &[device.byte(0x0e) & 0x7f]);
        let mut this =
            PassthroughConfig { own, rules: Box::new([Rule::Hidden; CONFIG_LEN]), places: Places::default() };
        for &(at, len, rule, _) in rules::HEADER {
            this.rules[at..at + len].fill(rule);
        }
        this.show_capabilities(&device, fd);
        this.show_extended(&device);
        this
    }

    fn show_capabilities(&mut self, device: &Snapshot, fd: &dyn DeviceFd) {
        let mut link = 0x34;
        for (id, at) in capabilities(|at| device.byte(at.into())) {
            let (head, at) = (device.head(at.into()), usize::from(at));
            let Some(shown) = rules::CAPABILITIES.iter().find(|shown| shown.id == id) else { continue };
            let len = (shown.len)(&head);
            // Ignore a capability that leaves the space or overlaps another: the device is broken.
            if at + len > LEGACY || self.rules[at..at + len].iter().any(|rule| *rule != Rule::Hidden) {
                continue;
            }
            self.rules[at..at + len].fill(shown.rule);
            self.rules[at..at + 2].fill(Rule::Emulated);
            for &(from, len_of_part, rule) in shown.parts {
                let end = (from + len_of_part).min(len);
                if from < end {
                    self.rules[at + from..at + end].fill(rule);
                }
            }
            for n in 2..len {
                self.own.set(at + n, &[device.byte(at + n)]);
            }
            self.own.set(at, &[id, 0]);
            self.own.set(link, &[at as u8]);
            link = at + 1;
            self.note(id, at, device, fd);
        }
    }

    /// Capabilities that need more than the table's rules.
    fn note(&mut self, id: u8, at: usize, device: &Snapshot, fd: &dyn DeviceFd) {
        match id {
            MSI_CAPABILITY => {
                let control = device.u16(at + 2);
                let count = fd.irq_info(crate::vfio::IrqIndex::Msi).count;
                Msi::new(at, control, count).lay_out(&mut self.own);
                self.places.msi = Some((at, control));
            }
            MSIX_CAPABILITY => {
                let place = |at| {
                    let word = device.u32(at);
                    BarOffset { bar: (word & 7) as u8, offset: word & !7 }
                };
                let vectors = (device.u16(at + 2) & 0x7ff) + 1;
                self.own.set(at + 2, &(vectors - 1).to_le_bytes());
                self.own.allow(at + 2, &0xc000u16.to_le_bytes());
                self.places.msix = Some((at, vectors, place(at + 4), place(at + 8)));
            }
            rules::POWER => {
                // D0, and no PME: the power state is emulated.
                self.own.set(at + 2, &(device.u16(at + 2) & 0x07ff).to_le_bytes());
                self.own.set(at + 4, &[0, 0, 0, 0]);
                self.own.allow(at + 4, &[3, 0]);
            }
            rules::PCIE => {
                let capabilities = device.u16(at + 2) & !0xf0 | rules::PCIE_TYPE << 4;
                self.own.set(at + 2, &capabilities.to_le_bytes());
                if device.u32(at + 4) & FLR_CAPABLE != 0 {
                    self.places.flr_express = Some(at + 9);
                }
            }
            rules::ADVANCED_FEATURES if device.byte(at + 3) & 2 != 0 => {
                self.places.flr_advanced = Some(at + 4)
            }
            _ => {}
        }
    }

    fn show_extended(&mut self, device: &Snapshot) {
        // The first header is always at 0x100; hidden, it is a null capability (ID 0) that leads on.
        let (mut at, mut link, mut steps) = (LEGACY, None, 0);
        while at >= LEGACY && at + 8 <= device.0.len() && steps < 64 {
            steps += 1;
            let header = device.u32(at);
            if header == 0 || header == u32::MAX {
                break;
            }
            let len = rules::EXTENDED.iter().find(|(id, _)| u32::from(*id) == header & 0xffff);
            let len = len.map(|(_, len)| len(&device.head(at))).filter(|len| at + len <= CONFIG_LEN);
            if len.is_some() || at == LEGACY {
                let shown = len.map_or(0, |_| header & 0xf_ffff);
                self.rules[at..at + len.unwrap_or(4)].fill(Rule::ReadOnly);
                self.rules[at..at + 4].fill(Rule::Emulated);
                self.own.set(at, &shown.to_le_bytes());
                if let Some(from) = link {
                    let before = self.own.u32(from) & 0xf_ffff;
                    self.own.set(from, &(before | (at as u32) << 20).to_le_bytes());
                }
                link = Some(at);
            }
            at = (header >> 20) as usize & !3;
        }
    }

    /// The guest's read. Bytes of the device are read with one access of the guest's width.
    pub fn read(&self, fd: &dyn DeviceFd, offset: u16, data: &mut [u8]) {
        let start = usize::from(offset);
        let range = start..(start + data.len()).min(CONFIG_LEN);
        let rule = |at: usize| self.rules.get(at).copied().unwrap_or(Rule::Hidden);
        let is_devices = |rule| matches!(rule, Rule::ReadOnly | Rule::Passed);
        let device = range.clone().any(|at| is_devices(rule(at)));
        if !device || fd.read(CONFIG_REGION, offset.into(), data).is_err() {
            data.fill(0);
        }
        for (at, byte) in (start..).zip(data) {
            match rule(at) {
                Rule::Hidden => *byte = 0,
                Rule::Emulated => *byte = self.own_byte(at),
                Rule::ReadOnly | Rule::Passed => {}
            }
        }
    }

    fn own_byte(&self, at: usize) -> u8 {
        let mut byte = [0];
        self.own.read(at as u16, &mut byte);
        byte[0]
    }

    /// The guest's write, without its side effects: emulated bytes are stored, the device's are passed on.
    pub fn write(&mut self, fd: &dyn DeviceFd, offset: u16, data: &[u8]) {
        let start = usize::from(offset);
        let rules: Vec<_> = (start..).zip(data).map(|(at, _)| self.rules.get(at).copied()).collect();
        let mut at = 0;
        for run in rules.chunk_by(|a, b| a == b) {
            let (place, part) = ((start + at) as u16, &data[at..at + run.len()]);
            match run[0] {
                Some(Rule::Emulated) => self.own.write(place, part),
                // A device that refuses a write behaves like one that ignores it.
                Some(Rule::Passed) => drop(fd.write(CONFIG_REGION, place.into(), part)),
                _ => {}
            }
            at += run.len();
        }
    }

    /// Makes the device's command register follow the guest's: it always decodes (mapping
    /// makes the guest's windows come and go), and masters the bus when the guest allows it.
    pub fn push_command(&self, fd: &dyn DeviceFd) {
        let command = self.own.command() & Command::BUS_MASTER | Command::MEMORY | Command::IO;
        let _ = fd.write(CONFIG_REGION, COMMAND as u64, &command.bits().to_le_bytes());
    }

    /// Whether a write of `data` at `offset` starts a function level reset.
    pub fn starts_reset(&self, offset: u16, data: &[u8]) -> bool {
        let written =
            |at: usize| at.checked_sub(offset.into()).and_then(|n| data.get(n)).copied().unwrap_or(0);
        self.places.flr_express.is_some_and(|at| written(at) & INITIATE_FLR != 0)
            || self.places.flr_advanced.is_some_and(|at| written(at) & 1 != 0)
    }

    /// Resets the emulated registers, except the MSI-X table.
    pub fn reset(&mut self) {
        self.own.set(COMMAND, &[0, 0]);
        self.own.set(0x3c, &[0]);
        for bar in 0..6 {
            // The type bits stay.
            let at = BARS + 4 * bar;
            let kind = self.own.u32(at) & self.kind_mask(at);
            self.own.set(at, &kind.to_le_bytes());
        }
        if let Some((at, ..)) = self.places.msix {
            let control = self.own.u16(at + 2) & 0x7ff;
            self.own.set(at + 2, &control.to_le_bytes());
        }
        if let Some((at, control)) = self.places.msi {
            Msi::new(at, control, 32).reset(&mut self.own);
        }
    }

    /// The bits of the BAR register at `at` that are not address bits.
    fn kind_mask(&self, at: usize) -> u32 {
        let mut probe = self.own.clone();
        probe.write(at as u16, &[0xff; 4]);
        let ones = probe.u32(at);
        probe.write(at as u16, &[0; 4]);
        !(ones ^ probe.u32(at))
    }

    /// Whether the guest has disabled INTx in the command register.
    pub fn intx_disabled(&self) -> bool {
        self.own.command().contains(Command::INTX_DISABLE)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
