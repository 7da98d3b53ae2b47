//! virtio-blk over virtio-pci (virtio 1.2, 4.1 and 5.2): found on bus 0, described in the device table, set up and
//! reset by plans.

use crate::abi::*;
use crate::cpu::{load, store};
use crate::global::Global;
use crate::pci::{self, Bar, Function};
use crate::queue::Queue;
use crate::{apic, cpu, msix};
use core::mem::offset_of;

/// Device status bits (2.1).
pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 64;

const F_BLK_FLUSH: u64 = 1 << 9;
const F_BLK_MQ: u64 = 1 << 12;
const F_BLK_DISCARD: u64 = 1 << 13;
const F_BLK_WRITE_ZEROES: u64 = 1 << 14;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;
const KNOWN: u64 =
    F_BLK_FLUSH | F_BLK_MQ | F_BLK_DISCARD | F_BLK_WRITE_ZEROES | F_INDIRECT | F_EVENT_IDX | F_VERSION_1;

/// The plan of each device's last SETUP, for the ones that set up again by themselves.
static SETUPS: Global<[Plan; MAX_DEVICES]> = Global::new([NO_PLAN; MAX_DEVICES]);
// SAFETY of this zero: Plan is made of integers.
const NO_PLAN: Plan = unsafe { core::mem::zeroed() };

fn entry(index: usize) -> u64 {
    DEVICE_TABLE + (index * DeviceInfo::SIZE) as u64
}

/// A device of the table.
pub fn info(index: u32) -> Option<DeviceInfo> {
    let count: u32 = load(CONTROL + offset_of!(Control, devices) as u64);
    (index < count).then(|| load(entry(index as usize)))
}

fn update(index: u32, info: &DeviceInfo) {
    store(entry(index as usize), *info);
}

/// Searches bus 0 and fills the device table; returns how many there are.
pub fn scan() -> usize {
    let mut count = 0;
    for slot in 0..32u16 {
        for function in 0..8 {
            let function = Function(slot << 3 | function);
            let id = function.read(0);
            if function.0 & 7 == 0 && (id == !0 || id == 0) {
                break;
            }
            if matches!(id, 0x1042_1af4 | 0x1001_1af4) && count < MAX_DEVICES {
                store(entry(count), describe(function, id >> 16));
                count += 1;
            }
            if function.0 & 7 == 0 && function.read8(0xe) & 0x80 == 0 {
                break;
            }
        }
    }
    count
}

fn describe(function: Function, id: u32) -> DeviceInfo {
    let bars = pci::place_bars(function);
    let mut info = DeviceInfo { bdf: function.0 as u32, id, ..Default::default() };
    for at in function.capabilities(9) {
        let (kind, bar) = (function.read8(at + 3), function.read8(at + 4) as usize);
        let offset = function.read(at + 8);
        let place = match bars.get(bar) {
            Some(Bar::Memory(base)) => base + offset as u64,
            Some(Bar::Port(base)) => *base as u64 + offset as u64,
            _ => continue,
        };
        let is_port = matches!(bars.get(bar), Some(Bar::Port(_)));
        match kind {
            // The first of each kind that we can use (4.1.4: in order of preference).
            1 if info.common == 0 && !is_port => info.common = place,
            2 if info.notify == 0 => {
                info.notify = place;
                info.notify_is_port = is_port as u32;
                info.notify_multiplier = function.read(at + 16);
            }
            3 if info.isr == 0 && !is_port => info.isr = place,
            4 if info.config == 0 && !is_port => info.config = place,
            _ => {}
        }
    }
    if let Some(at) = function.capabilities(0x11).next() {
        let table = function.read(at + 4);
        if let Some(Bar::Memory(base)) = bars.get(table as usize & 7) {
            info.msix_capability = at as u32;
            info.msix_size = (function.read(at) >> 16 & 0x7ff) + 1;
            info.msix_table = base + (table & !7) as u64;
        }
    }
    info.interrupt_pin = function.read8(0x3d) as u32;
    if info.common != 0 {
        store(info.common, 0u32);
        let low: u32 = load(info.common + 4);
        store(info.common, 1u32);
        info.offered = low as u64 | (load::<u32>(info.common + 4) as u64) << 32;
    }
    if info.config != 0 {
        info.capacity = load::<u32>(info.config) as u64 | (load::<u32>(info.config + 4) as u64) << 32;
    }
    info
}

/// Device status register.
pub fn status(info: &DeviceInfo) -> u8 {
    load(info.common + 20)
}

/// Resets and waits until the device says so (2.4.2). False: it does not.
pub fn reset(index: u32) -> bool {
    let Some(mut info) = info(index) else { return false };
    store(info.common + 20, 0u8);
    let from = cpu::tsc();
    while status(&info) != 0 {
        if cpu::tsc().wrapping_sub(from) > DEFAULT_DEADLINE {
            return false;
        }
        cpu::pause();
    }
    info.status = 0;
    info.queues = 0;
    update(index, &info);
    true
}

