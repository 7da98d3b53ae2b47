use proptest::prelude::*;

use super::super::config::Identity;
use super::*;

fn sample() -> (ConfigSpace, Bars) {
    let mut config = ConfigSpace::new(Identity::default());
    let bars = [
        Bar { index: 0, kind: BarKind::Memory64, len: 0x8000 },
        Bar { index: 2, kind: BarKind::Io, len: 50 },
        Bar { index: 3, kind: BarKind::Memory32, len: 0x1000 },
    ];
    let bars = Bars::new(&mut config, &bars);
    (config, bars)
}

fn write(config: &mut ConfigSpace, register: u16, value: u32) {
    config.write(0x10 + 4 * register, &value.to_le_bytes());
}

fn decode(config: &mut ConfigSpace, command: Command) {
    config.write(4, &command.bits().to_le_bytes());
}

#[test]
fn sizing_reads_back_the_mask_and_the_kind() {
    let (mut config, _) = sample();
    for register in 0..6 {
        write(&mut config, register, u32::MAX);
    }
    let read: Vec<u32> = (0..6).map(|register| config.u32(0x10 + 4 * register)).collect();
    assert_eq!(read, [0xffff_8004, 0xffff_ffff, 0xffff_ffc1, 0xffff_f000, 0, 0]);
}

#[test]
fn a_window_needs_an_address_and_its_decode_bit() {
    let (mut config, bars) = sample();
    decode(&mut config, Command::all());
    assert_eq!(bars.windows(&config), [], "no addresses yet");
    write(&mut config, 0, 0xe000_1234);
    write(&mut config, 2, 0xc000);
    let memory = Window { bar: 0, space: Space::Mmio, base: 0xe000_0000, len: 0x8000 };
    let io = Window { bar: 2, space: Space::Pio, base: 0xc000, len: 64 };
    assert_eq!(bars.windows(&config), [memory, io]);
    decode(&mut config, Command::IO);
    assert_eq!(bars.windows(&config), [io]);
    decode(&mut config, Command::MEMORY);
    assert_eq!(bars.windows(&config), [memory]);
    decode(&mut config, Command::BUS_MASTER);
    assert_eq!(bars.windows(&config), []);
}

#[test]
fn a_moved_bar_decodes_at_its_new_address_also_above_4_gib() {
    let (mut config, bars) = sample();
    decode(&mut config, Command::MEMORY);
    write(&mut config, 0, 0xe000_0000);
    write(&mut config, 1, 0x20);
    assert_eq!(bars.windows(&config)[0].base, 0x20_e000_0000);
}

#[test]
fn a_bar_that_is_being_sized_decodes_nothing() {
    let (mut config, bars) = sample();
    decode(&mut config, Command::MEMORY | Command::IO);
    for register in 0..4 {
        write(&mut config, register, u32::MAX);
        assert_eq!(bars.windows(&config), [], "register {register}");
    }
}

#[test]
fn ports_above_64k_are_not_decoded() {
    let (mut config, bars) = sample();
    decode(&mut config, Command::IO);
    write(&mut config, 2, 0x1_c000);
    assert_eq!(bars.windows(&config), []);
}

proptest! {
    #[test]
    fn any_config_write_leaves_windows_that_fit_their_space(
        writes in prop::collection::vec((0u16..0x30, prop::collection::vec(any::<u8>(), 1..9)), 0..40),
    ) {
        let (mut config, bars) = sample();
        for (offset, data) in writes {
            config.write(offset, &data);
            for window in bars.windows(&config) {
                prop_assert_eq!(window.base % window.len, 0);
                prop_assert!(window.base > 0);
                let top = if window.space == Space::Pio { 1 << 16 } else { 1 << 52 };
                prop_assert!(window.base.checked_add(window.len).is_some_and(|end| end <= top));
            }
        }
    }
}
