use std::str::FromStr;

use strum::{Display, EnumString};

use crate::vfio::Bdf;

/// How a passed-through device's interrupts reach the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum IrqPath {
    /// Device, eventfd, irqfd: the VMM is not involved.
    #[default]
    Kernel,
    /// The VMM reads the eventfd and injects by `KVM_SIGNAL_MSI`.
    User,
}

/// `--vfio BDF[,irq=kernel|user]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfioSpec {
    /// The device.
    pub bdf: Bdf,
    /// Its interrupts.
    pub irq: IrqPath,
}

impl FromStr for VfioSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<VfioSpec, String> {
        let mut parts = text.split(',');
        let bdf =
            parts.next().unwrap_or_default().parse().map_err(|e: crate::vfio::InvalidBdf| e.to_string())?;
        let mut spec = VfioSpec { bdf, irq: IrqPath::default() };
        for part in parts {
            spec.irq = match part.split_once('=') {
                Some(("irq", path)) => path.parse().map_err(|_| format!("irq={path}: use kernel or user"))?,
                _ => {
                    return Err(format!("--vfio has no key '{part}': use BDF,irq=kernel or BDF,irq=user"));
                }
            };
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_alone_means_the_kernel_path() {
        let spec: VfioSpec = "01:00.0".parse().unwrap();
        assert_eq!((spec.bdf.to_string().as_str(), spec.irq), ("0000:01:00.0", IrqPath::Kernel));
        assert_eq!("01:00.0,irq=user".parse::<VfioSpec>().unwrap().irq, IrqPath::User);
    }

    #[test]
    fn mistakes_say_what_is_allowed() {
        let error = |text: &str| text.parse::<VfioSpec>().unwrap_err();
        assert_eq!(error("01:00.0,irq=fast"), "irq=fast: use kernel or user");
        assert!(error("01:00.0,irq").contains("BDF,irq=kernel"));
        assert!(error("nvme0").contains("not a PCI address"));
    }
}
