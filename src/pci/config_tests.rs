use proptest::prelude::*;

use super::*;

fn sample() -> ConfigSpace {
    ConfigSpace::new(Identity {
        vendor: 0x1af4,
        device: 0x1042,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        class: 0x010203,
        revision: 1,
        interrupt_pin: 2,
    })
}

fn walk(config: &ConfigSpace) -> Vec<(u8, u8)> {
    capabilities(|at| {
        let mut byte = [0];
        config.read(at.into(), &mut byte);
        byte[0]
    })
}

#[test]
fn the_identity_is_where_a_bus_scan_looks_for_it() {
    let config = sample();
    assert_eq!(config.u32(0), 0x1042_1af4);
    assert_eq!(config.u32(0x08), 0x0102_0301, "class and revision");
    assert_eq!(config.u32(0x2c), 0x1100_1af4);
    assert_eq!(config.u32(0x3c), 0x0000_0200, "pin B, no line yet");
    assert_eq!(config.u32(0x0c), 0, "header type 0, one function");
    assert_eq!(config.u32(0x100), 0, "no extended capability");
}

#[test]
fn the_identity_is_read_only_and_the_interrupt_line_is_not() {
    let mut config = sample();
    for offset in (0..0x40).step_by(4) {
        config.write(offset, &[0xff; 4]);
    }
    assert_eq!(config.u32(0), 0x1042_1af4);
    assert_eq!(config.u32(0x3c), 0x0000_02ff);
    assert_eq!(config.u32(0x10), 0, "a BAR that does not exist has no size");
}

#[test]
fn the_command_register_keeps_its_four_bits() {
    let mut config = sample();
    assert_eq!(config.command(), Command::empty());
    config.write(4, &[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(config.command(), Command::all());
    assert_eq!(config.u16(4), 0x0407);
    config.write(4, &[Command::MEMORY.bits() as u8]);
    assert_eq!(
        config.command(),
        Command::MEMORY | Command::INTX_DISABLE,
        "a byte write leaves the other byte"
    );
}

#[test]
fn the_interrupt_status_bit_follows_the_device_not_the_guest() {
    let mut config = sample();
    config.set_interrupt_status(true);
    config.write(6, &[0, 0]);
    assert_eq!(config.u16(6), 1 << 3);
    config.set_interrupt_status(false);
    assert_eq!(config.u16(6), 0);
}

#[test]
fn capabilities_are_found_in_the_order_they_were_added() {
    let mut config = sample();
    assert_eq!(walk(&config), []);
    let first = Capability { id: 9, body: vec![1, 2, 3], writable: vec![] };
    let second = Capability { id: 0x11, body: vec![0; 10], writable: vec![0, 0xc0] };
    let a = config.add_capability(&first).unwrap();
    let b = config.add_capability(&second).unwrap();
    assert_eq!(walk(&config), [(9, a), (0x11, b)]);
    assert_eq!(b % 4, 0);
    config.write(b.into(), &[0xff; 4]);
    assert_eq!(config.u32(b.into()), 0xc000_0011, "only the two bits that were allowed");
}

#[test]
fn a_full_space_refuses_a_capability_and_keeps_the_list() {
    let mut config = sample();
    let body = Capability { id: 9, body: vec![0; 94], writable: vec![] };
    config.add_capability(&body).unwrap();
    config.add_capability(&body).unwrap();
    let error = config.add_capability(&Capability { id: 5, body: vec![0; 2], writable: vec![] }).unwrap_err();
    assert!(error.to_string().contains("0x05"));
    assert_eq!(walk(&config), [(9, 0x40), (9, 0xa0)]);
}

#[test]
fn a_capability_list_with_a_loop_ends() {
    let mut config = sample();
    let at = config.add_capability(&Capability { id: 9, body: vec![0; 2], writable: vec![] }).unwrap();
    config.set(usize::from(at) + 1, &[at]);
    assert_eq!(walk(&config).len(), 48);
}

proptest! {
    #[test]
    fn any_access_is_safe_and_reads_agree_whatever_their_width(
        writes in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..40),
        offset in any::<u16>(),
        len in 0usize..9,
    ) {
        let mut config = sample();
        config.add_capability(&Capability { id: 9, body: vec![0; 14], writable: vec![0xff; 14] }).unwrap();
        for (at, data) in &writes {
            config.write(*at, data);
            // Half of the writes hit offsets where a write has an effect.
            config.write(*at % 0x60, data);
        }
        prop_assert_eq!(config.u32(0), 0x1042_1af4);
        let mut wide = vec![0; len];
        config.read(offset, &mut wide);
        for (at, byte) in (usize::from(offset)..).zip(wide) {
            let mut narrow = [0xff];
            if let Ok(at) = u16::try_from(at) {
                config.read(at, &mut narrow);
            }
            prop_assert_eq!(narrow[0], byte);
        }
    }
}