/// Ticks after which a wait that the plan does not bound gives up.
pub const DEFAULT_DEADLINE: u64 = 1 << 34;

/// SETUP: (outcome status, queues made, features, detail).
pub fn setup(plan: &Plan) -> Outcome {
    let mut out = Outcome::default();
    let Some(mut info) = info(plan.device) else {
        return Outcome { status: status::NO_DEVICE, ..out };
    };
    if info.common == 0 || info.notify == 0 || !reset(plan.device) {
        return Outcome { status: status::DEVICE, ..out };
    }
    let common = info.common;
    store(common + 20, ACKNOWLEDGE);
    store(common + 20, ACKNOWLEDGE | DRIVER);
    out.features = choose_features(plan, &info);
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
    info.queues = plan.queues.clamp(1, MAX_QUEUES as u32).min(offered_queues.min(load(common + 18)) as u32);
    let function = Function(info.bdf as u16);
    let vector = interrupts(plan, &mut info, function);
    for q in 0..info.queues {
        match Queue::create(plan, &info, out.features, q as u16, vector) {
            Some(size) => info.queue_size = size as u32,
            None => return Outcome { status: status::DEVICE, ..out },
        }
    }
    store(common + 20, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    info.status = status(&info) as u32;
    out.detail = info.status as u64;
    out.value = info.queues as u64;
    update(plan.device, &info);
    // SAFETY: plans for one device come one at a time; nobody else looks at its entry meanwhile.
    unsafe { (*SETUPS.get())[plan.device as usize] = *plan };
    out
}

/// Does the last SETUP again.
pub fn setup_again(index: u32) -> Outcome {
    // SAFETY: as in `setup`.
    let plan = unsafe { (*SETUPS.get())[index as usize % MAX_DEVICES] };
    setup(&plan)
}

fn choose_features(plan: &Plan, info: &DeviceInfo) -> u64 {
    let mut features = KNOWN & info.offered;
    if plan.features != 0 {
        features &= plan.features | F_VERSION_1;
    }
    for (bit, off) in
        [(flag::NO_EVENT_IDX, F_EVENT_IDX), (flag::NO_INDIRECT, F_INDIRECT), (flag::NO_MQ, F_BLK_MQ)]
    {
        if plan.flags & bit != 0 {
            features &= !off;
        }
    }
    features
}

/// The IOAPIC pin of the device's INTx: the plan's word, else what firmware or the VMM left in the interrupt line
/// register if it can only mean a pin, else q35's wiring.
fn pin_of(plan: &Plan, info: &DeviceInfo, function: Function) -> u32 {
    let line = function.read8(0x3c) as u32;
    match plan.pin {
        0 if (16..24).contains(&line) => line,
        0 => 20 + ((info.bdf >> 3 & 31) + info.interrupt_pin.wrapping_sub(1)) % 4,
        pin => pin,
    }
}

/// Leads a shared INTx pin to this device for its next block; whoever else is on it has nothing in flight.
pub fn claim_pin(info: &DeviceInfo, vector: u32, apic_id: u32) {
    if info.intx_pin != 0 {
        apic::route_pin(info.intx_pin, vector, apic_id);
    }
}

/// MSI-X or INTx, as the plan says; returns the vector of queue 0. MSI-X entry 0 is for the configuration, entry
/// q + 1 for queue q.
fn interrupts(plan: &Plan, info: &mut DeviceInfo, function: Function) -> u32 {
    let or = |wish: u32, default: u32| if wish == 0 { default } else { wish };
    if plan.flags & flag::INTX != 0 {
        let vector = or(plan.vector, vector::INTX + plan.device);
        store(ISR_TABLE + 8 * (vector - vector::INTX) as u64, info.isr);
        msix::disable(info, function);
        info.intx_pin = pin_of(plan, info, function);
        apic::route_pin(info.intx_pin, vector, plan.cpu);
        function.command(pci::COMMAND_MASTER, pci::COMMAND_INTX_OFF);
        return vector;
    }
    info.intx_pin = 0;
    let vector = or(plan.vector, vector::PLAIN + 4 * plan.device);
    function.command(pci::COMMAND_MASTER | pci::COMMAND_INTX_OFF, 0);
    msix::enable(info, function);
    msix::write(info, 0, vector::CONFIG, plan.cpu);
    msix::set_mask(info, 0, false);
    store(info.common + 16, 0u16);
    for q in 0..info.queues {
        let cpu = plan.cpu + if plan.flags & flag::SPREAD != 0 { q } else { 0 };
        msix::write(info, q + 1, vector + q, cpu);
        msix::set_mask(info, q + 1, false);
    }
    vector
}
