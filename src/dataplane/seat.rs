use std::ops::{Deref, DerefMut};

use crossbeam_channel::Sender;

use super::worker::Worker;

/// A queue's place at its loop.
pub(super) struct Seat {
    pub worker: Box<Worker>,
    /// There may be requests in the ring.
    pub ready: bool,
    /// Kicks are on: the thread may sleep.
    pub armed: bool,
    /// Whoever waits for the drained worker.
    pub leaving: Option<Sender<Box<Worker>>>,
    /// Tells this seat from earlier ones of the same place, whose reports may still be under way.
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

/// Place and generation of a seat, as one word for tags, completions and attachments. 29 bits: the loop's tags use the two above.
pub(super) fn seat_id(place: usize, generation: u16) -> u32 {
    place as u32 & 0xffff | u32::from(generation & 0x1fff) << 16
}

/// Whether there may be requests in the ring of the queue that sits here.
pub(super) fn is_ready(seat: &Option<Seat>) -> bool {
    seat.as_ref().is_some_and(|seat| seat.ready)
}

/// The seat with this id; `None` if it has been left, whoever sits there now.
pub(super) fn seat_of(seats: &mut [Option<Seat>], id: u32) -> Option<&mut Seat> {
    let place = (id & 0xffff) as usize;
    let seat = seats.get_mut(place)?.as_mut()?;
    (seat_id(place, seat.generation) == id).then_some(seat)
}

#[cfg(test)]
#[path = "seat_tests.rs"]
mod tests;
