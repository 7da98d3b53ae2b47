use super::super::testing::{BAR, NOTIFICATION_DATA, PORT, Rig, VERSION_1};
use super::*;
use crate::kvm::Match;
use crate::pci::PciDevice;

fn spec(address: IoAddress, matching: Match) -> IoeventfdSpec {
    IoeventfdSpec { address, matching }
}

fn any(base: u64) -> Vec<IoeventfdSpec> {
    (0..2).map(|n| spec(IoAddress::Mmio(base + 0x5000 + 4 * n), Match::Any)).collect()
}

#[test]
fn each_path_arms_its_own_kind_of_doorbell() {
    let mmio = |n| spec(IoAddress::Mmio(BAR + 0x5000 + 4 * n), Match::Value(2, n));
    let pio = |n| spec(IoAddress::Pio((PORT + 4 * n) as u16), Match::Value(2, n));
    for (path, expected) in [
        (NotifyPath::FastMmio, any(BAR)),
        (NotifyPath::Mmio, vec![mmio(0), mmio(1)]),
        (NotifyPath::Pio, vec![pio(0), pio(1)]),
        (NotifyPath::Exit, vec![]),
    ] {
        let rig = Rig::new(|config| config.notify = path);
        assert_eq!(rig.vm.ioeventfds(), [], "{path}: no driver yet");
        rig.start();
        assert_eq!(rig.vm.ioeventfds(), expected, "{path}");
        rig.set_status(0);
        assert_eq!(rig.vm.ioeventfds(), [], "{path}: after reset");
    }
}

#[test]
fn with_notification_data_only_the_length_can_match() {
    for (path, address, matching) in [
        (NotifyPath::FastMmio, IoAddress::Mmio(BAR + 0x5000), Match::Any),
        (NotifyPath::Mmio, IoAddress::Mmio(BAR + 0x5000), Match::Length(4)),
        (NotifyPath::Pio, IoAddress::Pio(PORT as u16), Match::Length(4)),
    ] {
        let rig = Rig::new(|config| {
            config.notify = path;
            config.notification_data = true;
        });
        // A driver that does not accept the feature kicks as ever.
        rig.start();
        assert_eq!(rig.vm.ioeventfds()[0].matching == matching, path == NotifyPath::FastMmio, "{path}");
        rig.set_status(0);
        assert!(rig.negotiate(VERSION_1 | NOTIFICATION_DATA));
        rig.enable_queue(0);
        rig.set_status(15);
        assert_eq!(rig.vm.ioeventfds(), [spec(address, matching)], "{path}");
    }
    assert!(!Rig::new(|_| {}).negotiate(VERSION_1 | NOTIFICATION_DATA), "not offered unless asked for");
}

#[test]
fn the_address_is_the_one_that_the_driver_computes() {
    for path in [NotifyPath::FastMmio, NotifyPath::Pio] {
        let rig = Rig::new(|config| config.notify = path);
        rig.start();
        let base = if path == NotifyPath::Pio { PORT } else { BAR };
        let addresses: Vec<_> = rig
            .vm
            .ioeventfds()
            .iter()
            .map(|spec| match spec.address {
                IoAddress::Mmio(at) => at,
                IoAddress::Pio(at) => at.into(),
            })
            .collect();
        assert_eq!(addresses, [base + rig.notify(0).1, base + rig.notify(1).1]);
    }
}

#[test]
fn doorbells_follow_the_bar() {
    let rig = Rig::new(|_| {});
    rig.start();
    rig.place(0x9_0000_0000);
    assert_eq!(rig.vm.ioeventfds(), any(0x9_0000_0000));
    rig.config_write(4, &[1, 0]);
    assert_eq!(rig.vm.ioeventfds(), [], "memory decode off");
    rig.place(BAR);
    assert_eq!(rig.vm.ioeventfds(), []);
    rig.config_write(4, &[7, 0]);
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
    // As a guest sizes a live BAR.
    rig.config_write(0x10, &[0xff; 4]);
    assert_eq!(rig.vm.ioeventfds(), []);
    rig.place(BAR);
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
}

#[test]
fn a_bar_that_comes_back_makes_live_queues_look_because_kicks_in_between_went_nowhere() {
    let rig = Rig::new(|_| {});
    let kicked = |n: usize| rig.device.kicks[n].event().read().is_ok();
    rig.place(BAR + 0x10_0000);
    assert!(!kicked(0), "no driver");
    assert!(rig.negotiate(VERSION_1));
    rig.enable_queue(0);
    rig.set_status(15);
    assert!(!kicked(0));
    rig.config_write(4, &[1, 0]);
    assert!(!kicked(0));
    rig.config_write(4, &[7, 0]);
    assert!(kicked(0) && !kicked(1), "queue 1 is not live");
}

