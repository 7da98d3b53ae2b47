use proptest::prelude::*;

use super::super::NotifyPath;
use super::super::testing::{BAR, CONFIG_WCE, FLUSH, Found, INTX, PORT, Rig, VERSION_1};
use crate::dataplane::CompletePath;
use crate::kvm::MsiMessage;
use crate::kvm::testing::Delivery;
use crate::pci::{PciDevice, Space};

#[test]
fn a_driver_finds_all_five_structures_and_msix_inside_the_bar_apart_from_each_other() {
    let rig = Rig::new(|_| {});
    assert_eq!(rig.config_u32(0), 0x1042_1af4);
    assert_eq!(rig.config_u32(8), 0x0100_0001);
    let found = rig.structures();
    let kinds: Vec<_> = found.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5]);
    let ids: Vec<_> = rig.capabilities().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [9, 9, 9, 9, 9, 0x11]);
    let bar = rig.window(Space::Mmio).unwrap();
    assert_eq!((bar.bar, bar.base, rig.window(Space::Pio)), (0, BAR, None));
    let mut ranges: Vec<_> =
        found[..4].iter().inspect(|f| assert_eq!(f.bar, 0)).map(|f| (f.offset, f.len)).collect();
    let (_, msix) = rig.capabilities()[5];
    assert_eq!(rig.config_u32(msix.into()) >> 16 & 0x7ff, 2, "two queues and the configuration");
    ranges.push((rig.config_u32(u16::from(msix) + 4).into(), 48));
    ranges.push((rig.config_u32(u16::from(msix) + 8).into(), 8));
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    let (start, len) = ranges[5];
    assert!(start + len <= bar.len);
    assert_eq!(rig.notify(1).1 - rig.notify(0).1, 4, "each queue has another address");
}

#[test]
fn notify_pio_puts_the_only_doorbells_into_an_io_bar() {
    let rig = Rig::new(|config| config.notify = NotifyPath::Pio);
    let doorbells: Vec<Found> = rig.structures().into_iter().filter(|found| found.kind == 2).collect();
    assert_eq!(doorbells.len(), 1);
    assert_eq!((doorbells[0].bar, doorbells[0].offset, doorbells[0].len), (2, 0, 8));
    let ports = rig.window(Space::Pio).unwrap();
    assert_eq!((ports.bar, ports.base), (2, PORT));
    rig.kick(1);
    assert_eq!(rig.device.view().queues[1].kicks_exit, 1);
}

#[test]
fn the_pci_cfg_window_reaches_every_register_of_the_bar() {
    let rig = Rig::new(|_| {});
    let window = rig.structure(5).at;
    let point = |offset: u64, len: u32| {
        rig.config_write(window + 4, &[0]);
        rig.config_write(window + 8, &(offset as u32).to_le_bytes());
        rig.config_write(window + 12, &len.to_le_bytes());
    };
    let common = rig.structure(1).offset;
    point(common + 0x12, 2);
    assert_eq!(rig.config_u32(window + 16), 2, "num_queues");
    point(common + 0x14, 1);
    rig.config_write(window + 16, &[3, 0xff, 0xff, 0xff]);
    assert_eq!(rig.status(), 3, "one byte was written");
    assert_eq!(rig.get(1, 0x16, 2), 0, "the next register was not");
    point(rig.structure(4).offset, 4);
    assert_eq!(rig.config_u32(window + 16), 2048, "the disk's capacity");
    let (bar, notify) = rig.notify(1);
    assert_eq!(bar, 0);
    point(notify, 2);
    rig.config_write(window + 16, &[1, 0]);
    let queue = &rig.device.view().queues[1];
    assert_eq!((queue.kicks_exit, queue.kicks_missed), (1, 0));
}

