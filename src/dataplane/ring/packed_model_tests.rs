//! The packed ring against a model that counts without wrapping.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A step of the model: what a driver, a device and its backend may do in any order.
#[derive(Clone, Debug)]
enum Step {
    Offer {
        descriptors: u16,
        indirect: bool,
    },
    Take,
    /// The backend finishes one of the requests that it has, in any order.
    Complete(prop::sample::Index),
    Publish,
    Reap,
    /// The driver wants an interrupt at this distance from the next used descriptor.
    Event(i32),
    Arm,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u16..5, any::<bool>()).prop_map(|(descriptors, indirect)| Step::Offer { descriptors, indirect }),
        3 => Just(Step::Take),
        3 => any::<prop::sample::Index>().prop_map(Step::Complete),
        2 => Just(Step::Publish),
        2 => Just(Step::Reap),
        1 => (-12i32..=12).prop_map(Step::Event),
        1 => Just(Step::Arm),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// Every request comes once, with its own buffers, and returns once, in the order of completion, and not before the
    /// publication; an interrupt is wanted exactly if a publication steps over the driver's position, and a kick exactly if an
    /// offer steps over the device's.
    #[test]
    fn agrees_with_a_model_that_counts_without_wrapping(size in 1u16..=12, steps in steps()) {
        let (mut driver, mut ring) = ring(size, true);
        let (mut offered, mut at_backend) = (VecDeque::new(), Vec::<(Head, u32)>::new());
        let (mut pushed, mut visible) = (Vec::<(u16, u32)>::new(), VecDeque::new());
        let (mut published, mut next_used, mut event) = (Count(0), Count(0), Count(0));
        let mut serial = 0u32;
        driver.event(event);
        for step in steps {
            match step {
                Step::Offer { descriptors, indirect } => {
                    let takes = if indirect { 1 } else { descriptors };
                    if takes > driver.free() {
                        continue;
                    }
                    serial += 1;
                    let (from, waits) = (driver.avail.0, offered.is_empty());
                    let buffers: Vec<_> = (0..descriptors).map(|n| (BUFFER, serial * 8 + u32::from(n), WRITE)).collect();
                    let id = if indirect {
                        let id = driver.lengths.iter().position(Option::is_none).unwrap() as u64;
                        let table = TABLES + 128 * id;
                        for (n, &(addr, len, flags)) in buffers.iter().enumerate() {
                            driver.desc_at(table + 16 * n as u64, addr, len, 0, flags);
                        }
                        driver.offer(&[(table, 16 * u32::from(descriptors), INDIRECT)])
                    } else {
                        driver.offer(&buffers)
                    };
                    offered.push_back((id, takes, buffers.iter().map(|b| b.1 as usize).collect::<Vec<_>>()));
                    // As the driver decides about its kick, if the device asked for one and sleeps.
                    let word: u32 = driver.read(DEVICE);
                    if waits && (word >> 16) as u16 == DESC {
                        let lap = event_in_lap(word as u16, driver.avail.wrap(size), size);
                        let new = driver.avail.offset(size) as u16;
                        prop_assert!(need_event(lap, new.wrapping_sub(takes), new), "no kick for {from}");
                        ring.disable_kicks();
                    }
                }
                Step::Take => {
                    prop_assert_eq!(ring.has_avail(), !offered.is_empty());
                    match (pop(&mut ring).unwrap(), offered.pop_front()) {
                        (None, None) => {}
                        (Some(chain), Some((id, takes, buffers))) => {
                            prop_assert_eq!(chain.head, Head { id, descriptors: takes });
                            prop_assert_eq!(lens(&chain.writable), buffers);
                            at_backend.push((chain.head, serial));
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Complete(which) => {
                    if !at_backend.is_empty() {
                        let (head, written) = at_backend.swap_remove(which.index(at_backend.len()));
                        ring.push(head, written);
                        pushed.push((head.id, written));
                        next_used.0 += u64::from(head.descriptors);
                    }
                }
                Step::Publish => {
                    prop_assert_eq!(usize::from(ring.unpublished()), pushed.len());
                    // A position that stays behind comes round again after two laps.
                    let here = |count: u64| Count(count).word(size) == event.word(size);
                    let passed = (published.0..next_used.0).any(here);
                    prop_assert_eq!(ring.publish(), passed);
                    published = next_used;
                    visible.extend(pushed.drain(..));
                }
                Step::Reap => prop_assert_eq!(driver.reap(), visible.drain(..).collect::<Vec<_>>()),
                Step::Event(by) => {
                    event = Count(published.0.saturating_add_signed(by.into()));
                    driver.event(event);
                }
                Step::Arm => {
                    prop_assert_eq!(ring.enable_kicks(), !offered.is_empty());
                    if !offered.is_empty() {
                        ring.disable_kicks();
                    }
                }
            }
        }
    }

    #[test]
    fn random_rings_never_panic_or_leave_memory(
        size in 1u16..=8,
        words in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 1..64),
        events in any::<u32>(),
    ) {
        let (driver, mut ring) = ring(size, true);
        driver.write(DRIVER, events);
        let mut heads = VecDeque::new();
        for (n, &(a, b, what)) in words.iter().enumerate() {
            // A descriptor anywhere, often one that is available in this lap or the next.
            let lap = if what & 1 == 0 { AVAIL } else { USED };
            let flags = if what & 2 == 0 { lap | a & 7 } else { a };
            driver.desc_at(RING + 16 * (u64::from(b) % u64::from(size)), u64::from(a) << 4, u32::from(b), b, flags);
            driver.desc_at(TABLES + 16 * (n as u64 % 64), u64::from(b) << 4, u32::from(a), a, b);
            while let Ok(Some(chain)) = pop(&mut ring) {
                let inside = |buffer: &libc::iovec| buffer.iov_len <= RAM;
                prop_assert!(chain.readable.iter().all(inside) && chain.writable.iter().all(inside));
                prop_assert!(ring.taken <= size);
                heads.push_back(chain.head);
            }
            if what & 4 == 0 && let Some(head) = heads.pop_front() {
                ring.push(head, 1);
            }
            if what & 8 == 0 {
                ring.publish();
            }
            ring.enable_kicks();
        }
    }
}
