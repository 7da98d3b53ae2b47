use proptest::prelude::*;

use super::*;
use crate::kvm::MsiMessage;
use crate::kvm::testing::{Delivery, FakeVm};
use crate::vfio::testing::device::{Call, FakeFd, nvme};

struct Bench {
    fd: Arc<FakeFd>,
    vm: Arc<FakeVm>,
    device: Arc<VfioPci>,
}

fn device_of(fd: Arc<FakeFd>, vm: &Arc<FakeVm>) -> Result<Arc<VfioPci>, VfioError> {
    let resources = VmResources {
        vm: vm.clone(),
        routes: Arc::new(Routes::new(vm.clone(), 4096)),
        slots: MemorySlots::new(vm.clone()),
        intx: 17,
    };
    let bdf = "00:03.0".parse().unwrap();
    VfioPci::with_poller(bdf, fd, IrqPath::Kernel, resources, None, EventfdPoller::new().unwrap())
}

fn bench_of(fd: Arc<FakeFd>) -> Bench {
    let vm = FakeVm::new();
    let device = device_of(fd.clone(), &vm).unwrap();
    Bench { fd, vm, device }
}

fn bench() -> Bench {
    bench_of(nvme(65, false))
}

impl Bench {
    fn config(&self, at: u16) -> u32 {
        let mut data = [0; 4];
        self.device.config_read(at, &mut data);
        u32::from_le_bytes(data)
    }

    /// Does what the host bridge does after a config write: reports windows that appeared and disappeared.
    fn write(&self, at: u16, data: &[u8]) {
        let before = self.device.windows();
        self.device.config_write(at, data);
        let after = self.device.windows();
        before.iter().filter(|w| !after.contains(w)).for_each(|w| self.device.bar_unmapped(*w));
        after.iter().filter(|w| !before.contains(w)).for_each(|w| self.device.bar_mapped(*w));
    }

    fn guest_memory(&self) -> Vec<(u64, u64)> {
        self.vm.memory().iter().map(|(_, range)| (range.guest, range.len)).collect()
    }

    /// Programs entry `n` and unmasks it, as Linux does.
    fn unmask(&self, n: u64, data: u32) {
        for (at, word) in [(12, 1), (0, 0xfee0_0000), (4, 0), (8, data), (12, 0u32)] {
            self.device.bar_write(0, 0x2000 + 16 * n + at, &word.to_le_bytes());
        }
    }

    fn delivered(&self) -> Vec<Delivery> {
        self.device.interrupts.poller().turn();
        self.vm.take_deliveries()
    }
}

fn irqfd(data: u32) -> Delivery {
    Delivery::Irqfd(MsiMessage { address: 0xfee0_0000, data })
}

const ENABLE: [u8; 2] = 0x8000u16.to_le_bytes();
const ENABLE_FUNCTION_MASKED: [u8; 2] = 0xc000u16.to_le_bytes();

#[test]
fn the_device_is_reset_before_and_after() {
    let bench = bench();
    assert_eq!(bench.fd.resets(), 1);
    let fd = bench.fd.clone();
    drop(bench);
    assert_eq!(fd.resets(), 2);
    assert!(!fd.fire(IrqIndex::Intx, 0), "nothing is armed any more");
}

#[test]
fn a_bar_that_cannot_be_mapped_is_told_and_nothing_is_armed() {
    let fd = FakeFd::new([(0x4000, 0xc), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)], [1, 0, 0], true);
    let (fd, vm) = (Arc::new(fd.unmappable()), FakeVm::new());
    let error = device_of(fd.clone(), &vm).err().unwrap().to_string();
    let expected = "0000:00:03.0 has a BAR 0 that cannot be mapped (Device or resource busy (os error 16)): another program \
                    may have it mapped; see dmesg";
    assert_eq!(error, expected);
    assert_eq!((fd.take_calls(), vm.irqfds(), vm.memory()), (vec![], vec![], vec![]));
}

#[test]
fn a_bar_is_sized_mapped_moved_and_taken_away() {
    let bench = bench();
    bench.write(0x10, &[0xff; 4]);
    assert_eq!(bench.config(0x10), 0xffff_c00c, "16 KiB, 64-bit, prefetchable");
    bench.write(0x10, &0xc000_0000u32.to_le_bytes());
    assert_eq!(bench.guest_memory(), [], "decoding is off");
    bench.write(4, &[2, 0]);
    assert_eq!(bench.guest_memory(), [(0xc000_0000, 0x2000)], "without the pages of table and pending bits");
    bench.write(0x14, &1u32.to_le_bytes());
    assert_eq!(bench.guest_memory(), [(0x1_c000_0000, 0x2000)]);
    bench.write(4, &[0, 0]);
    assert_eq!(bench.guest_memory(), []);
}

