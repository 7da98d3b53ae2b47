use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The host's side: records each batch, and the state that the batches add up to.
#[derive(Default)]
struct Host {
    batches: Vec<VectorChanges>,
    unmasked: BTreeMap<usize, MsiMessage>,
}

impl Host {
    fn apply(&mut self, changes: VectorChanges) {
        for &(n, state) in &changes {
            let old = match state.masked {
                true => self.unmasked.remove(&n),
                false => self.unmasked.insert(n, state.message),
            };
            assert_ne!(old, (!state.masked).then_some(state.message), "no change for vector {n}");
        }
        if !changes.is_empty() {
            self.batches.push(changes);
        }
    }

    fn take(&mut self) -> Vec<VectorChanges> {
        std::mem::take(&mut self.batches)
    }
}

fn message(data: u32) -> MsiMessage {
    MsiMessage { address: 0x1_fee0_1000, data }
}

fn unmasked(data: u32) -> VectorState {
    VectorState { message: message(data), masked: false }
}

/// Writes entry `n` in Linux's order: address low, address high, data, vector control.
fn program(msix: &mut Msix, host: &mut Host, n: u64, data: u32, masked: bool) {
    for (at, word) in [(0, 0xfee0_1000), (4, 1), (8, data), (12, u32::from(masked))] {
        host.apply(msix.table_write(n * 16 + at, &word.to_le_bytes()));
    }
}

#[test]
fn the_capability_says_how_many_and_where() {
    let msix = Msix::new(17);
    let capability =
        msix.capability(BarOffset { bar: 0, offset: 0x4000 }, BarOffset { bar: 2, offset: 0x3000 });
    assert_eq!(capability.id, 0x11);
    assert_eq!(capability.body, [16, 0, 0x00, 0x40, 0, 0, 0x02, 0x30, 0, 0]);
    assert_eq!(capability.writable, [0, 0xc0]);
    assert_eq!((Msix::table_len(17), Msix::pba_len(17), Msix::pba_len(65)), (272, 8, 16));
}

#[test]
fn entries_start_masked_and_only_their_mask_bit_can_be_written() {
    let (mut msix, mut host) = (Msix::new(2), Host::default());
    let mut control = [0; 4];
    msix.table_read(28, &mut control);
    assert_eq!(control, [1, 0, 0, 0]);
    host.apply(msix.table_write(28, &[0xfe, 0xff, 0xff, 0xff]));
    msix.table_read(28, &mut control);
    assert_eq!(control, [0, 0, 0, 0]);
}

#[test]
fn rewriting_masked_entries_applies_nothing_and_enabling_applies_all_at_once() {
    let (mut msix, mut host) = (Msix::new(4), Host::default());
    for n in 0..4 {
        program(&mut msix, &mut host, n, 0x30 + n as u32, true);
        program(&mut msix, &mut host, n, 0x40 + n as u32, n == 3);
    }
    assert_eq!(host.take(), [[]; 0], "MSI-X is off");
    host.apply(msix.set_control(ENABLE | FUNCTION_MASK));
    assert_eq!(host.take(), [[]; 0], "the function is masked");
    host.apply(msix.set_control(ENABLE));
    let all = [(0, unmasked(0x40)), (1, unmasked(0x41)), (2, unmasked(0x42))];
    assert_eq!(host.take(), [all]);
    program(&mut msix, &mut host, 3, 0x50, true);
    assert_eq!(host.take(), [[]; 0], "a masked entry commits nothing while MSI-X is on");
}

#[test]
fn writing_what_is_there_already_applies_nothing() {
    let (mut msix, mut host) = (Msix::new(1), Host::default());
    host.apply(msix.set_control(ENABLE));
    program(&mut msix, &mut host, 0, 7, false);
    assert_eq!(host.take().len(), 1);
    program(&mut msix, &mut host, 0, 7, false);
    host.apply(msix.set_control(ENABLE));
    assert_eq!(host.take(), [[]; 0]);
}

#[test]
fn masking_and_unmasking_an_entry_or_the_function_each_apply_once() {
    let (mut msix, mut host) = (Msix::new(2), Host::default());
    host.apply(msix.set_control(ENABLE));
    program(&mut msix, &mut host, 0, 1, false);
    program(&mut msix, &mut host, 1, 2, false);
    host.take();
    host.apply(msix.table_write(12, &[1]));
    host.apply(msix.table_write(8, &9u32.to_le_bytes()));
    host.apply(msix.table_write(12, &[0]));
    let batches = host.take();
    assert_eq!(batches.len(), 2);
    assert_eq!((batches[0][0].1.masked, batches[1][0]), (true, (0, unmasked(9))));
    host.apply(msix.set_control(ENABLE | FUNCTION_MASK));
    host.apply(msix.set_control(ENABLE));
    let lens: Vec<_> = host.take().iter().map(Vec::len).collect();
    assert_eq!(lens, [2, 2]);
}

