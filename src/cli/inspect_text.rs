//! The tables of a VM as text.

use crate::host::Posted;
use crate::observe::inspect::{DoorbellView, QueueState, RouteView, RoutesView, VectorView};
use crate::observe::text;
use crate::observe::{MemoryView, PostedView, ThreadView, VfioView, VmView};

/// The cell of a missing value.
const NONE: &str = "-";

/// Makes a table.
type Make = fn(&[&str], Vec<Vec<String>>) -> String;

fn table_of(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    text::table(headings, rows)
}

fn narrow_of(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    text::narrow_table(headings, rows)
}

/// Whose interrupts are posted, and whether they are.
type Which = (&'static str, fn(&PostedView) -> &Posted);
const TO_VCPU: Which = ("posted by KVM to a running vCPU", |posted| &posted.to_vcpu);
const BY_DEVICE: Which = ("posted by the device to a running vCPU", |posted| &posted.by_device);

/// All requested sections, one below the other. Unless it is to be `wide`, the routes to each interrupt controller's pins
/// share one row, because they never change, and columns that say nothing are left out.
pub(super) fn text(view: &VmView, wide: bool) -> String {
    let (fold, table): (bool, Make) = if wide { (false, table_of) } else { (true, narrow_of) };
    let sections = [
        view.routes.as_ref().map(|all| routes(all, fold, table)),
        view.doorbells.as_ref().map(|all| titled("doorbells", doorbells(all, table))),
        view.vectors.as_ref().map(|all| titled("vectors", posted(vectors(all, table), TO_VCPU, view))),
        view.queues.as_ref().map(|all| titled("queues", queues(all, table))),
        view.threads.as_ref().map(|all| titled("threads", threads(all, table))),
        view.memory.as_ref().map(|ram| titled("memory", memory(ram))),
        view.vfio.as_ref().map(|all| titled("vfio", vfio(all, view, table))),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn titled(title: &str, table: String) -> String {
    format!("{title}\n{table}\n")
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or(NONE.into(), |value| value.to_string())
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// One row per interrupt controller for the routes to its pins.
fn folded(entries: &[RouteView]) -> Vec<Vec<String>> {
    let mut kinds: Vec<&str> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.msi.is_none()) {
        if !kinds.contains(&entry.kind.as_str()) {
            kinds.push(&entry.kind);
        }
    }
    let row = |kind: &str| {
        let of_kind = || entries.iter().filter(|entry| entry.kind == kind);
        let gsis = of_kind().map(|entry| entry.gsi);
        let pins = of_kind().filter_map(|entry| entry.pin);
        let range = |low: Option<u32>, high: Option<u32>| format!("{}-{}", or_none(low), or_none(high));
        let gsi = range(gsis.clone().min(), gsis.max());
        let pins = range(pins.clone().min(), pins.max());
        vec![gsi, kind.into(), NONE.into(), NONE.into(), format!("pins {pins}"), NONE.into()]
    };
    kinds.into_iter().map(row).collect()
}

fn routes(routes: &RoutesView, fold: bool, table: Make) -> String {
    let shown = routes.entries.iter().filter(|route| !fold || route.msi.is_some());
    let rows = shown.map(|route| {
        let (address, data) = match &route.msi {
            Some(msi) => (format!("{:#x}", msi.address), format!("{:#x}", msi.data)),
            None => (NONE.into(), NONE.into()),
        };
        let meaning = match &route.msi {
            Some(msi) => msi.to_string(),
            None => format!("pin {}", or_none(route.pin)),
        };
        vec![
            route.gsi.to_string(),
            route.kind.clone(),
            address,
            data,
            meaning,
            or_none(route.holder.as_ref()),
        ]
    });
    let pins = if fold { folded(&routes.entries) } else { Vec::new() };
    let headings = ["GSI>", "to", "address", "data", "meaning", "held by"];
    let table = table(&headings, pins.into_iter().chain(rows).collect());
    let times = if routes.commits == 1 { "time" } else { "times" };
    titled(&format!("routes (KVM_SET_GSI_ROUTING called {} {times})", routes.commits), table)
}

fn doorbells(all: &[DoorbellView], table: Make) -> String {
    let rows = all.iter().map(|doorbell| {
        let address = doorbell.address.map(|address| format!("{address:#x}"));
        let length = doorbell.length.map(|n| if n == 0 { "any".into() } else { n.to_string() });
        let value = match (doorbell.armed, doorbell.value) {
            (true, None) => "any".into(),
            (_, value) => or_none(value),
        };
        vec![
            format!("{} queue {}", doorbell.device, doorbell.queue),
            doorbell.notify.clone(),
            or_none(doorbell.bus.as_ref()),
            or_none(address),
            or_none(length),
            value,
            or_none(doorbell.hits),
            doorbell.kicks_exit.to_string(),
            doorbell.kicks_missed.to_string(),
        ]
    });
    let headings = ["of", "notify", "bus", "address", "length>", "value>", "hits>", "by exit>", "missed>"];
    table(&headings, rows.collect())
}

fn vectors(all: &[VectorView], table: Make) -> String {
    let rows = all.iter().map(|vector| {
        let masked = match (vector.enabled, vector.entry_masked, vector.masked) {
            (false, ..) => "MSI-X off",
            (_, true, _) => "entry",
            (_, _, true) => "function",
            _ => "no",
        };
        let sent = &vector.interrupts;
        vec![
            format!("{} vector {}", vector.device, vector.vector),
            if vector.sources.is_empty() { NONE.into() } else { vector.sources.join(", ") },
            vector.complete.clone(),
            masked.into(),
            yes(vector.pending),
            vector.msi.to_string(),
            or_none(vector.gsi),
            yes(vector.irqfd),
            sent.irqfd.to_string(),
            sent.signal_msi.to_string(),
            sent.pending.to_string(),
        ]
    });
    let headings = [
        "of",
        "sent by",
        "complete",
        "masked",
        "pending",
        "message",
        "GSI>",
        "irqfd",
        "by irqfd>",
        "by MSI>",
        "kept pending>",
    ];
    table(&headings, rows.collect())
}

fn queues(all: &[QueueState], table: Make) -> String {
    let rows = all.iter().map(|queue| {
        let state = match (queue.enabled, queue.running) {
            (_, true) => "running",
            (true, false) => "enabled",
            _ => "off",
        };
        let position = |word: u16| match queue.packed {
            true => format!("{} wrap {}", word & 0x7fff, word >> 15),
            false => word.to_string(),
        };
        vec![
            format!("{} queue {}", queue.device, queue.queue),
            state.into(),
            queue.thread.clone(),
            format!("{}{}", queue.size, if queue.packed { " packed" } else { "" }),
            or_none(queue.driver_avail),
            position(queue.next_avail),
            position(queue.next_used),
            queue.in_flight.to_string(),
            or_none(queue.used_event.map(position)),
            or_none(queue.avail_event.map(position)),
            queue.counts.requests.to_string(),
            queue.counts.errors.to_string(),
            queue.counts.batches.to_string(),
            queue.interrupts.irqfd.to_string(),
            (queue.interrupts.signal_msi + queue.interrupts.pending).to_string(),
            queue.interrupts.intx.to_string(),
            queue.counts.suppressed.to_string(),
            queue.counts.wakeups.to_string(),
            queue.counts.system_calls.to_string(),
        ]
    });
    let headings = [
        "of",
        "state",
        "thread",
        "size>",
        "driver avail>",
        "avail>",
        "used>",
        "in flight>",
        "used_event>",
        "avail_event>",
        "requests>",
        "errors>",
        "batches>",
        "by irqfd>",
        "by MSI>",
        "by INTx>",
        "suppressed>",
        "wake-ups>",
        "syscalls>",
    ];
    table(&headings, rows.collect())
}

fn threads(all: &[ThreadView], table: Make) -> String {
    let rows = all.iter().map(|thread| {
        vec![
            thread.tid.to_string(),
            thread.name.clone(),
            thread.state.clone(),
            or_none(thread.cpu),
            thread.user_ms.to_string(),
            thread.system_ms.to_string(),
            or_none(thread.waits),
            or_none(thread.poll_hits),
            if thread.owns.is_empty() { NONE.into() } else { thread.owns.join(", ") },
        ]
    });
    let headings =
        ["TID>", "thread", "state", "CPU>", "user ms>", "system ms>", "waits>", "poll hits>", "owns"];
    table(&headings, rows.collect())
}

/// One line for what backs guest RAM, one for how KVM maps it. Fewer, larger pages cost the guest fewer nested faults.
fn memory(ram: &MemoryView) -> String {
    let mib = |kib: u64| kib >> 10;
    let MemoryView { size_kib, resident_kib, huge_kib, .. } = *ram;
    let backed = format!(
        "{} MiB, {} MiB of it touched, {} MiB of that in huge pages",
        mib(size_kib),
        mib(resident_kib),
        mib(huge_kib)
    );
    let (small, large, giant) = (ram.kvm_pages_4k, ram.kvm_pages_2m, ram.kvm_pages_1g);
    let mapped = match (small, large, giant) {
        (None, None, None) => "not counted by this kernel".into(),
        _ => format!("{} of 4 KiB, {} of 2 MiB, {} of 1 GiB", or_none(small), or_none(large), or_none(giant)),
    };
    format!("{backed}\nmappings in KVM's page tables: {mapped}")
}

/// `table`, and below it whether its interrupts are posted.
fn posted(table: String, which: Which, view: &VmView) -> String {
    let line = view.posted_interrupts.as_ref().map(|posted| format!("\n{}: {}", which.0, which.1(posted)));
    table + &line.unwrap_or_default()
}

fn vfio(all: &[VfioView], view: &VmView, table: Make) -> String {
    if all.is_empty() {
        return "no passed-through devices".into();
    }
    let rows = all.iter().flat_map(|device| {
        device.vectors.iter().map(|vector| {
            vec![
                format!("{} {}", device.device, vector.name),
                device.irq.clone(),
                if vector.armed { vector.armed_by.clone() } else { format!("off (was {})", vector.armed_by) },
                yes(vector.masked),
                or_none(vector.gsi),
                vector.host.to_string(),
                vector.through_vmm.to_string(),
            ]
        })
    });
    let headings = ["of", "irq", "armed by", "masked", "GSI>", "host handled>", "through the VMM>"];
    let table = table(&headings, rows.collect());
    posted(table, BY_DEVICE, view)
}

#[cfg(test)]
mod tests {
    use crate::observe::VmParts;

    #[test]
    fn a_vm_without_devices_has_tables_all_the_same() {
        let view = VmParts::default().look("all").unwrap();
        let text = super::text(&view, false);
        for title in ["routes", "doorbells", "vectors", "queues", "threads", "vfio"] {
            assert!(text.lines().any(|line| line.starts_with(title)), "{title}: {text}");
        }
        assert!(text.contains("no passed-through devices"));
        // A fact of the host: one line, whichever it is.
        assert!(text.contains("posted by KVM to a running vCPU: "), "{text}");
        assert!(!text.contains("posted by the device"), "{text}");
    }
}
