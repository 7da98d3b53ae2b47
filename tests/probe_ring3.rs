//! The probe guest on bare KVM, without doorbell's machine: started straight at ring 3 as its README tells hosts to,
//! driven by jobs in memory, answered by nothing but eventfds. Skipped with one line where /dev/kvm is not usable.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use doorbell::bench::PROBE_ELF;
use doorbell::bench::probe_abi::*;
use kvm_bindings::*;
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

const DOORBELL: u64 = 0xc000_0000;
const STOP_PORT: u16 = 0xf4;
const GSI: u32 = 24;

struct Machine {
    vm: VmFd,
    memory: GuestMemoryMmap,
    threads: Vec<thread::JoinHandle<()>>,
    seq: [u32; MAX_CPUS],
}

/// Loads the segments; memory beyond the file's bytes is zero already.
fn load(memory: &GuestMemoryMmap) {
    let u64_at = |at: usize| u64::from_le_bytes(PROBE_ELF[at..at + 8].try_into().unwrap());
    let u16_at = |at: usize| u16::from_le_bytes(PROBE_ELF[at..at + 2].try_into().unwrap()) as usize;
    for at in (0..u16_at(56)).map(|i| u64_at(32) as usize + i * u16_at(54)) {
        if PROBE_ELF[at..at + 4] == [1, 0, 0, 0] {
            let bytes = &PROBE_ELF[u64_at(at + 8) as usize..][..u64_at(at + 32) as usize];
            memory.write_slice(bytes, GuestAddress(u64_at(at + 24))).unwrap();
        }
    }
}

/// The recipe of guest-images/probe/README.md.
fn start_at_ring_3(vcpu: &VcpuFd, cpu: u64) {
    let mut sregs = vcpu.get_sregs().unwrap();
    let segment = |selector, type_, l| kvm_segment {
        limit: !0,
        selector,
        type_,
        present: 1,
        dpl: 3,
        s: 1,
        g: 1,
        l,
        db: 1 - l,
        ..Default::default()
    };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8005_0033, PAGE_TABLES, 0x620, 0xd00);
    sregs.gdt = kvm_dtable { base: GDT, limit: GDT_LIMIT, ..Default::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 0xfff, ..Default::default() };
    let data = segment(0x2b, 3, 0);
    sregs.cs = segment(0x33, 11, 1);
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS + TSS_STRIDE * cpu,
        limit: 0x67,
        selector: 0x40 + 16 * cpu as u16,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&kvm_regs { rip: RING3_ENTRY, rflags: 0x202, rdi: cpu, ..Default::default() }).unwrap();
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).unwrap();
}

fn run(mut vcpu: VcpuFd) {
    loop {
        match vcpu.run() {
            // Nothing on the bus: reads float.
            Ok(VcpuExit::IoIn(_, data)) => data.fill(0xff),
            Ok(VcpuExit::IoOut(STOP_PORT, _)) => return,
            Ok(VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..)) => {}
            Ok(other) => panic!("unexpected exit {other:?}"),
            Err(e) if [libc::EINTR, libc::EAGAIN].contains(&e.errno()) => {}
            Err(e) => panic!("KVM_RUN: {e}"),
        }
    }
}

