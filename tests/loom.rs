//! Model checks: every interleaving of the dataplane's two lost-wake-up hazards, and of masking against delivery.
//!
//! They run the very code of src/dataplane/fences.rs and src/kvm/vector.rs with loom's atomics and locks; loom_kernel/ is
//! the kernel's side of an irqfd, because what must hold is an agreement with the kernel.

use loom::sync::{Arc, atomic};
use loom::thread;

#[path = "../src/dataplane/fences.rs"]
mod fences;

use atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// The device completes; the driver asks for an interrupt and looks once more before it waits.
#[test]
fn a_completion_is_either_interrupted_for_or_seen() {
    loom::model(|| {
        let (used_index, used_event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(7)));
        let device = {
            let (used_index, used_event) = (used_index.clone(), used_event.clone());
            thread::spawn(move || fences::need_event(fences::publish(&used_index, 1, &used_event), 0, 1))
        };
        // The driver (virtqueue_enable_cb): used_event = last used, barrier, look.
        used_event.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = used_index.load(Ordering::Acquire) == 1;
        let interrupted = device.join().unwrap();
        assert!(seen || interrupted, "the completion sits there unnoticed");
    });
}

/// The device holds the interrupt for its first completion, publishes a second one, and then delivers what it holds: the
/// driver that asked in between misses neither, although the second publication alone may want no interrupt.
#[test]
fn a_completion_published_while_an_interrupt_is_held_is_interrupted_for_or_seen() {
    loom::model(|| {
        let (used_index, used_event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(0)));
        let device = {
            let (used_index, used_event) = (used_index.clone(), used_event.clone());
            thread::spawn(move || {
                let wanted = |index| {
                    fences::need_event(fences::publish(&used_index, index, &used_event), index - 1, index)
                };
                let held = wanted(1);
                wanted(2) || held
            })
        };
        // The driver took what it saw, asks for the next one, and looks once more (virtqueue_enable_cb).
        let taken = used_index.load(Ordering::Acquire);
        used_event.store(taken, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = used_index.load(Ordering::Acquire) == 2;
        let interrupted = device.join().unwrap();
        assert!(seen || interrupted, "completions sit there unnoticed");
    });
}

/// The driver makes a request available; the device asks for kicks and looks once more before it sleeps.
#[test]
fn a_request_is_either_kicked_for_or_seen() {
    loom::model(|| {
        let (avail_index, avail_event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(7)));
        let device = {
            let (avail_index, avail_event) = (avail_index.clone(), avail_event.clone());
            thread::spawn(move || fences::ask_for_kicks(&avail_event, 0, &avail_index) == 1)
        };
        // The driver (virtqueue_kick_prepare): avail index, barrier, is a kick wanted?
        avail_index.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        let kicked = fences::need_event(avail_event.load(Ordering::Relaxed), 0, 1);
        let seen = device.join().unwrap();
        assert!(seen || kicked, "the request sits there and the device sleeps");
    });
}

/// Flags of descriptors and of event structures in a packed ring's first lap (virtio 1.2, 2.8.1 and 2.8.10).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 7 | 1 << 15;
const EVENT_DISABLE: u32 = 1 << 16;
const EVENT_DESC: u32 = 2 << 16;
const SIZE: u16 = 8;

/// Whether an event structure asks for a notification of the step from 0 to 1 in the first lap.
fn wants_first(event: u32) -> bool {
    let lap = fences::event_in_lap(event as u16, true, SIZE);
    event & EVENT_DESC != 0 && fences::need_event(lap, 0, 1)
}

/// A packed ring: two completions are shown by the flags of the first; the driver asks for an interrupt and looks once more.
#[test]
fn packed_completions_are_either_interrupted_for_or_seen_and_whole() {
    loom::model(|| {
        let flags = Arc::new([AtomicU16::new(AVAILABLE), AtomicU16::new(AVAILABLE)]);
        let event = Arc::new(AtomicU32::new(EVENT_DISABLE));
        let device = {
            let (flags, event) = (flags.clone(), event.clone());
            thread::spawn(move || {
                flags[1].store(USED, Ordering::Relaxed);
                wants_first(fences::publish_packed(&flags[0], USED, &event))
            })
        };
        // The driver: position 0 with wrap counter 1, barrier, look.
        event.store(EVENT_DESC | 1 << 15, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = flags[0].load(Ordering::Acquire) == USED;
        if seen {
            assert_eq!(flags[1].load(Ordering::Relaxed), USED, "the second completion is not there yet");
        }
        let interrupted = device.join().unwrap();
        assert!(seen || interrupted, "the completions sit there unnoticed");
    });
}

/// A packed ring: the driver makes a request available; the device asks for kicks and looks once more before it sleeps.
#[test]
fn a_packed_request_is_either_kicked_for_or_seen() {
    loom::model(|| {
        let (flags, event) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU32::new(EVENT_DISABLE)));
        let device = {
            let (flags, event) = (flags.clone(), event.clone());
            let ask = EVENT_DESC | 1 << 15;
            thread::spawn(move || fences::ask_for_kicks_packed(&event, ask, &flags) == AVAILABLE)
        };
        // The driver: flags of the first descriptor, barrier, is a kick wanted?
        flags.store(AVAILABLE, Ordering::Release);
        fence(Ordering::SeqCst);
        let kicked = wants_first(event.load(Ordering::Relaxed));
        let seen = device.join().unwrap();
        assert!(seen || kicked, "the request sits there and the device sleeps");
    });
}