#[test]
fn the_pci_cfg_window_ignores_lengths_and_bars_that_are_not_allowed() {
    let rig = Rig::new(|_| {});
    let window = rig.structure(5).at;
    let status = rig.structure(1).offset as u32 + 0x14;
    for (bar, offset, len) in [
        (0u8, status, 3u32),
        (0, status, 0),
        (0, status, 8),
        (0, status + 1, 2),
        (1, status, 1),
        (9, 0, 4),
        (0, !3, 4),
    ] {
        rig.config_write(window + 4, &[bar]);
        rig.config_write(window + 8, &offset.to_le_bytes());
        rig.config_write(window + 12, &len.to_le_bytes());
        rig.config_write(window + 16, &[3, 3, 3, 3]);
        let _ = rig.config_u32(window + 16);
        assert_eq!(rig.status(), 0, "bar {bar} offset {offset:#x} length {len}");
    }
}

#[test]
fn without_msix_the_isr_and_the_interrupt_pin_tell_and_reading_the_isr_ends_both() {
    let rig = Rig::new(|_| {});
    rig.start();
    assert_eq!(rig.config_u32(0x3c) >> 8, 1, "INTA");
    let pending = || rig.config_u32(4) >> 19 & 1;
    rig.device.interrupts()[0].deliver();
    rig.device.interrupts()[2].deliver();
    assert_eq!((rig.vm.take_deliveries(), pending()), (vec![Delivery::Line(INTX, true)], 1));
    assert_eq!(rig.get(3, 1, 4), 0, "nothing is beside the ISR, and a read there does not clear it");
    assert_eq!(rig.get(3, 0, 1), 3, "a queue is bit 0 and the configuration bit 1");
    assert_eq!((rig.vm.take_deliveries(), pending()), (vec![Delivery::Line(INTX, false)], 0));
    assert_eq!(rig.get(3, 0, 1), 0);
    rig.device.interrupts()[0].deliver();
    rig.set_status(0);
    assert_eq!(rig.vm.take_deliveries(), [Delivery::Line(INTX, true), Delivery::Line(INTX, false)]);
    assert_eq!(rig.get(3, 0, 4), 0, "a reset clears the ISR");
}

#[test]
fn intx_disable_keeps_the_line_down_but_not_the_status() {
    let rig = Rig::new(|_| {});
    rig.start();
    rig.config_write(4, &[7, 4]);
    rig.device.interrupts()[0].deliver();
    assert_eq!((rig.vm.take_deliveries().len(), rig.config_u32(4) >> 19 & 1), (0, 1));
    rig.config_write(4, &[7, 0]);
    assert_eq!(rig.vm.take_deliveries(), [Delivery::Line(INTX, true)]);
}

#[test]
fn a_level_path_hides_msix() {
    for complete in [CompletePath::IrqLine, CompletePath::Resample] {
        let rig = Rig::new(|config| config.complete = complete);
        assert!(rig.capabilities().iter().all(|&(id, _)| id == 9));
        assert_eq!(rig.structures().len(), 5);
        rig.start();
        rig.set_status(0);
        assert!(rig.vm.ioeventfds().is_empty());
    }
}

#[test]
fn interrupts_go_out_with_the_tables_message_and_wait_while_masked() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    assert_eq!(rig.vm.irqfds().len(), 3);
    assert_eq!(rig.vm.routing_calls(), 1, "enabling MSI-X is one commit");
    let interrupt = |n: usize| rig.device.interrupts()[n].deliver();
    interrupt(1);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    assert_eq!(rig.vm.take_deliveries(), [Delivery::SignalMsi(message)], "auto, and this is no I/O thread");
    assert_eq!(rig.get(3, 0, 1), 0, "an MSI-X interrupt does not set the ISR");
    // Mask vector 1 by its control word; find the table as the driver does.
    let (_, msix) = rig.capabilities()[5];
    let table = u64::from(rig.config_u32(u16::from(msix) + 4));
    let pba = u64::from(rig.config_u32(u16::from(msix) + 8));
    rig.device.bar_write(0, table + 28, &[1, 0, 0, 0]);
    interrupt(1);
    let mut pending = [0; 8];
    rig.device.bar_read(0, pba, &mut pending);
    assert_eq!(pending, [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.vm.take_deliveries(), []);
    rig.device.bar_write(0, table + 28, &[0, 0, 0, 0]);
    assert_eq!(rig.vm.take_deliveries(), [Delivery::Irqfd(message)]);
    rig.device.bar_read(0, pba, &mut pending);
    assert_eq!(pending, [0; 8]);
}

