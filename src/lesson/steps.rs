use super::model::{Action, Step, Waiting};
use crate::bench::probe::{Session, SessionError};
use crate::bench::probe_abi::{GuestJob, Outcome, attack, flag, kind, op, order, poke, vector, wait};

/// How long a masked vector stays so, and how long one-by-one submissions are apart, in ticks: some 100 us and 1 us.
const HOLD: u64 = 400_000;
const GAP: u64 = 3_000;

/// How far a BAR is moved.
const AWAY: u64 = 0x0400_0000;

/// Brings the step's disk up with the features that the step wants.
pub(super) fn set_up(step: &Step, level: bool) -> GuestJob {
    let device = step.disk as u32;
    let mut flags = if level { flag::INTX } else { 0 };
    if !step.event_idx {
        flags |= flag::NO_EVENT_IDX;
    }
    let vector = if level { vector::INTX + device } else { vector::PLAIN + 4 * device };
    GuestJob { kind: kind::SETUP, device, queues: 1, vector, flags, ..GuestJob::default() }
}

/// Does what the step says. `home` is the disk's plain vector, so that a move has another one to go to.
pub(super) fn run(session: &mut Session, step: &Step) -> Result<Outcome, SessionError> {
    match step.action {
        Action::Read => session.run(read(step)),
        Action::Store => stores(session, step, 0),
        Action::StoreOldPlace => stores(session, step, 0),
        Action::StoreNewPlace => stores(session, step, AWAY),
        Action::BadHead => attack_by(session, step, attack::HEAD_OUT_OF_RANGE),
        Action::BadIndex => attack_by(session, step, attack::INDEX_JUMP),
    }
}

fn read(step: &Step) -> GuestJob {
    let flags = [
        (step.always_kick, flag::ALWAYS_KICK),
        (step.one_by_one, flag::ONE_BY_ONE),
        (step.moves_live, flag::ROUTE_LIVE),
    ];
    let vector = vector::PLAIN + 4 * step.disk as u32;
    GuestJob {
        kind: kind::IO,
        device: step.disk as u32,
        depth: step.depth,
        requests: step.requests,
        size: 512,
        op: op::READ,
        wait: if step.waiting == Waiting::Ring { wait::POLL } else { wait::SPIN },
        order: order::SEQUENTIAL,
        flags: flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum(),
        gap: if step.one_by_one { GAP } else { 0 },
        mask_every: step.mask_every,
        hold: HOLD,
        route_every: step.move_every,
        vector2: if step.move_every > 0 { vector + 2 } else { 0 },
        ..GuestJob::default()
    }
}

fn attack_by(session: &mut Session, step: &Step, attack: u32) -> Result<Outcome, SessionError> {
    let job = GuestJob { kind: kind::HOSTILE, device: step.disk as u32, op: attack, ..GuestJob::default() };
    session.run(job)
}

/// The stores of a step, at a distance from where the guest found the register.
fn stores(session: &mut Session, step: &Step, away: u64) -> Result<Outcome, SessionError> {
    let device = session.devices()[step.disk];
    let mut out = Outcome::default();
    for _ in 0..step.requests {
        let job = GuestJob {
            kind: kind::POKE,
            op: if device.notify_is_port != 0 { poke::OUT } else { poke::STORE },
            width: step.width,
            address: device.notify + away,
            value: step.value,
            requests: 1,
            ..GuestJob::default()
        };
        session.run(job)?;
        out.completed += 1;
        out.kicks += 1;
    }
    Ok(out)
}

/// Moves the BAR in which the notify registers of the step's disk are, as a guest does: by writing another address into it.
pub(super) fn move_bar(session: &mut Session, step: &Step) -> Result<(), SessionError> {
    /// Longest BAR of a disk.
    const REACH: u64 = 0x10_0000;
    let device = session.devices()[step.disk];
    for offset in (0x10..0x28).step_by(4) {
        let register = u64::from(device.bdf) << 8 | offset;
        let mut access = |op, value| {
            let job = GuestJob {
                kind: kind::POKE,
                op,
                address: register,
                value,
                requests: 1,
                ..GuestJob::default()
            };
            session.run(job).map(|outcome| outcome.value)
        };
        let bar = access(poke::CONFIG_READ, 0)?;
        let (base, is_memory) = (bar & !0xf, bar & 1 == 0);
        if is_memory && base != 0 && (base..base + REACH).contains(&device.notify) {
            access(poke::CONFIG_WRITE, bar + AWAY)?;
            return Ok(());
        }
    }
    Err(SessionError::Ended("the probe found no BAR with the notify registers".into()))
}
