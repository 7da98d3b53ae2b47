use std::ops::{Deref, DerefMut};

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

/// The seats of a loop, by place.
#[derive(Default)]
pub(super) struct Seats(Vec<Option<Seat>>);

impl Deref for Seats {
    type Target = Vec<Option<Seat>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Seats {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Seats {
    /// A loop that dies may leave requests in flight, and the kernel may still write to the guest's memory for them. Their
    /// workers are leaked with the memory and the backend's buffers: lost memory is the smaller harm.
    fn drop(&mut self) {
        for seat in self.0.drain(..).flatten() {
            // Whoever waits for the queue hears that nobody has it any more.
            let Seat { worker, leaving: _, .. } = seat;
            if worker.in_flight() > 0 {
                std::mem::forget(worker);
            }
        }
    }
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

#[cfg(test)]
#[path = "seat_tests.rs"]
mod tests;