#[test]
fn what_the_host_tells_of_the_device_is_heard() {
    let bench = bench();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let note = |what| {
        let heard = heard.clone();
        move || heard.lock().unwrap().push(what)
    };
    bench.device.on_request(note("release"));
    bench.device.on_error(note("fatal error"));
    // Beside an interrupt of the guest's.
    bench.write(0x42, &[0x40, 0x80]);
    bench.unmask(0, 1);
    for index in [IrqIndex::Error, IrqIndex::Request] {
        assert!(bench.fd.fire(index, 0));
        bench.device.interrupts.poller().turn();
    }
    assert_eq!(*heard.lock().unwrap(), ["fatal error", "release"]);
}

#[test]
fn the_table_is_ours_and_the_rest_of_the_bar_is_the_device_s() {
    let bench = bench();
    bench.device.bar_write(0, 0x1000, &[7, 0, 0, 0]);
    assert_eq!(bench.fd.take_stores(), [(0, 0x1000, vec![7, 0, 0, 0])]);
    bench.unmask(3, 0x4041);
    bench.device.bar_write(0, 0x3000, &[0xff; 8]);
    assert_eq!(bench.fd.take_stores(), []);
    let mut word = [0; 4];
    bench.device.bar_read(0, 0x2000 + 16 * 3 + 8, &mut word);
    assert_eq!(u32::from_le_bytes(word), 0x4041);
    bench.device.bar_read(0, 0x3000, &mut word);
    assert_eq!(word, [0; 4]);
    bench.device.bar_read(0, 0x14, &mut word);
    assert_eq!(word, [0xb0; 4]);
}

#[test]
fn linux_s_sequence_arms_in_one_batch_and_then_vector_by_vector() {
    let bench = bench();
    bench.fd.take_calls();
    bench.write(0x42, &ENABLE_FUNCTION_MASKED);
    let batch = [Call::Disable(IrqIndex::Intx), Call::Set(IrqIndex::Msix, 0, vec![false; 65])];
    assert_eq!(bench.fd.take_calls(), batch);
    bench.write(0x42, &ENABLE);
    assert_eq!(bench.fd.take_calls(), []);
    bench.unmask(0, 0x40);
    bench.unmask(1, 0x41);
    let one = |n| Call::Set(IrqIndex::Msix, n, vec![true]);
    assert_eq!(bench.fd.take_calls(), [one(0), one(1)]);
    assert!(bench.fd.fire(IrqIndex::Msix, 1));
    assert_eq!(bench.delivered(), [irqfd(0x41)]);
}

#[test]
fn the_pending_bit_of_a_masked_vector_shows_in_the_guest_s_pending_bits() {
    let bench = bench();
    bench.write(0x42, &ENABLE);
    bench.unmask(9, 0x49);
    bench.device.bar_write(0, 0x2000 + 16 * 9 + 12, &[1, 0, 0, 0]);
    assert!(bench.fd.fire(IrqIndex::Msix, 9));
    let mut pending = [0; 8];
    bench.device.bar_read(0, 0x3000, &mut pending);
    assert_eq!(u64::from_le_bytes(pending), 1 << 9);
    assert_eq!(bench.delivered(), []);
    bench.write(0x42, &ENABLE_FUNCTION_MASKED);
    bench.unmask(9, 0x4a);
    assert_eq!(bench.delivered(), [], "the function is masked");
    bench.write(0x42, &ENABLE);
    assert_eq!(bench.delivered(), [irqfd(0x4a)]);
    bench.device.bar_read(0, 0x3000, &mut pending);
    assert_eq!(u64::from_le_bytes(pending), 0);
}

#[test]
fn msix_goes_off_and_on_again_with_its_table() {
    let bench = bench();
    bench.write(0x42, &ENABLE);
    bench.unmask(0, 0x40);
    bench.fd.take_calls();
    bench.write(0x42, &[0, 0]);
    let back_to_intx =
        [Call::Disable(IrqIndex::Msix), Call::Set(IrqIndex::Intx, 0, vec![true]), Call::UnmaskBy];
    assert_eq!(bench.fd.take_calls(), back_to_intx);
    bench.write(0x42, &ENABLE);
    assert!(bench.fd.fire(IrqIndex::Msix, 0));
    assert_eq!(bench.delivered(), [irqfd(0x40)]);
}

#[test]
fn intx_disable_switches_the_line_off() {
    let bench = bench();
    assert_eq!(bench.vm.irqfds(), [17]);
    bench.write(4, &0x0400u16.to_le_bytes());
    assert!(bench.vm.irqfds().is_empty());
    bench.write(4, &[0, 0]);
    assert_eq!(bench.vm.irqfds(), [17]);
}

