use std::os::fd::OwnedFd;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::backend::BackendKind::Null;
use crate::backend::{Backend, DiskOptions, Outcome, Request, Submitter};
use crate::dataplane::testing::Driver;
use crate::machine::bus::BusDevice;
use crate::machine::{Kernel, open_kvm};
use IoThreadChoice::{Auto, Index, None as Main};

#[path = "../../tests/common/mod.rs"]
mod common;

#[test]
fn only_loops_that_serve_an_io_uring_disk_get_one() {
    let both = thread_plan(&[(Index(0), true), (Index(1), false), (Main, false)], 3).unwrap();
    assert_eq!(both.threads, [Some(true), Some(false), None]);
    assert!(!both.main_uring);
    let spread = thread_plan(&[(Auto, false), (Index(1), true), (Main, true)], 2).unwrap();
    assert_eq!(spread.threads, [Some(false), Some(true)]);
    assert!(spread.main_uring);
}

#[test]
fn a_thread_that_is_not_there_is_an_error() {
    let error = thread_plan(&[(Auto, false), (Index(2), false)], 2).err().unwrap().to_string();
    assert!(error.contains("disk1") && error.contains("0 to 1"), "{error}");
    assert!(thread_plan(&[(Auto, false)], 0).is_err());
}

const PORT: u16 = 0x80;

/// A VM with one disk on one I/O thread, whose guest writes to [`PORT`] and then does nothing for ever.
fn vm() -> Option<Vm> {
    if let Err(error) = open_kvm() {
        log::say(format_args!("skipped: {error}"));
        return None;
    }
    let guest = [common::out(PORT, 1), vec![0xeb, 0xfe]].concat();
    let options = DiskOptions {
        path: None,
        readonly: false,
        kind: Null,
        size: Some(1 << 20),
        direct: false,
        block_size: None,
        delay_us: 0,
    };
    let config = VmConfig {
        machine: MachineConfig::new(Kernel::Image(common::elf(&guest).into())),
        disks: vec![DiskConfig::new(options)],
        threads: vec![ThreadConfig::default()],
        sandbox: SandboxConfig::off(),
    };
    Some(Vm::new(config).unwrap())
}

struct Panics;

impl Backend for Panics {
    fn start(&mut self, _: u64, _: Request, _: &mut dyn Submitter) -> Outcome {
        panic!("this panic belongs to a test")
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        unreachable!()
    }
}

impl BusDevice for Panics {
    fn read(&self, _: u64, _: &mut [u8]) {}

    fn write(&self, _: u64, _: &[u8]) {
        panic!("this panic belongs to a test")
    }
}

fn dies(mut vm: Vm, thread: &str) {
    match vm.run().unwrap() {
        ExitReason::Failed(why) => assert!(why.contains(thread) && why.contains("a bug"), "{why}"),
        other => panic!("{thread} is dead and the run ended with {other:?}"),
    }
}

#[test]
fn the_death_of_an_io_thread_ends_the_run() {
    let Some(vm) = vm() else { return };
    let driver = Driver::new(CompletePath::Auto);
    driver.offer(0, 0, 0);
    // The thread dies with the queue in its hands, or just after it took it.
    let _ = vm.io_loops()[0].attach(driver.setup(Panics));
    dies(vm, "iothread0");
}

#[test]
fn the_death_of_the_main_loop_ends_the_run() {
    let Some(mut vm) = vm() else { return };
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    event.write(1).unwrap();
    // SAFETY: borrowed for the duplication only.
    let fd: OwnedFd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }.try_clone_to_owned().unwrap();
    let source = Box::new(|| panic!("this panic belongs to a test"));
    vm.main_loop().unwrap().add_source(fd, source).unwrap();
    dies(vm, "main");
}

#[test]
fn the_death_of_a_vcpu_thread_ends_the_run() {
    let Some(vm) = vm() else { return };
    vm.machine().pio().insert(PORT.into(), 1, Arc::new(Panics)).unwrap();
    dies(vm, "vcpu0");
}
