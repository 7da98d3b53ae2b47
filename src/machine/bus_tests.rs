use std::sync::Mutex;

use super::*;

/// A device that reads as its byte and records the stores.
struct Echo(u8, Mutex<Vec<(u64, Vec<u8>)>>);

impl BusDevice for Echo {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(self.0 + offset as u8);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.1.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn echo(byte: u8) -> Arc<Echo> {
    Arc::new(Echo(byte, Mutex::default()))
}

fn read(view: &mut BusView, address: u64) -> u8 {
    let mut byte = [0];
    view.read(address, &mut byte);
    byte[0]
}

#[test]
fn each_address_reaches_its_device_with_the_offset_within_it() {
    let bus = Bus::new();
    bus.insert(0x1000, 0x10, echo(0x10)).unwrap();
    bus.insert(0x1010, 0x10, echo(0x40)).unwrap();
    let mut view = bus.view();
    assert_eq!(read(&mut view, 0x1000), 0x10);
    assert_eq!(read(&mut view, 0x100f), 0x1f);
    assert_eq!(read(&mut view, 0x1010), 0x40);
}

#[test]
fn unclaimed_addresses_read_as_ones_and_ignore_stores() {
    let bus = Bus::new();
    bus.insert(0x1000, 0x10, echo(0)).unwrap();
    let mut view = bus.view();
    assert_eq!(read(&mut view, 0xfff), 0xff);
    assert_eq!(read(&mut view, 0x1010), 0xff);
    view.write(0, &[1, 2, 3]);
    view.write(u64::MAX, &[1]);
}

#[test]
fn a_taken_range_is_refused_and_the_first_device_stays() {
    let bus = Bus::new();
    bus.insert(0x1000, 0x10, echo(0x10)).unwrap();
    for (base, len) in [(0x1000, 1), (0xff1, 0x10), (0x100f, 1), (0, 0x10_0000), (0x1000, 0), (u64::MAX, 2)] {
        assert_eq!(bus.insert(base, len, echo(0)), Err(Overlap { base, len }));
    }
    assert_eq!(read(&mut bus.view(), 0x1000), 0x10);
}

#[test]
fn an_older_view_sees_a_move_at_once() {
    let bus = Bus::new();
    let device = echo(0x10);
    bus.insert(0x1000, 0x10, device.clone()).unwrap();
    let mut view = bus.view();
    view.write(0x1004, &[7, 8]);
    bus.remove(0x1000);
    assert_eq!(read(&mut view, 0x1000), 0xff);
    bus.insert(0x2000, 0x10, device.clone()).unwrap();
    assert_eq!(read(&mut view, 0x2001), 0x11);
    assert_eq!(*device.1.lock().unwrap(), [(4, vec![7, 8])]);
}

#[test]
fn a_range_may_end_with_the_bus() {
    let bus = Bus::new();
    bus.insert(u64::MAX - 1, 2, echo(1)).unwrap();
    assert_eq!(read(&mut bus.view(), u64::MAX), 2);
}