#[test]
fn queues_are_woken_when_their_vectors_get_no_irqfd() {
    let rig = Rig::new(|_| {});
    rig.vm.refuse_irqfds();
    let kicked = |n: usize| crate::kvm::readable(rig.device.kicks[n].event());
    assert!(!kicked(0));
    rig.start_msix();
    // An interrupt that an I/O thread has left to its next wait would reach an eventfd without an irqfd.
    assert!(kicked(0) && kicked(1));
    rig.start();
    rig.device.interrupts()[1].deliver();
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    assert_eq!(rig.vm.take_deliveries(), [Delivery::SignalMsi(message)]);
}

#[test]
fn turning_msix_off_makes_interrupts_show_in_the_isr_again() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    let (_, msix) = rig.capabilities()[5];
    rig.config_write(u16::from(msix) + 2, &[0, 0]);
    assert!(rig.vm.irqfds().is_empty());
    rig.device.interrupts()[0].deliver();
    assert_eq!((rig.vm.take_deliveries(), rig.get(3, 0, 1)), (vec![Delivery::Line(INTX, true)], 1));
}

#[test]
fn the_msix_table_survives_a_reset_of_the_virtio_device() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.start();
    rig.set_status(0);
    assert_eq!(rig.vm.irqfds().len(), 3);
    rig.start();
    rig.device.interrupts()[0].deliver();
    let message = MsiMessage { address: 0xfee0_0000, data: 0x40 };
    assert_eq!(rig.vm.take_deliveries(), [Delivery::SignalMsi(message)]);
}

#[test]
fn the_writeback_byte_is_the_drivers_once_negotiated_and_moves_the_generation() {
    let rig = Rig::new(|_| {});
    assert!(rig.negotiate(VERSION_1));
    assert!(!rig.device.writeback(), "no flush was negotiated: writes must be durable");
    rig.put(4, 32, 1, 1);
    assert!(!rig.device.writeback(), "CONFIG_WCE was not negotiated");
    rig.set_status(0);
    assert!(rig.negotiate(VERSION_1 | CONFIG_WCE));
    assert_eq!(rig.get(4, 32, 1), 0, "no FLUSH yet");
    rig.set_status(0);
    assert!(rig.negotiate(VERSION_1 | FLUSH | CONFIG_WCE));
    assert_eq!(rig.get(4, 32, 1), 1);
    let generation = rig.get(1, 0x15, 1);
    rig.put(4, 32, 0, 1);
    assert_eq!((rig.device.writeback(), rig.get(4, 32, 1)), (false, 0));
    assert_ne!(rig.get(1, 0x15, 1), generation);
    rig.set_status(0);
    assert_eq!(rig.get(4, 32, 1), 1);
}

#[derive(Clone, Debug)]
enum Access {
    ConfigRead(u16, usize),
    ConfigWrite(u16, Vec<u8>),
    Read(u8, u64, usize),
    Write(u8, u64, Vec<u8>),
}

fn access() -> impl Strategy<Value = Access> {
    let data = || prop::collection::vec(prop_oneof![any::<u8>(), 0u8..16], 1..9);
    let width = prop::sample::select(vec![1usize, 2, 4, 8, 3, 7]);
    let bar = prop::sample::select(vec![0u8, 0, 0, 0, 2, 1, 6]);
    // Most accesses go to registers.
    let offset = || {
        let near = (prop::sample::select(vec![0u64, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000]), 0u64..0x48);
        prop_oneof![12 => near.prop_map(|(page, at)| page + at), 1 => 0u64..0x9000, 1 => any::<u64>()]
    };
    prop_oneof![
        1 => (0u16..0x110, 1usize..5).prop_map(|(at, len)| Access::ConfigRead(at, len)),
        1 => (prop_oneof![9 => 0u16..0x110, 1 => any::<u16>()], data()).prop_map(|(at, data)| Access::ConfigWrite(at, data)),
        2 => (bar.clone(), offset(), width).prop_map(|(bar, at, len)| Access::Read(bar, at, len)),
        6 => (bar, offset(), data()).prop_map(|(bar, at, data)| Access::Write(bar, at, data)),
    ]
}

