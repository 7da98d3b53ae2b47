use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use vm_memory::{Bytes, GuestAddress};

use super::super::testing::{EVENT_IDX, FakeLoop, RING_RESET, Rig, VERSION_1};
use super::VirtioBlk;
use crate::dataplane::{IoThread, LoopConfig};
use crate::kvm::MsiMessage;
use crate::kvm::testing::Delivery;

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
    assert_eq!(
        rig.fake.names(),
        strings(&["disk0 queue 0", "disk0 queue 1"]),
        "a queue may be enabled later"
    );
    rig.set_status(0);
    assert_eq!((rig.fake.names(), rig.status()), (strings(&[]), 0));
    assert_eq!((rig.get(1, 0x10, 2), rig.get(1, 0x1a, 2), rig.get(1, 0x1c, 2)), (0xffff, 0xffff, 0));
    rig.start();
    assert_eq!(rig.fake.names().len(), 2, "the device starts again with the same backends");
}

#[test]
fn a_queue_can_be_reset_alone_and_comes_back_with_other_values() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    assert!(rig.negotiate(VERSION_1 | RING_RESET));
    rig.enable_queue(0);
    rig.enable_queue(1);
    rig.set_status(15);
    rig.put(1, 0x16, 0, 2);
    rig.put(1, 0x3a, 1, 2);
    assert_eq!((rig.get(1, 0x3a, 2), rig.get(1, 0x1c, 2)), (0, 0), "over, and not enabled");
    assert_eq!((rig.get(1, 0x1a, 2), rig.get(1, 0x20, 8)), (0xffff, 0), "in its default state");
    assert_eq!((rig.fake.names(), rig.status()), (strings(&["disk0 queue 1"]), 15), "the other runs on");
    assert_eq!((rig.vm.ioeventfds().len(), rig.vm.irqfds().len()), (1, 3));
    rig.put(1, 0x18, 16, 2);
    rig.enable_queue(0);
    assert_eq!(rig.fake.names().len(), 2);
    assert_eq!(rig.vm.ioeventfds().len(), 2);
}

#[test]
fn a_queue_that_could_not_run_is_tried_again_after_its_reset() {
    let rig = Rig::new(|_| {});
    assert!(rig.negotiate(VERSION_1 | RING_RESET));
    rig.put(1, 0x16, 0, 2);
    rig.put(1, 0x20, 8, 8);
    rig.put(1, 0x1c, 1, 2);
    rig.set_status(15);
    assert_eq!(rig.fake.names(), strings(&[]));
    rig.put(1, 0x3a, 1, 2);
    rig.enable_queue(0);
    assert_eq!(rig.fake.names(), strings(&["disk0 queue 0"]));
}

#[test]
fn without_ring_reset_its_register_does_nothing() {
    let rig = Rig::new(|_| {});
    rig.start();
    rig.put(1, 0x16, 0, 2);
    rig.put(1, 0x3a, 1, 2);
    assert_eq!((rig.get(1, 0x3a, 2), rig.get(1, 0x1c, 2), rig.fake.names().len()), (0, 1, 2));
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
    assert_eq!(rig.config_u32(4) >> 19 & 1, 0, "no INTx is pending: MSI-X is on");
    assert_eq!(rig.get(3, 0, 1), 2, "the ISR reports a configuration change with MSI-X, too (4.1.4.5.1)");
    assert_eq!((rig.get(3, 0, 1), rig.vm.take_deliveries()), (0, vec![]));
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    rig.start();
}

#[test]
fn rings_that_cannot_be_are_needs_reset_and_the_others_run() {
    // Queue 0 is replaced by: a size that is not a power of two, misaligned, outside memory, across its end.
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
        assert!(rig.device.view().last_error.is_some());
        // A store does not start it again.
        rig.set_status(15);
        assert_eq!(rig.fake.log.lock().unwrap().len(), 1);
        rig.set_status(0);
        rig.start();
        assert_eq!(rig.fake.names().len(), 2, "after a reset it is started again");
    }
}

/// A loop's thread may report a broken ring, and the main loop may look at the device and switch its path, at any
/// moment: also while a vCPU waits for that thread to attach or detach a queue. If a lock were held, this would hang.
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
        // While a reset is in progress, the status is not 0.
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

/// Puts one 512-byte read into queue 0 as [`Rig::enable_queue`] lays it out.
fn publish_read(rig: &Rig) {
    let descriptors: [(u64, u32, u16, u16); 3] = [(0x2000, 16, 1, 1), (0x3000, 512, 3, 2), (0x2100, 1, 2, 0)];
    for (n, (address, len, flags, next)) in descriptors.into_iter().enumerate() {
        let at = 0x1_0000 + 16 * n as u64;
        rig.memory.write_obj(address, GuestAddress(at)).unwrap();
        rig.memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        rig.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        rig.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }
    rig.memory.write_obj(0xffu8, GuestAddress(0x2100)).unwrap();
    rig.memory.write_obj(1u16, GuestAddress(0x1_4002)).unwrap();
}

/// Waits until vector `n` is pending; half a minute is for a machine that is busy with something else.
fn wait_for_vector(rig: &Rig, n: usize) {
    let fd = rig.device.device_interrupts().vectors()[n].event().as_raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 30_000) }, 1, "no interrupt came");
}

#[test]
fn a_request_and_a_kick_from_before_driver_ok_are_not_lost_on_a_real_io_thread() {
    let config = LoopConfig { name: "io0".into(), ..LoopConfig::default() };
    let thread = IoThread::spawn(config, Arc::new(|why| panic!("{why}"))).unwrap();
    let rig = Rig::with_loops(|_| {}, vec![Arc::new(thread.handle().clone())], Arc::new(FakeLoop::default()));
    // MSI-X on with everything masked: the pending bit shows the interrupt.
    rig.start_msix();
    let (_, msix) = rig.capabilities()[5];
    rig.config_write(u16::from(msix) + 2, &[0, 0xc0]);
    assert!(rig.negotiate(VERSION_1));
    rig.enable_queue(0);
    publish_read(&rig);
    rig.kick(0);
    rig.set_status(15);
    wait_for_vector(&rig, 0);
    assert_eq!(rig.memory.read_obj::<u8>(GuestAddress(0x2100)).unwrap(), 0, "status OK");
    assert_eq!(rig.memory.read_obj::<u16>(GuestAddress(0x1_8002)).unwrap(), 1, "used index");
    assert_eq!(rig.device.counters()[0].requests.load(Ordering::Relaxed), 1);
    rig.set_status(0);
    assert_eq!((rig.status(), rig.vm.ioeventfds()), (0, vec![]));
    assert!(rig.vm.irqfds().is_empty());
    drop(rig);
}
