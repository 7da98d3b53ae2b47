use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::super::rig::{EVENT_IDX, Rig, VERSION_1};
use super::VirtioBlk;
use crate::kvm::MsiMessage;
use crate::kvm::fake::Delivery;

const NEEDS_RESET: u8 = 0x40;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn queues_start_with_driver_ok_and_stop_with_reset() {
    let rig = Rig::new(|_| {});
    assert!(rig.negotiate(VERSION_1));
    rig.enable_queue(0);
    assert_eq!(rig.fake.names(), strings(&[]));
    rig.set_status(15);
    assert_eq!(rig.fake.names(), strings(&["disk0 queue 0"]));
    rig.enable_queue(1);
    assert_eq!(rig.fake.names(), strings(&["disk0 queue 0", "disk0 queue 1"]), "one may also come later");
    rig.set_status(0);
    assert_eq!((rig.fake.names(), rig.status()), (strings(&[]), 0));
    assert_eq!((rig.get(1, 0x10, 2), rig.get(1, 0x1a, 2), rig.get(1, 0x1c, 2)), (0xffff, 0xffff, 0));
    rig.start();
    assert_eq!(rig.fake.names().len(), 2, "and again, with the same backends");
}

#[test]
fn dropping_the_device_stops_its_queues_and_leaves_nothing_behind() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    let (fake, vm) = (rig.fake.clone(), rig.vm.clone());
    assert_eq!((vm.ioeventfds().len(), vm.irqfds().len()), (2, 3));
    drop(rig);
    assert_eq!(fake.names(), strings(&[]));
    assert_eq!((vm.ioeventfds(), vm.irqfds()), (vec![], vec![]));
}

#[test]
fn a_broken_ring_is_needs_reset_and_one_configuration_interrupt() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    rig.put(1, 0x10, 2, 2);
    let broken = rig.fake.running.lock().unwrap()[0].1.clone();
    broken();
    broken();
    assert_eq!(rig.status(), 15 | NEEDS_RESET);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x42 };
    assert_eq!(rig.vm.take_deliveries(), [Delivery::SignalMsi(message)]);
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    rig.start();
}

#[test]
fn rings_that_cannot_be_are_needs_reset_and_the_others_run() {
    // Queue 0 is replaced by: a size that is no power of two, misaligned, outside memory, across its end.
    for (at, value, len) in
        [(0x18, 100, 2), (0x20, 0x1_0008, 8), (0x28, 1 << 40, 8), (0x30, 0x10_0000 - 8, 8), (0x20, !15, 8)]
    {
        let rig = Rig::new(|_| {});
        assert!(rig.negotiate(VERSION_1 | EVENT_IDX));
        rig.put(1, 0x16, 0, 2);
        for (at, base) in [(0x20, 0x1_0000), (0x28, 0x2_0000), (0x30, 0x3_0000)] {
            rig.put(1, at, base, 8);
        }
        rig.put(1, at, value, len);
        rig.put(1, 0x1c, 1, 2);
        rig.enable_queue(1);
        rig.set_status(15);
        assert_eq!(rig.status(), 15 | NEEDS_RESET, "{value:#x} at {at:#x}");
        assert_eq!(rig.fake.names(), strings(&["disk0 queue 1"]));
        assert!(rig.device.view().trouble.is_some());
        // It is not tried again with every store.
        rig.set_status(15);
        assert_eq!(rig.fake.log.lock().unwrap().len(), 1);
        rig.set_status(0);
        rig.start();
    }
}

/// A loop's thread may report a broken ring, and the main loop may look at the device and switch its path, at any
/// moment: also while a vCPU waits for it to take or to give back a queue. If a lock were held, this would hang.
#[test]
fn a_vcpu_that_waits_for_a_loop_holds_no_lock_that_the_loop_could_want() {
    let rig = Rig::new(|_| {});
    let device: Weak<VirtioBlk> = Arc::downgrade(&rig.device);
    let seen = Arc::new(AtomicU32::new(0));
    let (fake, calls) = (Arc::downgrade(&rig.fake), seen.clone());
    *rig.fake.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let (device, fake) = (device.upgrade().unwrap(), fake.upgrade().unwrap());
        let broken: Vec<_> = fake.running.lock().unwrap().iter().map(|(_, broken)| broken.clone()).collect();
        broken.iter().for_each(|broken| broken());
        device.set_notify_path(super::super::NotifyPath::Mmio).unwrap();
        // A reset in progress reads as not over.
        calls.fetch_add(u32::from(device.view().status & 4 != 0), Ordering::Relaxed);
    }));
    assert!(rig.negotiate(VERSION_1));
    rig.enable_queue(0);
    rig.enable_queue(1);
    rig.set_status(15);
    rig.set_status(0);
    assert_eq!(seen.load(Ordering::Relaxed), 4, "two attached, two detached");
    assert_eq!(rig.status(), 0, "a report from a queue that was being stopped does not outlive the reset");
}

#[test]
fn vcpus_that_start_and_reset_the_device_at_once_leave_it_consistent() {
    let rig = Rig::new(|_| {});
    std::thread::scope(|scope| {
        for n in 0..3u64 {
            let rig = &rig;
            scope.spawn(move || {
                for round in 0..200 {
                    match (round + n) % 3 {
                        0 => rig.set_status(0),
                        1 => _ = rig.negotiate(VERSION_1),
                        _ => {
                            rig.enable_queue(n % 2);
                            rig.set_status(15);
                        }
                    }
                }
            });
        }
    });
    rig.set_status(0);
    assert_eq!((rig.status(), rig.fake.names()), (0, strings(&[])));
    assert_eq!(rig.vm.ioeventfds(), []);
    rig.start();
}
