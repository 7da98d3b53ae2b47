//! `doorbell vfio`: devices of the host that can be passed through to a guest.

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::host::log;
use crate::observe::VfioView;
use crate::observe::text::table;
use crate::vfio::{self, Bdf, Host, HostDevice, VfioError, VfioPci};

/// List, bind and test devices for passthrough.
#[derive(Debug, Args)]
pub struct VfioArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all PCI devices: driver, IOMMU group, other devices in the group, MSI-X vectors
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Bind a device to vfio-pci; refused while this host uses its disk or network interface
    Bind {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
    },
    /// Bind a device to its previous driver again
    Unbind {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
    },
    /// Decode the regions, interrupts and capabilities of a device that is bound to vfio-pci
    Inspect {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Test one interrupt vector without a VM: bind an eventfd, let the kernel trigger it, read it
    IrqTest {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
        /// The vector
        #[arg(long, value_name = "N", default_value_t = 0)]
        vector: u32,
    },
}

impl From<VfioError> for Failure {
    fn from(error: VfioError) -> Failure {
        let code = match error {
            VfioError::InvalidBdf(_) => 2,
            VfioError::NoDevice(_) | VfioError::InUse { .. } | VfioError::Busy { .. } => 4,
            _ => 3,
        };
        Failure { code, message: error.to_string() }
    }
}

/// Runs one of the verbs; returns the exit code.
pub(super) fn run(args: VfioArgs) -> Result<u8, Failure> {
    let host = Host::real();
    let text = match args.verb {
        Verb::List { json } => list(&host, json)?,
        Verb::Bind { bdf } => bind(&host, bdf)?,
        Verb::Unbind { bdf } => match vfio::unbind(&host, bdf)? {
            Some(driver) => format!("{bdf} is bound to {driver} again\n"),
            None => format!("{bdf} has no driver now, as before\n"),
        },
        Verb::Inspect { bdf, json: false } => vfio::inspect(&host, bdf)?.to_string(),
        Verb::Inspect { bdf, json: true } => format!("{}\n", vfio::inspect(&host, bdf)?.to_json()),
        Verb::IrqTest { bdf, vector } => {
            let test = vfio::irq_test(&host, bdf, vector)?;
            format!(
                "{bdf}: eventfd bound to {} vector {} of {}, triggered by the kernel (VFIO_IRQ_SET_ACTION_TRIGGER), read: \
                 counter {}, {} us from trigger to read\n",
                test.index.name(),
                test.vector,
                test.count,
                test.signalled,
                test.took.as_micros()
            )
        }
    };
    print(&text).map(|()| 0)
}

fn list(host: &Host, json: bool) -> Result<String, Failure> {
    let devices = host.devices()?;
    if json {
        let all: Vec<_> = devices.iter().map(as_json).collect();
        return Ok(format!("{}\n", serde_json::Value::from(all)));
    }
    let rows = devices.iter().map(|device| {
        let group = device.group.as_ref();
        let others: Vec<_> = group.map_or(Vec::new(), |g| g.others.iter().map(other).collect());
        vec![
            device.bdf.to_string(),
            id(device),
            vfio::class_name(device.class).into(),
            device.driver.clone().unwrap_or_else(|| "-".into()),
            group.map_or("-".into(), |g| g.id.clone()),
            device.msix.map_or("-".into(), |n| n.to_string()),
            others.join(", "),
        ]
    });
    let headings = ["device", "id", "class", "driver", "group>", "MSI-X>", "in the same group"];
    let mut text = format!("{}\n", table(&headings, rows));
    if devices.iter().all(|d| d.group.is_none()) {
        text += "\nNo device is in an IOMMU group, so none can be given to a guest: switch the IOMMU on in the firmware \
                 (VT-d, AMD-Vi) and in the kernel (intel_iommu=on).\n";
    }
    Ok(text)
}

fn id(device: &HostDevice) -> String {
    format!("{:04x}:{:04x}", device.id.0, device.id.1)
}

fn other((bdf, driver): &(Bdf, Option<String>)) -> String {
    format!("{bdf} ({})", driver.as_deref().unwrap_or("no driver"))
}

fn as_json(device: &HostDevice) -> serde_json::Value {
    let group = device.group.as_ref();
    let others = group.map_or(Vec::new(), |g| {
        g.others.iter().map(|(b, d)| serde_json::json!({"device": b.to_string(), "driver": d})).collect()
    });
    serde_json::json!({
        "device": device.bdf.to_string(),
        "id": id(device),
        "class": format!("{:06x}", device.class),
        "class_name": vfio::class_name(device.class),
        "driver": device.driver,
        "iommu_group": group.map(|g| &g.id),
        "group_others": others,
        "msix_vectors": device.msix,
    })
}

fn bind(host: &Host, bdf: Bdf) -> Result<String, Failure> {
    let bound = vfio::bind(host, bdf)?;
    let mut text = match (bound.changed, bound.before) {
        (false, _) => format!("{bdf} is bound to vfio-pci already\n"),
        (true, Some(driver)) => {
            format!(
                "{bdf} is bound to vfio-pci now; `doorbell vfio unbind {bdf}` binds it to {driver} again\n"
            )
        }
        (true, None) => format!("{bdf} is bound to vfio-pci now; it had no driver\n"),
    };
    let others = host.group(bdf).map_or(Vec::new(), |g| g.others);
    let blocking: Vec<_> =
        others.iter().filter(|(_, d)| vfio::blocks_binding(d.as_deref())).map(other).collect();
    if !blocking.is_empty() {
        text += &format!(
            "its IOMMU group can be used only when these are bound to vfio-pci, too: {}\n",
            blocking.join(", ")
        );
    }
    Ok(text)
}

/// Prints the interrupt counts of a run's passed-through devices on standard error.
pub(super) fn summary(devices: &[Arc<VfioPci>]) {
    let views: Vec<_> = devices.iter().map(|device| VfioView::of(device)).collect();
    for view in &views {
        let rows = view.vectors.iter().map(|vector| {
            vec![
                vector.name.clone(),
                vector.armed_by.clone(),
                vector.gsi.map_or("-".into(), |gsi| gsi.to_string()),
                vector.host.to_string(),
                vector.through_vmm.to_string(),
            ]
        });
        log::say(format_args!(
            "\n{} with irq={}; interrupts as the host counted them:\n{}",
            view.device,
            view.irq,
            table(&["vector", "armed by", "GSI>", "host interrupts>", "through the VMM>"], rows)
        ));
    }
    if let Some(view) = views.first() {
        log::say(format_args!(
            "The guest's own counts are in its /proc/interrupts. They equal the host's where the host handles each \
             interrupt, and exceed them where interrupts are posted.\nPosted interrupts of devices: {}",
            view.posted_interrupts
        ));
    }
}

/// The entry of `--stats` for `device`.
pub(super) fn stats(device: &VfioPci) -> serde_json::Value {
    let view = VfioView::of(device);
    serde_json::json!({"device": view.device, "irq": view.irq, "vectors": view.vectors})
}
