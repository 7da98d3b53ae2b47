use super::*;
use crate::kvm::testing::{Delivery, FakeVm};

fn level(path: LevelPath) -> (Arc<FakeVm>, Level) {
    let vm = FakeVm::new();
    let line = Arc::new(Line::new(vm.clone(), 17));
    let level = Level::new(line, path).unwrap();
    (vm, level)
}

#[test]
fn a_line_follows_cause_and_enable() {
    let (vm, level) = level(LevelPath::IrqLine);
    assert!(!level.set_cause(true).notified, "off: the guest is not told");
    assert_eq!(vm.take_deliveries(), []);
    level.enable(true).unwrap();
    assert_eq!(level.set_cause(true), LevelOutcome { notified: true, calls: 0 }, "it is up already");
    assert_eq!(vm.take_deliveries(), [Delivery::Line(17, true)], "up once, though the cause came twice");
    level.enable(false).unwrap();
    level.enable(true).unwrap();
    assert_eq!(vm.take_deliveries(), [Delivery::Line(17, false), Delivery::Line(17, true)]);
    level.set_cause(false);
    assert_eq!(vm.take_deliveries(), [Delivery::Line(17, false)]);
}

#[test]
fn a_shared_line_stays_up_until_the_last_device_lets_go() {
    let vm = FakeVm::new();
    let line = Arc::new(Line::new(vm.clone(), 17));
    let [a, b] = [0, 1].map(|_| Level::new(line.clone(), LevelPath::IrqLine).unwrap());
    for level in [&a, &b] {
        level.enable(true).unwrap();
        level.set_cause(true);
    }
    a.set_cause(false);
    assert_eq!(vm.take_deliveries(), [Delivery::Line(17, true)]);
    drop(b);
    assert_eq!(vm.take_deliveries(), [Delivery::Line(17, false)], "a device that goes away lets go");
}

#[test]
fn resample_raises_again_at_eoi_only_while_there_is_cause() {
    let (vm, level) = level(LevelPath::Resample);
    level.set_cause(true);
    level.enable(true).unwrap();
    assert_eq!(vm.irqfds(), [17]);
    assert_eq!(vm.take_deliveries(), [Delivery::Lost(17)], "the fake knows no level routes: one write seen");
    level.resample_event().write(1).unwrap();
    level.resampled();
    assert_eq!(vm.take_deliveries().len(), 1, "still cause: raised again");
    level.set_cause(false);
    level.resample_event().write(1).unwrap();
    level.resampled();
    assert_eq!(vm.take_deliveries(), []);
    assert!(level.resample_event().read().is_err(), "the resample event is drained");
    level.enable(false).unwrap();
    assert!(vm.irqfds().is_empty());
}

#[test]
fn an_eventfd_that_kvm_never_had_is_not_read() {
    let (_vm, level) = level(LevelPath::IrqLine);
    level.event.write(5).unwrap();
    level.enable(true).unwrap();
    for cause in [true, true, false, true] {
        level.set_cause(cause);
    }
    assert_eq!(level.event.read().unwrap(), 5, "each read would be a system call for nothing");
}

#[test]
fn a_cause_that_comes_again_before_eoi_is_no_second_write() {
    let (vm, level) = level(LevelPath::Resample);
    level.enable(true).unwrap();
    let calls = [true, true, false, true].map(|cause| level.set_cause(cause).calls);
    assert_eq!(calls, [1, 0, 0, 1], "the pin is up, or raised again at EOI");
    vm.take_deliveries();
    level.resample_event().write(1).unwrap();
    assert_eq!(level.set_cause(true), LevelOutcome { notified: true, calls: 0 });
    level.resampled();
    assert_eq!(vm.take_deliveries().len(), 1, "raised at EOI, for all of its causes");
}
