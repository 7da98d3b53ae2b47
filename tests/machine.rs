//! The machine on a real /dev/kvm with guests of a few instructions: start, output, every way to end, nothing left
//! behind. They run on any KVM, in software too; without one they say so.

mod common;

use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;

use doorbell::dataplane::{EventLoop, LoopConfig};
use doorbell::machine::{Console, ExitReason, Kernel, Machine, MachineConfig, layout};

use common::{elf, out, power_off};

fn config(code: &[u8]) -> MachineConfig {
    MachineConfig { cmdline: "one two=3".into(), ..MachineConfig::new(Kernel::Image(elf(code).into())) }
}

/// The machine, or `None` with a line that says why, where KVM cannot be used.
fn machine(config: MachineConfig) -> Option<Machine> {
    if let Err(error) = doorbell::machine::open_kvm() {
        eprintln!("skipped: {error}");
        return None;
    }
    Some(Machine::new(config).unwrap())
}

fn run(machine: &mut Machine) -> ExitReason {
    let event_loop = EventLoop::new(&LoopConfig { name: "main".into(), ..Default::default() }).unwrap();
    machine.run(event_loop).unwrap()
}

fn ends_with(code: &[u8], expected: ExitReason) {
    if let Some(mut machine) = machine(config(code)) {
        assert_eq!(run(&mut machine), expected);
    }
}

#[test]
fn poweroff_by_the_sleep_register() {
    ends_with(&power_off(), ExitReason::PowerOff);
}

#[test]
fn reset_by_each_of_its_ports() {
    ends_with(&out(layout::RESET_PORT, layout::RESET_VALUE), ExitReason::Reset);
    ends_with(&out(layout::KEYBOARD_PORT, 0xfe), ExitReason::Reset);
}

#[test]
fn a_panic_that_the_guest_tells_of() {
    // in al, dx; test al, 1; a guest that finds the event not offered resets; then the event itself.
    let [low, high] = layout::PVPANIC_PORT.to_le_bytes();
    let mut code = vec![0x66, 0xba, low, high, 0xec, 0xa8, 1, 0x75, 7];
    code.extend(out(layout::RESET_PORT, layout::RESET_VALUE));
    // A kernel that goes on with its crash kernel ends nothing.
    code.extend(out(layout::PVPANIC_PORT, 2));
    code.extend(out(layout::PVPANIC_PORT, 1));
    code.extend([0xeb, 0xfe]);
    ends_with(&code, ExitReason::Panicked);
}

#[test]
fn other_values_in_these_ports_do_nothing() {
    let mut code = Vec::new();
    for value in [0, 1, 2, 0xf0] {
        code.extend(out(layout::RESET_PORT, value & !4));
        code.extend(out(layout::KEYBOARD_PORT, value));
        code.extend(out(layout::SLEEP_CONTROL_PORT, value & !(1 << 5)));
    }
    code.extend(power_off());
    ends_with(&code, ExitReason::PowerOff);
}

#[test]
fn a_triple_fault_is_a_reset() {
    // There is no IDT: the first exception is the last. Linux resets that way when it is told reboot=t.
    ends_with(&[0x0f, 0x0b], ExitReason::Reset);
}

#[test]
fn pvh_hands_the_command_line_over_and_the_serial_port_prints_it() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("console");
    let [low, high] = layout::SERIAL_PORT.to_le_bytes();
    let mut code = vec![
        0x8b, 0x73, 24, // mov esi, [ebx + 24]: cmdline_paddr
        0x66, 0xba, low, high, // mov dx, SERIAL_PORT
        0xac, // again: lodsb
        0x84, 0xc0, // test al, al
        0x74, 3,    // je done
        0xee, // out dx, al
        0xeb, 0xf8, // jmp again
    ];
    code.extend(power_off());
    let Some(mut machine) = machine(MachineConfig { console: Console::File(path.clone()), ..config(&code) })
    else {
        return;
    };
    assert_eq!(run(&mut machine), ExitReason::PowerOff);
    assert_eq!(std::fs::read(path).unwrap(), b"one two=3");
    let outs = machine.exit_counters()[0].io_out.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(outs, 9 + 1, "one exit a byte, and one to power off");
}

#[test]
fn the_host_bridge_answers_by_ports_and_by_memory() {
    let [low, high] = layout::PCI_CONFIG_PORT.to_le_bytes();
    let mut code = vec![0x66, 0xba, low, high, 0xb8];
    code.extend(0x8000_0000u32.to_le_bytes()); // mov eax, bus 0 slot 0 register 0
    code.extend([0xef, 0x66, 0x83, 0xc2, 4, 0xed]); // out dx, eax; add dx, 4; in eax, dx
    code.extend([0x3b, 0x05]);
    code.extend((layout::ECAM_START as u32).to_le_bytes()); // cmp eax, [ECAM]
    code.extend([0x75, 7]); // jne: not the same
    code.extend(power_off());
    code.extend(out(layout::RESET_PORT, layout::RESET_VALUE));
    ends_with(&code, ExitReason::PowerOff);
}

#[test]
fn a_guest_that_never_ends_can_be_stopped() {
    const SPIN: &[u8] = &[0xeb, 0xfe];
    const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
    for (code, cpus) in [(SPIN, 1), (HALT, 1), (SPIN, 4)] {
        let Some(mut machine) = machine(MachineConfig { cpus, ..config(code) }) else { return };
        let latch = machine.exit_latch();
        let stopper = std::thread::spawn(move || {
            // Not a synchronization: the stop is right at any moment, and this one is likely to find KVM_RUN.
            std::thread::sleep(Duration::from_millis(30));
            latch.request(ExitReason::Stopped);
        });
        assert_eq!(run(&mut machine), ExitReason::Stopped);
        stopper.join().unwrap();
    }
}

#[test]
fn a_stop_before_the_start_is_not_lost() {
    let Some(mut machine) = machine(config(&[0xeb, 0xfe])) else { return };
    machine.exit_latch().request(ExitReason::Stopped);
    assert_eq!(run(&mut machine), ExitReason::Stopped);
}

#[test]
fn machines_leave_nothing_behind() {
    let mut ram = Vec::new();
    let ended = || -> Option<Weak<_>> {
        let mut machine = machine(MachineConfig { cpus: 2, ..config(&power_off()) })?;
        assert_eq!(run(&mut machine), ExitReason::PowerOff);
        Some(std::sync::Arc::downgrade(&machine.memory()))
    };
    for _ in 0..8 {
        let Some(weak) = ended() else { return };
        ram.push(weak);
    }
    assert!(ram.iter().all(|ram| ram.upgrade().is_none()), "guest RAM is still mapped");
}
