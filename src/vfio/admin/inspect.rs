//! Decodes what VFIO reports about a device.

use std::fmt::{self, Write};

use crate::vfio::kernel::device_fd::{DeviceFd, IrqInfo, VfioFd};
use crate::vfio::kernel::region::{Region, device_flags, irq_flags, irq_name, region_flags, region_name};
use crate::vfio::{Bdf, Dma, Host, VfioError};

/// The facts of `doorbell vfio inspect`.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The device.
    pub bdf: Bdf,
    /// How it was opened: "type-1 container" or "iommufd".
    pub through: &'static str,
    /// `VFIO_DEVICE_FLAGS_*`.
    pub flags: u32,
    /// Regions by index.
    pub regions: Vec<Region>,
    /// Interrupt indices.
    pub irqs: Vec<IrqInfo>,
}

/// Opens `bdf` and reads all its properties. The kernel resets the device when it is closed.
///
/// # Errors
/// It cannot be opened.
pub fn inspect(host: &Host, bdf: Bdf) -> Result<Inspection, VfioError> {
    let dma = Dma::new(host.clone(), None);
    let fd: VfioFd = dma.open(bdf)?;
    Ok(Inspection {
        bdf,
        through: dma.kind().unwrap_or("?"),
        flags: fd.flags(),
        regions: fd.regions().to_vec(),
        irqs: fd.irqs().to_vec(),
    })
}

impl Inspection {
    fn msix(&self) -> u32 {
        self.irqs.get(2).map_or(0, |irq| irq.count)
    }

    fn regions_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nregions")?;
        for region in &self.regions {
            write!(f, "  {} {:<15}", region.index, region_name(region.index))?;
            if region.size == 0 {
                writeln!(f, " not there")?;
                continue;
            }
            let flags = region_flags(region.flags & 7);
            writeln!(f, " {:#10x} bytes: {flags}", region.size)?;
            for area in region.areas.iter().filter(|_| region.mappable()) {
                let kind = if region.sparse { "sparse area" } else { "area" };
                writeln!(f, "      mmap {kind} {:#x} to {:#x}", area.offset, area.end())?;
            }
            if region.msix_mappable {
                writeln!(
                    f,
                    "      holds the MSI-X table; its page may be mapped (doorbell traps it all the same)"
                )?;
            }
        }
        Ok(())
    }

    fn irqs_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ninterrupt indices")?;
        for (index, irq) in (0..).zip(&self.irqs) {
            write!(f, "  {index} {:<17}", irq_name(index))?;
            match irq.count {
                0 => writeln!(f, " not there")?,
                n => writeln!(f, " {n:>5}: {}", irq_flags(irq.flags))?,
            }
        }
        Ok(())
    }

    /// Four questions that this output raises for a newcomer to VFIO, and their answers.
    fn answers(&self) -> [(&'static str, String); 4] {
        let bars: Vec<_> =
            self.regions.iter().take(6).filter(|r| r.size > 0).map(|r| r.index.to_string()).collect();
        let config = self.regions.get(7).map_or(0, |r| r.size);
        [
            (
                "What do the flags mean?",
                "A region's flags: what read(), write() and mmap() on the device's file may do there. An interrupt's \
                 flags: whether an eventfd can be bound to it, whether it can be masked here, whether it masks itself \
                 when it fires (a level that stays up until the guest has handled it), and whether vectors can be added \
                 while others are enabled."
                    .into(),
            ),
            (
                "What is region 7?",
                format!(
                    "Config space, {config} bytes. Reads and writes go through the kernel, which passes on what is safe \
                     and handles the rest itself (BARs, MSI-X control)."
                ),
            ),
            (
                "Is the number of IRQs the number of queues?",
                format!(
                    "No. {} is the number of kinds of interrupt (INTx, MSI, MSI-X, error, request); the count of MSI-X, \
                     {}, is the number of vectors in the device's table. How many of them a driver uses, and for how \
                     many queues each, is the driver's choice.",
                    self.irqs.len(),
                    self.msix()
                ),
            ),
            (
                "Are the regions the BARs?",
                format!(
                    "Regions 0 to 5 are BARs 0 to 5 (here: {}; the upper half of a 64-bit BAR is not a region of its own, \
                     size 0), 6 is the expansion ROM, 7 config space, 8 legacy VGA.",
                    if bars.is_empty() { "none".into() } else { bars.join(", ") }
                ),
            ),
        ]
    }

    /// The same as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let regions = self.regions.iter().map(|r| {
            let areas: Vec<_> = r.areas.iter().map(|a| serde_json::json!({"offset": a.offset, "len": a.len})).collect();
            serde_json::json!({
                "index": r.index, "name": region_name(r.index), "size": r.size, "flags": region_flags(r.flags & 7),
                "mmap": areas, "sparse": r.sparse, "msix_mappable": r.msix_mappable,
            })
        });
        let irqs = (0..).zip(&self.irqs).map(|(index, irq)| {
            serde_json::json!({
                "index": index, "name": irq_name(index), "count": irq.count, "flags": irq_flags(irq.flags),
            })
        });
        serde_json::json!({
            "device": self.bdf.to_string(), "through": self.through, "flags": device_flags(self.flags),
            "regions": regions.collect::<Vec<_>>(), "irqs": irqs.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} through a VFIO {}: {}", self.bdf, self.through, device_flags(self.flags))?;
        self.regions_text(f)?;
        self.irqs_text(f)?;
        let mut text = String::new();
        for (question, answer) in self.answers() {
            writeln!(text, "\n{question}\n{answer}")?;
        }
        f.write_str(&text)
    }
}