#[test]
fn a_guest_made_reset_starts_everything_again() {
    let bench = bench();
    bench.write(0x10, &0xc000_0000u32.to_le_bytes());
    bench.write(4, &[6, 4]);
    bench.write(0x42, &ENABLE);
    bench.unmask(0, 0x40);
    bench.fd.take_calls();
    bench.write(0x68, &[0, 0x80]);
    assert_eq!(bench.fd.take_calls()[0], Call::Disable(IrqIndex::Msix));
    assert_eq!(
        (bench.fd.config(0x69), bench.fd.config(4)),
        (0x80, 3),
        "the reset reached the device, bus master is off"
    );
    assert_eq!((bench.config(0x10), bench.config(4) & 0xffff), (0xc, 0));
    assert_eq!((bench.config(0x40) >> 16, bench.guest_memory()), (64, vec![]));
    let mut control = [0; 4];
    bench.device.bar_read(0, 0x200c, &mut control);
    assert_eq!(control, [1, 0, 0, 0], "masked");
    // Linux restores these registers after a reset.
    bench.write(0x10, &0xc000_0000u32.to_le_bytes());
    bench.write(4, &[6, 4]);
    bench.write(0x42, &ENABLE);
    bench.unmask(0, 0x41);
    assert!(bench.fd.fire(IrqIndex::Msix, 0));
    assert_eq!(bench.delivered(), [irqfd(0x41)]);
}

/// A device with MSI (maskable, 64-bit, four vectors) at 0x50 and no MSI-X.
fn msi_only() -> Arc<FakeFd> {
    let fake = FakeFd::new([(0x1000, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)], [1, 4, 0], true)
        .with_config(0x06, &[0x10])
        .with_config(0x34, &[0x50])
        .with_config(0x50, &[0x05, 0x00, 0x84, 0x01]);
    Arc::new(fake)
}

#[test]
fn msi_is_armed_as_a_whole_masked_and_switched_off() {
    let bench = bench_of(msi_only());
    bench.fd.take_calls();
    bench.write(0x54, &0xfee0_0000u32.to_le_bytes());
    bench.write(0x5c, &0x4040u16.to_le_bytes());
    bench.write(0x52, &0x21u16.to_le_bytes());
    let calls = [Call::Disable(IrqIndex::Intx), Call::Set(IrqIndex::Msi, 0, vec![true; 4])];
    assert_eq!(bench.fd.take_calls(), calls);
    assert!(bench.fd.fire(IrqIndex::Msi, 2));
    assert_eq!(bench.delivered(), [irqfd(0x4042)]);
    bench.write(0x60, &[0b100]);
    assert!(bench.fd.fire(IrqIndex::Msi, 2));
    assert_eq!((bench.delivered(), bench.config(0x64)), (vec![], 0b100), "pending");
    bench.write(0x5c, &0x5050u16.to_le_bytes());
    bench.write(0x60, &[0]);
    assert_eq!(bench.delivered(), [irqfd(0x5052)]);
    bench.write(0x52, &[0x20, 0]);
    assert_eq!(bench.vm.irqfds(), [17], "back to INTx");
    bench.write(0x52, &[0x21, 0]);
    assert!(bench.fd.fire(IrqIndex::Msi, 0));
    assert_eq!(bench.delivered(), [irqfd(0x5050)], "and on again");
}

proptest! {
    /// A guest may store anything anywhere: nothing panics, and the kernel's rules on interrupts are kept (the fake refuses what
    /// the kernel would).
    #[test]
    fn any_guest_is_survived(
        msi in any::<bool>(),
        ops in prop::collection::vec((0u8..8, any::<u16>(), prop::collection::vec(any::<u8>(), 1..9)), 0..60),
    ) {
        let bench = bench_of(if msi { msi_only() } else { nvme(5, false) });
        for (kind, at, data) in ops {
            let config_data = &data[..data.len().min(4)];
            match kind {
                0..3 => bench.write(at % 0x100, config_data),
                3 => bench.write([0x42, 0x52, 4][usize::from(at) % 3], config_data),
                4 => bench.device.bar_write(0, 0x2000 + u64::from(at % 96), &data),
                5 => bench.device.bar_write((at % 6) as u8, u64::from(at), &data),
                6 => bench.device.bar_read(0, 0x1ff0 + u64::from(at % 0x1020), &mut data.clone()),
                _ => bench.device.config_read(at & 0xfff, &mut config_data.to_vec()),
            }
            bench.device.interrupts.poller().turn();
        }
    }
}