proptest! {
    #[test]
    fn no_access_of_any_width_anywhere_breaks_the_device(
        accesses in prop::collection::vec(access(), 0..150),
        started in any::<bool>(),
        notify in prop::sample::select(vec![NotifyPath::FastMmio, NotifyPath::Mmio, NotifyPath::Pio, NotifyPath::Exit]),
    ) {
        let rig = Rig::new(|config| config.notify = notify);
        if started {
            rig.start_msix();
            rig.start();
        }
        for access in accesses {
            match access {
                Access::ConfigRead(at, len) => rig.device.config_read(at, &mut [0; 8][..len]),
                Access::ConfigWrite(at, data) => rig.config_write(at, &data),
                Access::Read(bar, at, len) => rig.device.bar_read(bar, at, &mut [0; 8][..len]),
                Access::Write(bar, at, data) => rig.device.bar_write(bar, at, &data),
            }
            // Exactly the live queues' doorbells are armed, in the window that is decoded now.
            let view = rig.device.view();
            let armed: Vec<_> = view.queues.iter().filter_map(|queue| queue.doorbell).collect();
            prop_assert_eq!(&armed, &rig.vm.ioeventfds());
            let space = if notify == NotifyPath::Pio { Space::Pio } else { Space::Mmio };
            let expected = notify != NotifyPath::Exit && rig.window(space).is_some();
            for queue in &view.queues {
                prop_assert_eq!(queue.doorbell.is_some(), expected && queue.running);
                prop_assert!(!queue.running || view.status & 4 != 0);
            }
        }
        // After any sequence, a reset makes the device work.
        rig.place(BAR);
        rig.config_write(4, &[7, 0]);
        rig.set_status(0);
        prop_assert_eq!(rig.status(), 0);
        prop_assert_eq!(rig.fake.names(), Vec::<String>::new());
        rig.start();
        prop_assert_eq!(rig.fake.names().len(), 2);
    }
}

#[test]
fn a_new_capacity_is_told_by_the_configuration_interrupt_the_isr_and_the_generation() {
    let rig = Rig::new(|_| {});
    rig.start_msix();
    rig.put(1, 0x10, 2, 2);
    rig.start();
    let generation = rig.get(1, 0x15, 1);
    rig.device.set_capacity(4096);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x42 };
    assert_eq!(rig.vm.take_deliveries(), [Delivery::SignalMsi(message)]);
    assert_eq!(rig.get(3, 0, 1), 2, "bit 1 of the ISR, with MSI-X too (4.1.4.5.1)");
    assert_eq!((rig.get(4, 0, 8), rig.get(1, 0x15, 1)), (4096, generation + 1));
    rig.device.set_capacity(4096);
    assert_eq!((rig.vm.take_deliveries(), rig.get(1, 0x15, 1)), (vec![], generation + 1), "nothing is new");
    rig.set_status(0);
    assert_eq!(rig.get(4, 0, 8), 4096, "a reset keeps it");
}

#[test]
fn a_capacity_that_changes_before_driver_ok_is_told_then_and_only_then() {
    let rig = Rig::new(|_| {});
    rig.device.set_capacity(100);
    assert!(rig.negotiate(VERSION_1));
    rig.enable_queue(0);
    rig.device.set_capacity(200);
    assert_eq!((rig.vm.take_deliveries(), rig.get(3, 0, 1)), (vec![], 0), "no driver is there yet");
    rig.set_status(15);
    assert_eq!(rig.vm.take_deliveries(), [Delivery::Line(INTX, true)]);
    assert_eq!(rig.get(3, 0, 1), 2);
    rig.set_status(0);
    rig.vm.take_deliveries();
    rig.start();
    assert_eq!(rig.get(3, 0, 1), 0, "the driver after a reset reads the capacity anyway");
}
