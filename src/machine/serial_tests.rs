use super::*;
use crate::kvm::testing::{Delivery, FakeVm};

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_STATUS: u64 = 5;

fn port() -> (Arc<FakeVm>, Arc<SerialPort>) {
    let vm = FakeVm::new();
    let port = SerialPort::new(vm.clone(), &Console::Off, false, ExitLatch::new().unwrap()).unwrap();
    (vm, port)
}

fn byte(port: &SerialPort, offset: u64) -> u8 {
    let mut data = [0];
    port.read(offset, &mut data);
    data[0]
}

#[test]
fn input_rings_once_on_the_serial_line() {
    let (vm, port) = port();
    port.write(INTERRUPT_ENABLE, &[1]);
    assert_eq!(port.receive(b"hi"), 2);
    assert_eq!(vm.take_deliveries(), [Delivery::Line(SERIAL_GSI, true), Delivery::Line(SERIAL_GSI, false)]);
    assert_eq!(byte(&port, LINE_STATUS) & 1, 1);
    assert_eq!([byte(&port, DATA), byte(&port, DATA)], *b"hi");
    assert_eq!(byte(&port, LINE_STATUS) & 1, 0);
}

#[test]
fn a_full_fifo_takes_no_more_and_tells_when_it_is_empty() {
    let (_vm, port) = port();
    let input: Vec<u8> = (0..200).collect();
    let taken = port.receive(&input);
    assert!(taken < 200);
    assert_eq!(port.receive(&input[taken..]), 0);
    assert!(port.room().read().is_err(), "not empty yet");
    let read: Vec<u8> = (0..taken).map(|_| byte(&port, DATA)).collect();
    assert_eq!(read, input[..taken]);
    assert!(port.room().read().is_ok());
    assert!(port.receive(&input[taken..]) > 0);
}

#[test]
fn wide_accesses_do_nothing() {
    let (_vm, port) = port();
    let mut wide = [0; 4];
    port.read(DATA, &mut wide);
    assert_eq!(wide, [0xff; 4]);
    port.write(DATA, &wide);
}

#[test]
fn output_to_a_file_is_the_guests_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    let port = SerialPort::new(FakeVm::new(), &Console::File(path.clone()), false, ExitLatch::new().unwrap())
        .unwrap();
    b"hello".iter().for_each(|&b| port.write(DATA, &[b]));
    assert_eq!(std::fs::read(path).unwrap(), b"hello");
}
