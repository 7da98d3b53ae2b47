//! Model checks: every interleaving of the dataplane's two lost-wake-up hazards, and of masking against ringing.
//!
//! The first two run the very code of src/dataplane/order.rs with loom's atomics; a fence taken out there fails them.
//! The third models the kernel's side of an irqfd, because what must hold is an agreement with the kernel.

use loom::sync::{Arc, Mutex, atomic};
use loom::thread;

#[path = "../src/dataplane/order.rs"]
mod order;

use atomic::{AtomicU16, Ordering, fence};

/// The device completes; the driver asks for an interrupt and looks once more before it waits.
#[test]
fn a_completion_is_either_interrupted_for_or_seen() {
    loom::model(|| {
        let (used_index, used_event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(7)));
        let device = {
            let (used_index, used_event) = (used_index.clone(), used_event.clone());
            thread::spawn(move || order::crossed(order::publish(&used_index, 1, &used_event), 0, 1))
        };
        // The driver (virtqueue_enable_cb): used_event = last used, barrier, look.
        used_event.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = used_index.load(Ordering::Acquire) == 1;
        let interrupted = device.join().unwrap();
        assert!(seen || interrupted, "the completion sits there unnoticed");
    });
}

/// The driver makes a request available; the device asks for kicks and looks once more before it sleeps.
#[test]
fn a_request_is_either_kicked_for_or_seen() {
    loom::model(|| {
        let (avail_index, avail_event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(7)));
        let device = {
            let (avail_index, avail_event) = (avail_index.clone(), avail_event.clone());
            thread::spawn(move || order::ask_for_kicks(&avail_event, 0, &avail_index) == 1)
        };
        // The driver (virtqueue_kick_prepare): avail index, barrier, is a kick wanted?
        avail_index.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        let kicked = order::crossed(avail_event.load(Ordering::Relaxed), 0, 1);
        let seen = device.join().unwrap();
        assert!(seen || kicked, "the request sits there and the device sleeps");
    });
}

/// What the kernel keeps of one eventfd with an irqfd on it: all under the eventfd's wait-queue lock.
#[derive(Default)]
struct Kernel {
    counter: u64,
    assigned: bool,
    route: Option<u32>,
    delivered: Vec<u32>,
    lost: u32,
}

impl Kernel {
    fn wake(&mut self) {
        if self.assigned && self.counter > 0 {
            self.counter = 0;
            match self.route {
                Some(route) => self.delivered.push(route),
                None => self.lost += 1,
            }
        }
    }
    fn write(&mut self) {
        self.counter += 1;
        self.wake();
    }
    fn assign(&mut self) {
        self.assigned = true;
        self.wake();
    }
}

/// `Vector::apply` masks by deassigning, and unmasks by route first, irqfd second, while the I/O thread rings.
#[test]
fn masking_while_ringing_loses_nothing_and_never_rings_a_masked_vector() {
    loom::model(|| {
        let kernel = Arc::new(Mutex::new(Kernel { assigned: true, route: Some(1), ..Kernel::default() }));
        let io_thread = {
            let kernel = kernel.clone();
            thread::spawn(move || kernel.lock().unwrap().write())
        };
        // Mask.
        kernel.lock().unwrap().assigned = false;
        let before = kernel.lock().unwrap().delivered.len();
        // The guest rewrites the message while masked.
        let still = kernel.lock().unwrap().delivered.len();
        assert_eq!(before, still, "rang while masked");
        // Unmask.
        kernel.lock().unwrap().route = Some(2);
        kernel.lock().unwrap().assign();
        io_thread.join().unwrap();
        let kernel = kernel.lock().unwrap();
        assert_eq!((kernel.delivered.len(), kernel.lost), (1, 0), "exactly one interrupt, by either message");
        assert_eq!(kernel.counter, 0, "nothing left pending");
    });
}