impl Machine {
    /// None: no usable /dev/kvm here.
    fn start(cpus: u64, idle: u32) -> Option<Self> {
        let kvm = match Kvm::new() {
            Ok(kvm) => kvm,
            Err(e) => {
                eprintln!("skipped: /dev/kvm: {e}");
                return None;
            }
        };
        let vm = kvm.create_vm().unwrap();
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_SIZE as usize)]).unwrap();
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: RAM_SIZE,
            userspace_addr: memory.get_host_address(GuestAddress(0)).unwrap() as u64,
        };
        // SAFETY: the mapping is as large as the region says, and `memory` lives as long as the VM.
        unsafe { vm.set_user_memory_region(region).unwrap() };
        load(&memory);
        let control =
            Control { magic: MAGIC, version: VERSION, mode: mode::HOST, idle, ..Default::default() };
        memory.write_slice(&control.to_bytes(), GuestAddress(CONTROL)).unwrap();
        let mut machine = Self { vm, memory, threads: vec![], seq: [0; MAX_CPUS] };
        for cpu in 0..cpus {
            let vcpu = machine.vm.create_vcpu(cpu).unwrap();
            let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
            for entry in cpuid.as_mut_slice().iter_mut().filter(|e| e.function == 1) {
                entry.ebx = entry.ebx & 0xff_ffff | (cpu as u32) << 24;
            }
            vcpu.set_cpuid2(&cpuid).unwrap();
            start_at_ring_3(&vcpu, cpu);
            machine.threads.push(thread::spawn(move || run(vcpu)));
        }
        machine.until("the guest to be ready", |m| {
            let control = m.control();
            control.state == state::READY && control.cpus_up == (1 << cpus) - 1
        });
        Some(machine)
    }

    fn bytes<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn control(&self) -> Control {
        Control::from_bytes(&self.bytes(CONTROL))
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let from = Instant::now();
        while !done(self) {
            assert_eq!(Trap::from_bytes(&self.bytes(TRAP)), Trap::default(), "the guest trapped");
            assert!(from.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
            thread::yield_now();
        }
    }

    /// Hands a job over without waiting for its end.
    fn give(&mut self, cpu: usize, job: GuestJob) {
        let at = GuestAddress(CPU_AREA + cpu as u64 * CPU_STRIDE);
        let old = self.seq[cpu];
        self.seq[cpu] += 1;
        self.memory.write_slice(&GuestJob { seq: old, ..job }.to_bytes(), at).unwrap();
        self.memory.store(self.seq[cpu], at, Ordering::Release).unwrap();
        let address_lo = 0xfee0_0000 | (cpu as u32) << 12;
        self.vm.signal_msi(kvm_msi { address_lo, data: vector::WAKE, ..Default::default() }).unwrap();
    }

    fn run_job(&mut self, cpu: usize, job: GuestJob) -> Outcome {
        self.give(cpu, job);
        let at = CPU_AREA + cpu as u64 * CPU_STRIDE + OUTCOME_OFFSET;
        self.until("a job", |m| {
            m.memory.load::<u32>(GuestAddress(at), Ordering::Acquire).unwrap() == m.seq[cpu]
        });
        Outcome::from_bytes(&self.bytes(at))
    }

    fn samples(&self, cpu: usize, count: u32) -> Vec<Sample> {
        let at = |i: u64| SAMPLES + cpu as u64 * SAMPLE_STRIDE + i * Sample::SIZE as u64;
        (0..count as u64).map(|i| Sample::from_bytes(&self.bytes(at(i)))).collect()
    }

    /// Ends the vCPU threads by a store to the port that they take for that.
    fn stop(mut self) {
        for cpu in 0..self.threads.len() {
            let address = STOP_PORT as u64;
            self.give(cpu, GuestJob { kind: kind::POKE, op: poke::OUT, address, ..Default::default() });
        }
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn two_cpus_started_at_ring_3_take_jobs() {
    for idle in [idle::SPIN, idle::HALT, idle::TIMER] {
        let Some(mut machine) = Machine::start(2, idle) else { return };
        assert_eq!(machine.control().devices, 0);
        for round in 0..50 {
            for cpu in [0, 1] {
                let empty = GuestJob { kind: kind::EMPTY, requests: 10, ..Default::default() };
                let out = machine.run_job(cpu, empty);
                assert_eq!((out.status, out.completed, out.samples), (status::OK, 10, 10), "round {round}");
                assert!(out.tsc_begin <= machine.samples(cpu, 1)[0].start && out.tsc_begin < out.tsc_end);
            }
        }
        assert_eq!(machine.run_job(1, GuestJob { kind: 77, ..Default::default() }).status, status::BAD_JOB);
        let io = GuestJob { kind: kind::IO, requests: 1, depth: 1, ..Default::default() };
        assert_eq!(machine.run_job(0, io).status, status::NO_DEVICE);
        machine.stop();
    }
}

#[test]
fn the_floor_counts_one_interrupt_per_store() {
    let Some(mut machine) = Machine::start(1, idle::HALT) else { return };
    let (kick, interrupt) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    machine.vm.register_ioevent(&kick, &IoEventAddress::Mmio(DOORBELL), NoDatamatch).unwrap();
    machine.vm.register_irqfd(&interrupt, GSI).unwrap();
    let answers = thread::spawn({
        let kick = kick.try_clone().unwrap();
        move || {
            // A kick worth more than one is the word to stop.
            while kick.read().unwrap() == 1 {
                interrupt.write(1).unwrap();
            }
        }
    });
    let plain = vector::PLAIN;
    for (wait, vector) in [(wait::SPIN, plain), (wait::SPIN, vector::STAMPED), (wait::HALT, plain + 1)] {
        let mut routing = KvmIrqRouting::new(1).unwrap();
        let mut route = kvm_irq_routing_entry { gsi: GSI, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        route.u.msi = kvm_irq_routing_msi { address_lo: 0xfee0_0000, data: vector, ..Default::default() };
        routing.as_mut_slice()[0] = route;
        machine.vm.set_gsi_routing(&routing).unwrap();
        let floor = GuestJob {
            kind: kind::FLOOR,
            wait,
            vector,
            requests: 2000,
            address: DOORBELL,
            ..Default::default()
        };
        let out = machine.run_job(0, floor);
        assert_eq!((out.status, out.completed), (status::OK, 2000), "{out:?}");
        assert_eq!((out.kicks, out.interrupts, out.samples), (2000, 2000, 2000));
        for sample in machine.samples(0, 2000) {
            assert!(sample.seen > 0 && sample.handler <= sample.seen && sample.done >= sample.seen);
            assert_eq!(sample.handler != 0, vector == vector::STAMPED);
        }
    }
    kick.write(2).unwrap();
    answers.join().unwrap();
    machine.stop();
}

#[test]
fn a_floor_without_an_answer_times_out_and_the_guest_lives_on() {
    let Some(mut machine) = Machine::start(1, idle::HALT) else { return };
    let lost = GuestJob {
        kind: kind::FLOOR,
        wait: wait::POLL,
        vector: vector::PLAIN,
        requests: 5,
        address: DOORBELL,
        deadline: 1_000_000,
        ..Default::default()
    };
    let out = machine.run_job(0, lost);
    assert_eq!((out.status, out.completed, out.detail), (status::TIMEOUT, 0, 5));
    assert_eq!(machine.run_job(0, GuestJob { kind: kind::NOP, ..Default::default() }).status, status::OK);
    machine.stop();
}