#[path = "../src/kvm/vector.rs"]
#[allow(dead_code)]
mod vector;

#[path = "loom_kernel/mod.rs"]
mod kernel;
use kernel::{Gsi, Irqfd, KvmError, MsiMessage, Routes, VmIoctls, eventfd, sync};

use std::sync::Arc as StdArc;
use vector::{Signalled, Vector, VectorState};

fn state(data: u32, masked: bool) -> VectorState {
    VectorState { message: MsiMessage { address: 0xfee0_0000, data }, masked }
}

fn new_vector(via_irqfd: bool) -> (StdArc<kernel::Kernel>, StdArc<Vector>) {
    let kernel = StdArc::new(kernel::Kernel::default());
    let routes = StdArc::new(Routes::new(kernel.clone()));
    let vector = StdArc::new(Vector::new(kernel.clone(), routes, via_irqfd).unwrap());
    Vector::apply(&[(&vector, state(1, false))]).unwrap();
    (kernel, vector)
}

/// A vCPU masks, rewrites and unmasks a vector (src/kvm/vector.rs, the very code) while an I/O thread rings it.
#[test]
fn an_irqfd_signalled_while_its_vector_is_masked_and_moved_is_delivered_once() {
    loom::model(|| {
        let (kernel, vector) = new_vector(true);
        let io_thread = {
            let vector = vector.clone();
            thread::spawn(move || vector.signal_irqfd())
        };
        Vector::apply(&[(&vector, state(1, true))]).unwrap();
        let masked = kernel.delivered().len();
        Vector::apply(&[(&vector, state(2, true))]).unwrap();
        assert_eq!(kernel.delivered().len(), masked, "rang while masked");
        Vector::apply(&[(&vector, state(2, false))]).unwrap();
        io_thread.join().unwrap();
        assert!(matches!(kernel.delivered()[..], [1] | [2]), "{:?}", kernel.delivered());
        assert!(!vector.pending());
    });
}

/// The same for messages.
#[test]
fn a_message_sent_while_its_vector_is_masked_and_moved_is_delivered_once() {
    loom::model(|| {
        let (kernel, vector) = new_vector(false);
        let main_loop = {
            let vector = vector.clone();
            thread::spawn(move || vector.signal_msi())
        };
        Vector::apply(&[(&vector, state(1, true))]).unwrap();
        let masked = kernel.delivered().len();
        Vector::apply(&[(&vector, state(2, true))]).unwrap();
        assert_eq!(kernel.delivered().len(), masked, "sent while masked");
        Vector::apply(&[(&vector, state(2, false))]).unwrap();
        let signalled = main_loop.join().unwrap();
        assert_ne!(signalled, Signalled::Refused);
        assert!(matches!(kernel.delivered()[..], [1] | [2]), "{:?}", kernel.delivered());
    });
}

/// A live switch from messages to irqfds: whoever reads the new path finds an irqfd.
#[test]
fn switching_to_irqfd_while_signalling_loses_nothing() {
    loom::model(|| {
        let (kernel, vector) = new_vector(false);
        let irqfd = StdArc::new(atomic::AtomicBool::new(false));
        let io_thread = {
            let (vector, irqfd) = (vector.clone(), irqfd.clone());
            // As Interrupt::deliver.
            thread::spawn(move || {
                if irqfd.load(Ordering::Acquire) && vector.via_irqfd() {
                    vector.signal_irqfd();
                } else {
                    vector.signal_msi();
                }
            })
        };
        // As DeviceInterrupts::set_path.
        vector.enable_irqfd().unwrap();
        irqfd.store(true, Ordering::Release);
        io_thread.join().unwrap();
        assert_eq!(kernel.delivered(), [1]);
    });
}

/// A vector that gets no irqfd at its unmask falls back to messages: what an I/O thread signals meanwhile is delivered.
#[test]
fn what_is_signalled_while_a_vector_falls_back_to_messages_is_delivered_once() {
    loom::model(|| {
        let (kernel, vector) = new_vector(true);
        Vector::apply(&[(&vector, state(1, true))]).unwrap();
        *kernel.refuses_irqfds.lock().unwrap() = true;
        let io_thread = {
            let vector = vector.clone();
            // As Interrupt::deliver.
            thread::spawn(move || match vector.via_irqfd() {
                true => vector.signal_irqfd(),
                false => _ = vector.signal_msi(),
            })
        };
        assert!(Vector::apply(&[(&vector, state(1, false))]).is_err());
        io_thread.join().unwrap();
        assert_eq!(kernel.delivered(), [1]);
    });
}
