//! The interrupt counts of a device over its life: per vector, by the host and by the VMM.

use std::collections::BTreeMap;

use crate::host::ProcInterrupts;
use crate::vfio::Bdf;
use crate::vfio::device::vector_report::VectorReport;
use crate::vfio::kernel::device_fd::IrqIndex;

/// Counts of the host's handlers by kind and vector. With posted interrupts they do not grow while the guest's do: the host
/// does not see those interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounts(BTreeMap<(IrqIndex, usize), u64>);

impl HostCounts {
    /// Reads them, which takes the kernel milliseconds on a large host.
    pub fn now(bdf: Bdf) -> HostCounts {
        ProcInterrupts::now().map(|all| host_counts(&all, bdf)).unwrap_or_default()
    }

    fn get(&self, key: (IrqIndex, usize)) -> u64 {
        self.0.get(&key).copied().unwrap_or(0)
    }
}

/// Keeps the interrupt counts of vectors that have since been disabled.
#[derive(Debug)]
pub struct IrqHistory {
    bdf: Bdf,
    /// The host's counts when the present vectors were armed.
    base: HostCounts,
    past: BTreeMap<(IrqIndex, usize), VectorReport>,
}

/// The lines `vfio-msix[3](0000:01:00.0)`, `vfio-msi[0](..)` and `vfio-intx(..)` of /proc/interrupts.
fn host_counts(interrupts: &ProcInterrupts, bdf: Bdf) -> HostCounts {
    let device = format!("({bdf})");
    let of = |what: &str| {
        let action = what.split(' ').find(|word| word.starts_with("vfio-") && word.contains(&device))?;
        let number = || action.split_once('[')?.1.split_once(']')?.0.parse().ok();
        match action.split(['[', '(']).next()? {
            "vfio-msix" => Some((IrqIndex::Msix, number()?)),
            "vfio-msi" => Some((IrqIndex::Msi, number()?)),
            "vfio-intx" => Some((IrqIndex::Intx, 0)),
            _ => None,
        }
    };
    HostCounts(interrupts.lines().iter().filter_map(|line| Some((of(&line.what)?, line.count))).collect())
}

impl IrqHistory {
    /// An empty history.
    pub fn new(bdf: Bdf) -> IrqHistory {
        IrqHistory { bdf, base: HostCounts::default(), past: BTreeMap::new() }
    }

    /// Must be called after arming.
    pub fn armed(&mut self) {
        self.base = HostCounts::now(self.bdf);
    }

    /// The armed vectors with the host's counts `now`, to which the counts of earlier times are added.
    pub fn report(&self, armed: Vec<VectorReport>, now: &HostCounts) -> Vec<VectorReport> {
        let mut all = self.past.clone();
        for mut report in armed {
            let key = (report.index, report.vector);
            // If it was armed after `now` was read, there are none yet.
            report.host = now.get(key).saturating_sub(self.base.get(key));
            if let Some(past) = all.get(&key) {
                report.host += past.host;
                report.through_vmm += past.through_vmm;
            }
            all.insert(key, report);
        }
        all.into_values().collect()
    }

    /// Must be called before disarming, which removes the host's counts.
    pub fn disarming(&mut self, armed: Vec<VectorReport>) {
        let now = HostCounts::now(self.bdf);
        let ended =
            self.report(armed, &now).into_iter().map(|report| VectorReport { armed: false, ..report });
        self.past = ended.map(|report| ((report.index, report.vector), report)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::device::vector_report::Signals;

    #[test]
    fn the_hosts_lines_are_distinguished_by_kind_vector_and_device() {
        let text = "           CPU0       CPU1
  24:          5          7  PCI-MSI 65536-edge      vfio-msix[0](0000:00:01.0)
  25:          0          9  PCI-MSI 65537-edge      vfio-msix[12](0000:00:01.0)
  26:          4          0  PCI-MSI 65538-edge      vfio-msix[0](0000:00:02.0)
  27:          1          0  PCI-MSI 65539-edge      vfio-msi[0](0000:00:01.0)
  16:          3          3  IO-APIC 16-fasteoi   vfio-intx(0000:00:01.0)
  28:         99          0  PCI-MSI 65539-edge      nvme0q0
";
        let counts = host_counts(&ProcInterrupts::parse(text), "00:01.0".parse().unwrap());
        let expected = [
            ((IrqIndex::Intx, 0), 6),
            ((IrqIndex::Msi, 0), 1),
            ((IrqIndex::Msix, 0), 12),
            ((IrqIndex::Msix, 12), 9),
        ];
        assert_eq!(counts, HostCounts(expected.into()));
    }

    #[test]
    fn the_counts_of_disabled_vectors_are_kept_and_added_to() {
        let report = |through_vmm| VectorReport {
            vector: 1,
            index: IrqIndex::Msix,
            armed: true,
            signals: Signals::Vmm,
            direct: false,
            masked: false,
            gsi: None,
            through_vmm,
            host: 0,
        };
        let now = HostCounts::default();
        let mut history = IrqHistory::new("00:01.0".parse().unwrap());
        history.armed();
        history.disarming(vec![report(3)]);
        assert_eq!(history.report(vec![], &now), [VectorReport { armed: false, ..report(3) }]);
        history.armed();
        assert_eq!(history.report(vec![report(4)], &now), [report(7)]);
    }
}
