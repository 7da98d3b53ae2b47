use std::fmt;
use std::str::FromStr;

/// How a kick reaches the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyPath {
    /// An ioeventfd of length 0 on the notify register: KVM matches the address alone and has nothing to decode
    /// (KVM API 4.59, `KVM_CAP_IOEVENTFD_ANY_LENGTH`; `KVM_FAST_MMIO_BUS`).
    FastMmio,
    /// An ioeventfd of length 2 that also matches the queue index, on the ordinary MMIO bus.
    Mmio,
    /// An ioeventfd on an I/O BAR.
    Pio,
    /// No ioeventfd: KVM_EXIT_MMIO takes the vCPU thread out of KVM_RUN and it passes the kick on by hand.
    Exit,
}

impl NotifyPath {
    /// Every path by its name on the command line.
    pub const NAMES: [(&'static str, NotifyPath); 4] = [
        ("fast-mmio", NotifyPath::FastMmio),
        ("mmio", NotifyPath::Mmio),
        ("pio", NotifyPath::Pio),
        ("exit", NotifyPath::Exit),
    ];
}

impl fmt::Display for NotifyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NotifyPath::NAMES.iter().find(|(_, path)| path == self);
        f.write_str(found.map_or("?", |(name, _)| name))
    }
}

impl FromStr for NotifyPath {
    type Err = ();

    fn from_str(s: &str) -> Result<NotifyPath, ()> {
        NotifyPath::NAMES.iter().find(|(name, _)| *name == s).map(|&(_, path)| path).ok_or(())
    }
}
