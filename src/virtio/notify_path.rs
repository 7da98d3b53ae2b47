use strum::{Display, EnumCount, EnumString, VariantArray, VariantNames};

use crate::host::named;

/// How a kick reaches the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumCount, EnumString, VariantArray, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum NotifyPath {
    /// An ioeventfd of length 0 on the notify register: KVM matches the address alone and decodes nothing
    /// (KVM API 4.59, `KVM_CAP_IOEVENTFD_ANY_LENGTH`; `KVM_FAST_MMIO_BUS`).
    FastMmio,
    /// An ioeventfd of length 2 that also matches the queue index, on the ordinary MMIO bus.
    Mmio,
    /// An ioeventfd on an I/O BAR.
    Pio,
    /// No ioeventfd: KVM_EXIT_MMIO takes the vCPU thread out of KVM_RUN, and that thread signals the eventfd.
    Exit,
}

impl NotifyPath {
    /// Every path, with its name on the command line.
    pub const NAMES: [(&'static str, NotifyPath); NotifyPath::COUNT] =
        named(<NotifyPath as VariantNames>::VARIANTS, <NotifyPath as VariantArray>::VARIANTS);
}
