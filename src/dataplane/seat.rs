use crossbeam_channel::Sender;

use super::worker::Worker;

/// An attached queue and its state in the loop.
pub(super) struct Seat {
    pub worker: Box<Worker>,
    /// Whether there may be requests in the ring.
    pub ready: bool,
    /// Whether kicks are on, so that the thread may sleep.
    pub armed: bool,
    /// The thread that detaches the queue and waits for the drained worker.
    pub leaving: Option<Sender<Box<Worker>>>,
    /// Distinguishes this seat from earlier ones in the same place, whose events may still arrive.
    pub generation: u16,
}

/// Returns place and generation of a seat as one word of 29 bits, for tags, completions and attachments. The loop's
/// tags use the two bits above.
pub(super) fn seat_id(place: usize, generation: u16) -> u32 {
    place as u32 & 0xffff | u32::from(generation & 0x1fff) << 16
}

/// Returns whether there may be requests in the ring of this seat's queue.
pub(super) fn is_ready(seat: &Option<Seat>) -> bool {
    seat.as_ref().is_some_and(|seat| seat.ready)
}

/// Returns the seat with this id, or `None` if its queue was detached, even if another one has the place now.
pub(super) fn seat_of(seats: &mut [Option<Seat>], id: u32) -> Option<&mut Seat> {
    let place = (id & 0xffff) as usize;
    let seat = seats.get_mut(place)?.as_mut()?;
    (seat_id(place, seat.generation) == id).then_some(seat)
}
