//! `doorbell vfio`: devices of the host that can be given to a guest.

use std::sync::Arc;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};

use super::{Failure, print};
use crate::host::Posting;
use crate::host::log;
use crate::vfio::{self, Bdf, Host, HostDevice, IrqIndex, VectorReport, VfioError, VfioPci};

/// See, claim and try devices for passthrough.
#[derive(Debug, Args)]
pub struct VfioArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All PCI devices with driver, IOMMU group, who else is in the group, and MSI-X vectors
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a device to vfio-pci; refused while this host uses its disk or network interface
    Bind {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
    },
    /// Give a device back to the driver that it had
    Unbind {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
    },
    /// Every region and interrupt of a device that is with vfio-pci, decoded
    Inspect {
        /// PCI address, as 0000:01:00.0
        bdf: Bdf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try one interrupt vector without any VM: an eventfd is bound, triggered by the kernel, and read
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
            Some(driver) => format!("{bdf} is with {driver} again\n"),
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["device", "id", "class", "driver", "group", "MSI-X", "in the same group"]);
    for device in &devices {
        let group = device.group.as_ref();
        let others = group.map_or(Vec::new(), |g| g.others.iter().map(other).collect());
        table.add_row([
            device.bdf.to_string(),
            id(device),
            vfio::class_name(device.class).into(),
            device.driver.clone().unwrap_or_else(|| "-".into()),
            group.map_or("-".into(), |g| g.id.clone()),
            device.msix.map_or("-".into(), |n| n.to_string()),
            others.join(", "),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
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
        (false, _) => format!("{bdf} is with vfio-pci already\n"),
        (true, Some(driver)) => {
            format!("{bdf} is with vfio-pci now; `doorbell vfio unbind {bdf}` gives it back to {driver}\n")
        }
        (true, None) => format!("{bdf} is with vfio-pci now; it had no driver\n"),
    };
    let others = host.group(bdf).map_or(Vec::new(), |g| g.others);
    let blocking: Vec<_> =
        others.iter().filter(|(_, d)| vfio::blocks_binding(d.as_deref())).map(other).collect();
    if !blocking.is_empty() {
        text += &format!(
            "its IOMMU group can be used only when these are given to vfio-pci too: {}\n",
            blocking.join(", ")
        );
    }
    Ok(text)
}

/// What the interrupts of a run's passed-through devices came to, on standard error.
pub(super) fn summary(devices: &[Arc<VfioPci>]) {
    for device in devices {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["vector", "armed by", "GSI", "host interrupts", "through the VMM"]);
        for report in device.report() {
            table.add_row([
                report.name(),
                armed_by(&report).into(),
                report.gsi.map_or("-".into(), |gsi| gsi.to_string()),
                report.host.to_string(),
                report.through_vmm.to_string(),
            ]);
        }
        log::say(format_args!(
            "\n{} with irq={}; interrupts as the host counted them:\n{}",
            device.bdf(),
            device.path(),
            table.trim_fmt()
        ));
    }
    if !devices.is_empty() {
        log::say(format_args!(
            "The guest's own counts are in its /proc/interrupts: equal to the host's where the host handles each one, ahead of \
             them where interrupts are posted.\nPosted interrupts of devices: {}",
            Posting::here().by_device()
        ));
    }
}

/// How a vector reaches the guest while it is not masked.
fn armed_by(report: &VectorReport) -> &'static str {
    match (report.direct, report.index) {
        (true, IrqIndex::Intx) => "level irqfd with resamplefd",
        (false, IrqIndex::Intx) => "eventfd read by the VMM, level irqfd",
        (true, _) => "irqfd",
        (false, _) => "eventfd read by the VMM, KVM_SIGNAL_MSI",
    }
}

/// The same for `--stats`.
pub(super) fn stats(device: &VfioPci) -> serde_json::Value {
    let vectors = device.report().into_iter().map(|report| {
        serde_json::json!({
            "name": report.name(), "armed": report.armed, "armed_by": armed_by(&report),
            "masked": report.masked, "gsi": report.gsi,
            "host": report.host, "through_vmm": report.through_vmm,
        })
    });
    serde_json::json!({
        "device": device.bdf().to_string(), "irq": device.path().to_string(), "vectors": vectors.collect::<Vec<_>>(),
    })
}
