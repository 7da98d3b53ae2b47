use super::*;
use crate::bench::testing::violations;
use crate::dataplane::CompletePath;
use crate::virtio::testing::{BAR, Rig};

fn parts(rig: &Rig) -> VmParts {
    VmParts { disks: vec![rig.device.clone()], routes: Some(rig.routes.clone()), ..VmParts::default() }
}

/// A device with both queues running and MSI-X on, and its snapshot.
fn started() -> (Rig, VmView) {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    let view = parts(&rig).look("all").unwrap();
    (rig, view)
}

#[test]
fn the_doorbells_are_those_that_the_machine_armed() {
    let (rig, view) = started();
    let doorbells = view.doorbells.unwrap();
    let (bar, offset) = rig.notify(1);
    assert_eq!(bar, 0);
    let second = &doorbells[1];
    assert_eq!((second.bus.as_deref(), second.address), (Some("mmio"), Some(BAR + offset)));
    assert_eq!((second.length, second.value, second.notify.as_str()), (Some(0), None, "fast-mmio"));
    rig.place(BAR + 0x10_0000);
    rig.kick(1);
    let after = &parts(&rig).look("doorbells").unwrap().doorbells.unwrap()[1];
    assert_eq!(after.address, Some(BAR + 0x10_0000 + offset), "the address follows the BAR");
    assert_eq!(after.kicks_exit, 1);
}

#[test]
fn the_routes_are_the_kernel_s_and_say_who_holds_them() {
    let (rig, view) = started();
    let routes = view.routes.unwrap();
    assert_eq!(routes.entries.len(), rig.vm.routing().len());
    assert_eq!(routes.entries[0].kind, "pic-master");
    let msi: Vec<_> = routes.entries.iter().filter(|entry| entry.kind == "msi").collect();
    let seen: Vec<_> =
        msi.iter().map(|e| (e.gsi, e.msi.as_ref().unwrap().vector, e.holder.as_deref())).collect();
    let expected = [(24, 0x40, "disk0 vector 0"), (25, 0x41, "disk0 vector 1"), (26, 0x42, "disk0 vector 2")];
    assert_eq!(seen, expected.map(|(gsi, vector, holder)| (gsi, vector, Some(holder))));
}

#[test]
fn vectors_show_mask_pending_and_who_rings_by_them() {
    let (rig, view) = started();
    let vectors = view.vectors.unwrap();
    assert_eq!((vectors[0].sources.as_slice(), vectors[0].irqfd), (&["queue 0".to_string()][..], true));
    assert!(vectors.iter().all(|vector| vector.enabled && !vector.masked && !vector.pending));
    // The function mask is set, then an interrupt is sent.
    let (_, at) = rig.capabilities().into_iter().find(|&(id, _)| id == 0x11).unwrap();
    rig.config_write(u16::from(at) + 2, &[0, 0xc0]);
    rig.device.interrupts()[1].deliver();
    let vectors = parts(&rig).look("vectors").unwrap().vectors.unwrap();
    let masked = &vectors[1];
    assert!(masked.masked && !masked.entry_masked && masked.pending && !masked.irqfd);
    assert_eq!(
        masked.interrupts.pending, 1,
        "on a thread other than an I/O thread, auto uses KVM_SIGNAL_MSI"
    );
}

#[test]
fn queues_show_the_rings_as_they_stand_in_guest_memory() {
    use vm_memory::{Bytes, GuestAddress};
    let (rig, view) = started();
    let queue = &view.queues.unwrap()[0];
    assert_eq!(
        (queue.enabled, queue.running, queue.thread.as_str(), queue.vector),
        (true, true, "fake", Some(0))
    );
    assert_eq!((queue.size, queue.driver_avail), (256, Some(0)));
    rig.memory.write_obj(7u16, GuestAddress(0x1_4002)).unwrap();
    let queue = &parts(&rig).look("queues").unwrap().queues.unwrap()[0];
    assert_eq!((queue.driver_avail, queue.next_avail), (Some(7), 0));
}

#[test]
fn interrupts_by_intx_are_shown_with_their_queue() {
    let rig = Rig::new(|config| config.complete = CompletePath::IrqLine);
    rig.start();
    rig.device.device_interrupts().configure(false, false);
    rig.device.interrupts()[1].deliver();
    let queues = parts(&rig).look("queues").unwrap().queues.unwrap();
    let sent: Vec<_> = queues.iter().map(|queue| queue.interrupts.intx).collect();
    assert_eq!(sent, [0, 1]);
}

#[test]
fn a_section_comes_alone_and_survives_json() {
    let (rig, view) = started();
    let alone = parts(&rig).look("threads").unwrap();
    assert!(alone.threads.is_some() && alone.routes.is_none() && alone.vfio.is_none());
    assert!(parts(&rig).look("everything").is_none());
    let text = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<VmView>(&text).unwrap(), view);
}

#[test]
fn the_json_is_what_its_schema_says() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/inspect.schema.json")).unwrap();
    let (_rig, view) = started();
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(violations(&schema, &schema, &json, ""), Vec::<String>::new());
    let message = schema.pointer("/$defs/msi").unwrap();
    assert_eq!(violations(&schema, message, &json["routes"]["entries"][40]["msi"], ""), Vec::<String>::new());
    let mut wrong = json;
    wrong["queues"][0]["requests"] = (-1).into();
    assert!(!violations(&schema, &schema, &wrong, "").is_empty());
}
