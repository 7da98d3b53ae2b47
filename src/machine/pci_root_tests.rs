use super::*;
use crate::machine::bus::BusView;
use crate::machine::layout::{MMIO32_START, MMIO64_START, PIO_START};

/// One device with a 4 KiB memory BAR 0, a 64-bit prefetchable 1 MiB BAR 2 and a 32-port I/O BAR 4.
#[derive(Default)]
struct Card(Mutex<CardState>);

struct CardState {
    config: [u8; 64],
    calls: Vec<String>,
}

impl Default for CardState {
    fn default() -> Self {
        let mut config = [0; 64];
        config[0..4].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        CardState { config, calls: Vec::new() }
    }
}

const MASKS: [u32; 6] = [0xffff_f000, 0, 0xfff0_0000, 0xffff_ffff, 0xffff_ffe0, 0];
const FLAGS: [u32; 6] = [0, 0, 0xc, 0, 1, 0];

impl CardState {
    fn bar(&self, bar: usize) -> u32 {
        u32::from_le_bytes(self.config[16 + 4 * bar..20 + 4 * bar].try_into().unwrap())
    }
}

impl PciDevice for Card {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let state = self.0.lock().unwrap();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = state.config.get(usize::from(offset) + i).copied().unwrap_or(0);
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = self.0.lock().unwrap();
        for (i, &byte) in data.iter().enumerate() {
            let at = usize::from(offset) + i;
            match at {
                4..8 => state.config[at] = byte,
                16..40 => {
                    let mask = MASKS[(at - 16) / 4];
                    let flags = FLAGS[(at - 16) / 4];
                    state.config[at] = byte & mask.to_le_bytes()[at % 4] | flags.to_le_bytes()[at % 4];
                }
                _ => {}
            }
        }
    }

    fn windows(&self) -> Vec<Window> {
        let state = self.0.lock().unwrap();
        let mut windows = Vec::new();
        if state.config[4] & 2 != 0 {
            windows.push(Window { bar: 0, space: Space::Mmio, base: state.bar(0).into(), len: 4096 });
            let base = u64::from(state.bar(3)) << 32 | u64::from(state.bar(2) & !0xf);
            windows.push(Window { bar: 2, space: Space::Mmio, base, len: 1 << 20 });
        }
        if state.config[4] & 1 != 0 {
            let base = u64::from(state.bar(4) & !3);
            windows.push(Window { bar: 4, space: Space::Pio, base, len: 32 });
        }
        windows
    }

    fn bar_mapped(&self, window: Window) {
        self.0.lock().unwrap().calls.push(format!("+{} {:x}", window.bar, window.base));
    }

    fn bar_unmapped(&self, window: Window) {
        self.0.lock().unwrap().calls.push(format!("-{} {:x}", window.bar, window.base));
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(bar * 16 + offset as u8);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().calls.push(format!("w{bar} {offset:x} {data:x?}"));
    }
}

fn calls(card: &Card) -> Vec<String> {
    std::mem::take(&mut card.0.lock().unwrap().calls)
}

struct Rig {
    root: Arc<PciRoot>,
    mmio: BusView,
    pio: BusView,
}

fn rig() -> Rig {
    let (mmio, pio) = (Bus::new(), Bus::new());
    let root = PciRoot::new(mmio.clone(), pio.clone());
    let ports = ConfigPorts { root: root.clone(), reset: Box::new(|| ()) };
    pio.insert(0xcf8, 8, Arc::new(ports)).unwrap();
    Rig { root, mmio: mmio.view(), pio: pio.view() }
}

fn byte(view: &mut BusView, address: u64) -> u8 {
    let mut data = [0];
    view.read(address, &mut data);
    data[0]
}

#[test]
fn bars_have_addresses_in_their_windows_and_answer_from_the_start() {
    let mut rig = rig();
    let card = Arc::new(Card::default());
    assert_eq!(rig.root.add(card.clone()).unwrap(), 1);
    assert_eq!(
        calls(&card),
        [format!("+0 {MMIO32_START:x}"), format!("+2 {MMIO64_START:x}"), format!("+4 {PIO_START:x}")]
    );
    assert_eq!(byte(&mut rig.mmio, MMIO32_START + 3), 3);
    assert_eq!(byte(&mut rig.mmio, MMIO64_START + 5), 0x25);
    assert_eq!(byte(&mut rig.pio, PIO_START + 1), 0x41);
}

