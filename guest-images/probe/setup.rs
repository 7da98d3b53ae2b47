//! SETUP: takes a device from reset to DRIVER_OK (virtio 1.2, 3.1.1), with the job's features, queues and interrupts.

use crate::abi::*;
use crate::cpu::{load, store};
use crate::device::*;
use crate::global::Global;
use crate::pci::{self, Function};
use crate::queue::Queue;
use crate::{apic, cpu, msix};

/// The job of each device's last SETUP, for jobs that repeat it.
static SETUPS: Global<[GuestJob; MAX_DEVICES]> = Global::new([NO_JOB; MAX_DEVICES]);
// SAFETY: GuestJob consists of integers, so zeros are a valid value.
const NO_JOB: GuestJob = unsafe { core::mem::zeroed() };

/// Sets the device up. `value` of the outcome is the number of queues, `detail` the device status.
pub fn setup(job: &GuestJob) -> Outcome {
    let mut out = Outcome::default();
    let Some(mut info) = info(job.device) else {
        return Outcome { status: status::NO_DEVICE, ..out };
    };
    if info.common == 0 || info.notify == 0 || !reset(job.device) {
        return Outcome { status: status::DEVICE, ..out };
    }
    let common = info.common;
    store(common + 20, ACKNOWLEDGE);
    store(common + 20, ACKNOWLEDGE | DRIVER);
    out.features = choose_features(job, &info);
    for (select, half) in [(0u32, out.features as u32), (1, (out.features >> 32) as u32)] {
        store(common + 8, select);
        store(common + 12, half);
    }
    store(common + 20, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    out.detail = status(&info) as u64;
    if out.detail as u8 & FEATURES_OK == 0 {
        return Outcome { status: status::DEVICE, ..out };
    }
    let offered_queues = if out.features & F_BLK_MQ != 0 { load::<u16>(info.config + 34) } else { 1 };
    info.queues = job.queues.clamp(1, MAX_QUEUES as u32).min(offered_queues.min(load(common + 18)) as u32);
    let function = Function(info.bdf as u16);
    let vector = interrupts(job, &mut info, function);
    for q in 0..info.queues {
        match Queue::create(job, &info, out.features, q as u16, vector) {
            Some(size) => info.queue_size = size as u32,
            None => return Outcome { status: status::DEVICE, ..out },
        }
    }
    store(common + 20, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    info.status = status(&info) as u32;
    out.detail = info.status as u64;
    out.value = info.queues as u64;
    update(job.device, &info);
    // SAFETY: jobs for one device come one at a time; nothing else reads its entry meanwhile.
    unsafe { (*SETUPS.get())[job.device as usize] = *job };
    out
}

/// Resets one queue that has nothing in flight (2.6.1) and makes it again, with half the entries. Returns whether the
/// device did that.
pub fn queue_again(index: u32, queue: u16) -> bool {
    let Some(info) = info(index) else { return false };
    // SAFETY: as in `setup`.
    let mut job = unsafe { (*SETUPS.get())[index as usize % MAX_DEVICES] };
    let old = Queue::get(index, queue as u32);
    let (vector, size) = (old.vector, (old.size / 2).max(2));
    store(info.common + 22, queue);
    store(info.common + 58, 1u16);
    let from = cpu::tsc();
    while load::<u16>(info.common + 58) != 0 || load::<u16>(info.common + 28) != 0 {
        if cpu::tsc().wrapping_sub(from) > DEFAULT_DEADLINE {
            return false;
        }
        cpu::pause();
    }
    job.queue_size = size as u32;
    let first = if job.flags & flag::INTX == 0 { vector - queue as u32 } else { vector };
    Queue::create(&job, &info, old.features, queue, first) == Some(size)
}

/// Repeats the last SETUP.
pub fn setup_again(index: u32) -> Outcome {
    // SAFETY: as in `setup`.
    let job = unsafe { (*SETUPS.get())[index as usize % MAX_DEVICES] };
    setup(&job)
}

fn choose_features(job: &GuestJob, info: &DeviceInfo) -> u64 {
    let mut features = KNOWN & info.offered;
    if job.features != 0 {
        features &= job.features | F_VERSION_1;
    }
    if job.flags & flag::PACKED == 0 {
        features &= !F_PACKED;
    }
    for (bit, off) in
        [(flag::NO_EVENT_IDX, F_EVENT_IDX), (flag::NO_INDIRECT, F_INDIRECT), (flag::NO_MQ, F_BLK_MQ)]
    {
        if job.flags & bit != 0 {
            features &= !off;
        }
    }
    features
}

/// Returns the IOAPIC pin of the device's INTx: the job's value, or else the interrupt line register as firmware or the
/// VMM left it, if that can only mean a pin, or else q35's wiring.
fn pin_of(job: &GuestJob, info: &DeviceInfo, function: Function) -> u32 {
    let line = function.read8(0x3c) as u32;
    match job.pin {
        0 if (16..24).contains(&line) => line,
        0 => 20 + ((info.bdf >> 3 & 31) + info.interrupt_pin.wrapping_sub(1)) % 4,
        pin => pin,
    }
}

/// Routes a shared INTx pin to this device for its next block. Other devices on the pin have nothing in flight.
pub fn claim_pin(info: &DeviceInfo, vector: u32, apic_id: u32) {
    if info.intx_pin != 0 {
        apic::route_pin(info.intx_pin, vector, apic_id);
    }
}

/// Sets up MSI-X or INTx, as the job says. Returns the vector of queue 0. MSI-X entry 0 is for the configuration,
/// entry q + 1 for queue q.
fn interrupts(job: &GuestJob, info: &mut DeviceInfo, function: Function) -> u32 {
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    if job.flags & flag::INTX != 0 {
        let vector = or(job.vector, vector::INTX + job.device);
        store(ISR_TABLE + 8 * (vector - vector::INTX) as u64, info.isr);
        msix::disable(info, function);
        info.intx_pin = pin_of(job, info, function);
        apic::route_pin(info.intx_pin, vector, job.cpu);
        function.command(pci::COMMAND_MASTER, pci::COMMAND_INTX_OFF);
        return vector;
    }
    info.intx_pin = 0;
    let vector = or(job.vector, vector::PLAIN + 4 * job.device);
    function.command(pci::COMMAND_MASTER | pci::COMMAND_INTX_OFF, 0);
    msix::enable(info, function);
    msix::write(info, 0, vector::CONFIG, job.cpu);
    msix::set_mask(info, 0, false);
    store(info.common + 16, 0u16);
    for q in 0..info.queues {
        let cpu = job.cpu + if job.flags & flag::SPREAD != 0 { q } else { 0 };
        msix::write(info, q + 1, vector + q, cpu);
        msix::set_mask(info, q + 1, false);
    }
    vector
}