#[test]
fn a_bar_that_is_mapped_before_or_after_driver_ok_is_the_same() {
    let rig = Rig::new(|_| {});
    rig.config_write(4, &[1, 0]);
    rig.start();
    assert_eq!(rig.vm.ioeventfds(), []);
    rig.config_write(4, &[7, 0]);
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
}

#[test]
fn an_unmap_of_another_window_changes_nothing() {
    let rig = Rig::new(|_| {});
    rig.start();
    rig.device.bar_unmapped(Window { bar: 0, space: Space::Mmio, base: 0x1000, len: 0x8000 });
    rig.device.bar_mapped(Window { bar: 2, space: Space::Pio, base: 0x1000, len: 0x10 });
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
}

#[test]
fn the_path_of_a_live_device_can_be_switched_within_its_address_space() {
    let rig = Rig::new(|_| {});
    rig.start();
    rig.device.set_notify_path(NotifyPath::Mmio).unwrap();
    assert_eq!(rig.vm.ioeventfds()[1].matching, Match::Value(2, 1));
    rig.device.set_notify_path(NotifyPath::Exit).unwrap();
    assert_eq!(rig.vm.ioeventfds(), []);
    rig.device.set_notify_path(NotifyPath::FastMmio).unwrap();
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
    let error = rig.device.set_notify_path(NotifyPath::Pio).unwrap_err().to_string();
    assert!(error.contains("disk0") && error.contains("registers are in memory"), "{error}");
    assert_eq!(rig.vm.ioeventfds(), any(BAR));
}

#[test]
fn two_devices_at_one_address_cost_the_second_its_doorbells_not_its_kicks() {
    let rig = Rig::new(|_| {});
    let taken = Ioeventfd::new(
        rig.vm.clone(),
        any(BAR)[1],
        Arc::new(vmm_sys_util::eventfd::EventFd::new(0).unwrap()),
    );
    rig.start();
    let view = rig.device.view();
    assert!(view.queues[0].doorbell.is_some() && view.queues[1].doorbell.is_none());
    assert!(view.last_error.unwrap().contains("KVM_IOEVENTFD"));
    rig.kick(1);
    rig.kick(1);
    let queue = &rig.device.view().queues[1];
    assert_eq!((queue.kicks_exit, queue.kicks_missed), (2, 0));
    drop(taken);
    rig.place(BAR + 0x10_0000);
    assert_eq!(rig.vm.ioeventfds(), any(BAR + 0x10_0000), "arming is tried again at the next change");
}

#[test]
fn a_kick_by_exit_reaches_the_eventfd_and_one_that_should_not_have_come_is_counted_as_missed() {
    let rig = Rig::new(|_| {});
    let counts = |n: usize| {
        let queue = &rig.device.view().queues[n];
        (queue.kicks_exit, queue.kicks_missed)
    };
    rig.kick(0);
    assert_eq!(rig.device.kicks[0].event().read().unwrap(), 1, "also before the queue is live");
    assert_eq!(counts(0), (1, 0));
    rig.start();
    rig.kick(0);
    assert_eq!(counts(0), (2, 0), "this kick may have left the guest before the doorbell was armed");
    rig.kick(0);
    assert_eq!(counts(0), (3, 1));
    rig.kick(1);
    assert_eq!(counts(1), (1, 1), "this thread has handled a kick since then");
    rig.place(BAR + 0x10_0000);
    rig.kick(1);
    assert_eq!(counts(1), (2, 1), "armed anew");
    rig.device.set_notify_path(NotifyPath::Exit).unwrap();
    rig.kick(1);
    rig.kick(1);
    assert_eq!(counts(1), (4, 1));
}

#[test]
fn stores_that_a_datamatch_does_not_want_are_not_missed() {
    let rig = Rig::new(|config| config.notify = NotifyPath::Mmio);
    rig.start();
    let (bar, at) = rig.notify(1);
    for data in [&[1u8, 0][..], &[0, 0], &[1, 0, 0, 0], &[1]] {
        rig.device.bar_write(bar, at, data);
    }
    let queue = &rig.device.view().queues[1];
    assert_eq!(
        (queue.kicks_exit, queue.kicks_missed),
        (4, 0),
        "the doorbell does not match this value or width"
    );
    rig.device.bar_write(bar, at, &[1, 0]);
    assert_eq!(rig.device.view().queues[1].kicks_missed, 1);
}

#[test]
fn only_the_registers_themselves_kick() {
    let rig = Rig::new(|_| {});
    let (bar, at) = rig.notify(0);
    for offset in [at + 1, at + 2, at + 8, at - 1] {
        rig.device.bar_write(bar, offset, &[0, 0]);
    }
    rig.device.bar_write(2, 0, &[0, 0]);
    assert_eq!(rig.device.view().queues.iter().map(|queue| queue.kicks_exit).sum::<u64>(), 0);
    assert!(rig.device.kicks[0].event().read().is_err());
}