#[test]
fn a_moved_bar_answers_at_its_new_address_only() {
    let mut rig = rig();
    let card = Arc::new(Card::default());
    rig.root.add(card.clone()).unwrap();
    calls(&card);
    rig.root.config_write(1, 0x10, &0xd000_0000u32.to_le_bytes());
    assert_eq!(calls(&card), [format!("-0 {MMIO32_START:x}"), "+0 d0000000".to_string()]);
    assert_eq!(byte(&mut rig.mmio, MMIO32_START), 0xff);
    assert_eq!(byte(&mut rig.mmio, 0xd000_0001), 1);
}

#[test]
fn decode_off_unmaps_and_on_maps_again() {
    let mut rig = rig();
    let card = Arc::new(Card::default());
    rig.root.add(card.clone()).unwrap();
    calls(&card);
    rig.root.config_write(1, 4, &[1, 0]);
    assert_eq!(calls(&card), [format!("-0 {MMIO32_START:x}"), format!("-2 {MMIO64_START:x}")]);
    assert_eq!(byte(&mut rig.mmio, MMIO32_START), 0xff);
    rig.root.config_write(1, 4, &[3, 0]);
    assert_eq!(calls(&card), [format!("+0 {MMIO32_START:x}"), format!("+2 {MMIO64_START:x}")]);
}

#[test]
fn of_two_overlapping_bars_the_first_answers_until_it_leaves() {
    let mut rig = rig();
    let (first, second) = (Arc::new(Card::default()), Arc::new(Card::default()));
    rig.root.add(first.clone()).unwrap();
    rig.root.add(second.clone()).unwrap();
    let old = MMIO32_START + 4096;
    calls(&first);
    calls(&second);
    rig.root.config_write(2, 0x10, &(MMIO32_START as u32).to_le_bytes());
    assert_eq!(calls(&second), [format!("-0 {old:x}")]);
    rig.mmio.write(MMIO32_START, &[9]);
    assert_eq!(calls(&first), ["w0 0 [9]"]);
    rig.root.config_write(1, 4, &[0, 0]);
    assert!(calls(&second).contains(&format!("+0 {MMIO32_START:x}")));
    rig.mmio.write(MMIO32_START, &[8]);
    assert_eq!(calls(&second), ["w0 0 [8]"]);
}

#[test]
fn ecam_and_ports_reach_the_same_registers() {
    let mut rig = rig();
    rig.root.add(Arc::new(Card::default())).unwrap();
    let ecam = Ecam(rig.root.clone());
    let mut word = [0; 4];
    ecam.read(1 << 15, &mut word);
    assert_eq!(u32::from_le_bytes(word), 0x1234_5678);
    rig.pio.write(0xcf8, &0x8000_0800u32.to_le_bytes());
    rig.pio.read(0xcfc, &mut word);
    assert_eq!(u32::from_le_bytes(word), 0x1234_5678);
    let mut half = [0; 2];
    rig.pio.read(0xcfe, &mut half);
    assert_eq!(u16::from_le_bytes(half), 0x1234);
    ecam.read(0, &mut word);
    assert_eq!(u32::from_le_bytes(word), 0x0008_1b36);
}

#[test]
fn absent_slots_functions_and_buses_read_as_ones() {
    let mut rig = rig();
    rig.root.add(Arc::new(Card::default())).unwrap();
    for address in [0x8000_1000u32, 0x8000_0900, 0x8001_0800, 0x0000_0800] {
        rig.pio.write(0xcf8, &address.to_le_bytes());
        let mut word = [0; 4];
        rig.pio.read(0xcfc, &mut word);
        assert_eq!(word, [0xff; 4], "{address:x}");
    }
    let mut word = [0; 4];
    Ecam(rig.root.clone()).read(1 << 15 | 1 << 12, &mut word);
    assert_eq!(word, [0xff; 4]);
}

#[test]
fn any_width_and_alignment_is_taken() {
    let rig = rig();
    rig.root.add(Arc::new(Card::default())).unwrap();
    let ecam = Ecam(rig.root.clone());
    for offset in (1 << 15)..(1 << 15) + 0x1000 {
        for len in [1, 2, 3, 4, 8] {
            let mut data = vec![0; len];
            ecam.read(offset, &mut data);
            ecam.write(offset, &data);
        }
    }
    let mut wide = [0; 8];
    ecam.read(1 << 15, &mut wide);
    assert_eq!(wide[..4], 0x1234_5678u32.to_le_bytes());
}

#[test]
fn slots_run_out_with_an_error() {
    let rig = rig();
    for slot in 1..32 {
        assert_eq!(rig.root.add(Arc::new(Card::default())).unwrap(), slot);
    }
    assert!(matches!(rig.root.add(Arc::new(Card::default())), Err(PciFull::Slots)));
}