#[test]
fn a_message_changed_while_unmasked_takes_effect_with_each_store() {
    let (mut msix, mut host) = (Msix::new(1), Host::default());
    host.apply(msix.set_control(ENABLE));
    program(&mut msix, &mut host, 0, 1, false);
    host.take();
    host.apply(msix.table_write(8, &[2, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(host.take(), [[(0, unmasked(2))]]);
    host.apply(msix.table_write(0, &0x2_fee0_2000u64.to_le_bytes()));
    let moved = MsiMessage { address: 0x2_fee0_2000, data: 2 };
    assert_eq!(host.take(), [[(0, VectorState { message: moved, masked: false })]]);
}

#[test]
fn turning_msix_off_masks_and_turning_it_on_again_restores() {
    let (mut msix, mut host) = (Msix::new(1), Host::default());
    host.apply(msix.set_control(ENABLE));
    program(&mut msix, &mut host, 0, 1, false);
    host.apply(msix.set_control(0));
    assert_eq!(msix.in_force(0), None);
    assert_eq!(msix.entry(0), Some(unmasked(1)));
    host.apply(msix.set_control(ENABLE));
    assert_eq!(msix.in_force(0), Some(message(1)));
    host.apply(msix.reset());
    assert_eq!((msix.in_force(0), msix.enabled()), (None, false));
    assert_eq!(msix.entry(0), Some(VectorState::default()));
    assert_eq!(host.unmasked, BTreeMap::new());
}

#[test]
fn the_pending_bits_are_those_of_the_owner() {
    let set = BTreeSet::from([0, 9, 66, 70]);
    let pending = |n: usize| set.contains(&n);
    let msix = Msix::new(68);
    let mut words = [0; 16];
    msix.pba_read(0, &mut words, pending);
    let mut expected = [0; 16];
    (expected[0], expected[1], expected[8]) = (1, 2, 4);
    assert_eq!(words, expected, "vector 70 does not exist");
    let mut byte = [0xff; 3];
    msix.pba_read(7, &mut byte, pending);
    assert_eq!(byte, [0, 4, 0]);
    msix.pba_read(u64::MAX - 1, &mut byte, pending);
    assert_eq!(byte, [0, 0, 0]);
    msix.table_read(u64::MAX - 1, &mut byte);
    assert_eq!(byte, [0, 0, 0]);
}

#[derive(Clone, Debug)]
enum Op {
    Write(u64, Vec<u8>),
    Control(u16),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let width = prop::sample::select(vec![1, 2, 4, 8, 3, 17]);
    let data = width.prop_flat_map(|len| prop::collection::vec(0u8..3, len));
    let offset = prop_oneof![20 => 0u64..96, 1 => any::<u64>()];
    prop_oneof![
        12 => (offset, data).prop_map(|(offset, data)| Op::Write(offset, data)),
        3 => any::<u16>().prop_map(Op::Control),
        1 => Just(Op::Reset),
    ]
}

proptest! {
    /// `Host::apply` asserts that every change differs from the effective state.
    #[test]
    fn whatever_is_written_the_host_holds_exactly_what_the_table_says(ops in prop::collection::vec(op(), 0..80)) {
        let (mut msix, mut host) = (Msix::new(5), Host::default());
        let mut model: Vec<u8> = (0..80).map(|at| u8::from(at % 16 == 12)).collect();
        let mut control = 0;
        for op in ops {
            match op {
                Op::Write(offset, data) => {
                    host.apply(msix.table_write(offset, &data));
                    for (at, byte) in (offset..).zip(data) {
                        let masks = |at| [0xff, 1, 0][if at % 16 < 12 { 0 } else if at % 16 == 12 { 1 } else { 2 }];
                        if at < 80 {
                            model[at as usize] = byte & masks(at);
                        }
                    }
                }
                Op::Control(bits) => {
                    control = bits;
                    host.apply(msix.set_control(bits));
                }
                Op::Reset => {
                    control = 0;
                    host.apply(msix.reset());
                    model = (0..80).map(|at| u8::from(at % 16 == 12)).collect();
                }
            }
            prop_assert!(host.take().len() <= 1, "one batch per access");
            let mut read = vec![0; 80];
            for width in [1, 2, 4, 8, 5] {
                for (n, part) in read.chunks_mut(width).enumerate() {
                    msix.table_read((n * width) as u64, part);
                }
                prop_assert_eq!(&read, &model);
            }
            let on = control & ENABLE != 0 && control & FUNCTION_MASK == 0;
            let expected: BTreeMap<usize, MsiMessage> = model
                .chunks(16)
                .enumerate()
                .filter(|(_, entry)| on && entry[12] == 0)
                .map(|(n, entry)| {
                    let address = u64::from_le_bytes(entry[..8].try_into().unwrap());
                    (n, MsiMessage { address, data: u32::from_le_bytes(entry[8..12].try_into().unwrap()) })
                })
                .collect();
            prop_assert_eq!(&host.unmasked, &expected);
        }
    }
}
