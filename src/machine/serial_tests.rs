use proptest::prelude::*;

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

/// A guest's access, or bytes from the host.
#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Receive(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![9 => 0..8u64, 1 => any::<u64>()];
    prop_oneof![
        (offset.clone(), 0..9usize).prop_map(|(offset, len)| Step::Read(offset, len)),
        (offset, prop_oneof![9 => prop::collection::vec(any::<u8>(), 1), 1 => prop::collection::vec(any::<u8>(), 0..9)])
            .prop_map(|(offset, bytes)| Step::Write(offset, bytes)),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Step::Receive),
    ]
}

proptest! {
    /// Whatever a guest does to the registers: no panic, no more input than the FIFO holds, no more output than was written.
    #[test]
    fn any_accesses_are_bounded(steps in prop::collection::vec(step(), 1..200)) {
        const FIFO: usize = 64;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let (console, exit) = (Console::File(path.clone()), ExitLatch::new().unwrap());
        let port = SerialPort::new(FakeVm::new(), &console, false, exit).unwrap();
        let mut written = Vec::new();
        for step in steps {
            match step {
                Step::Read(offset, len) => {
                    let mut data = vec![0; len];
                    port.read(offset, &mut data);
                    prop_assert!(len == 1 || data.iter().all(|&byte| byte == 0xff));
                }
                Step::Write(offset, bytes) => {
                    port.write(offset, &bytes);
                    if let (DATA, [byte]) = (offset, &bytes[..]) {
                        written.push(*byte);
                    }
                }
                Step::Receive(bytes) => prop_assert!(port.receive(&bytes) <= bytes.len().min(FIFO)),
            }
        }
        let output = std::fs::read(path).unwrap();
        let mut left = written.iter();
        prop_assert!(output.iter().all(|byte| left.any(|of| of == byte)), "{output:?} is no part of {written:?}");
    }
}
