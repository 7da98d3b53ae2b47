use proptest::prelude::*;

use super::*;
use crate::kvm::MsiMessage;
use crate::kvm::testing::{Delivery, FakeVm};
use crate::vfio::testing::device::{Call, FakeFd, nvme};

struct Bench {
    fd: Arc<FakeFd>,
    vm: Arc<FakeVm>,
    routes: Arc<Routes>,
    interrupts: VectorTable,
}

const MSIX: Wanted = Wanted::Msix(8);

fn bench(path: IrqPath, resizable: bool) -> Bench {
    bench_of(path, nvme(8, resizable))
}

fn bench_of(path: IrqPath, fd: Arc<FakeFd>) -> Bench {
    let vm = FakeVm::new();
    let routes = Arc::new(Routes::new(vm.clone(), 4096));
    let bdf = "00:03.0".parse().unwrap();
    let kvm: (Arc<dyn VmIoctls>, _) = (vm.clone(), routes.clone());
    let interrupts = VectorTable::new(bdf, fd.clone(), kvm, path, 17, EventfdPoller::new().unwrap());
    Bench { fd, vm, routes, interrupts }
}

fn message(data: u32) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000, data }
}

fn unmasked(data: u32) -> VectorState {
    VectorState { message: message(data), masked: false }
}

fn masked(data: u32) -> VectorState {
    VectorState { masked: true, ..unmasked(data) }
}

impl Bench {
    fn set(&self, n: usize, state: VectorState) {
        self.interrupts.reconcile(MSIX, &[(n, state)]);
    }

    fn fire(&self, n: u32) {
        assert!(self.fd.fire(IrqIndex::Msix, n), "nobody listens to vector {n}");
    }

    /// What reaches the guest after one turn of the VMM's thread.
    fn delivered(&self) -> Vec<Delivery> {
        self.interrupts.poller().turn();
        self.vm.take_deliveries()
    }
}

#[test]
fn vectors_are_armed_one_by_one_where_the_kernel_allows_it() {
    let bench = bench(IrqPath::Kernel, true);
    bench.interrupts.reconcile(MSIX, &[]);
    assert_eq!(
        bench.fd.take_calls(),
        [Call::Set(IrqIndex::Msix, 0, vec![false])],
        "on, as the device must see"
    );
    bench.set(3, unmasked(3));
    bench.set(1, unmasked(1));
    let sub_range = |n| Call::Set(IrqIndex::Msix, n, vec![true]);
    assert_eq!(bench.fd.take_calls(), [sub_range(3), sub_range(1)]);
}

#[test]
fn where_no_vectors_can_be_added_all_are_asked_for_at_once_with_holes() {
    let bench = bench(IrqPath::Kernel, false);
    bench.interrupts.reconcile(MSIX, &[(2, unmasked(2)), (3, unmasked(3))]);
    let mut first = vec![false; 8];
    first[2..4].fill(true);
    assert_eq!(bench.fd.take_calls(), [Call::Set(IrqIndex::Msix, 0, first)]);
    bench.set(7, unmasked(7));
    assert_eq!(bench.fd.take_calls(), [Call::Set(IrqIndex::Msix, 7, vec![true])]);
    bench.fire(7);
    assert_eq!(bench.delivered(), [Delivery::Irqfd(message(7))]);
}

#[test]
fn a_host_with_fewer_vectors_than_the_table_has_arms_those_that_it_has() {
    let fd = FakeFd::new([(0x4000, 0xc), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)], [1, 0, 8], false);
    let bench = bench_of(IrqPath::Kernel, Arc::new(fd.with_available(3)));
    bench.interrupts.reconcile(MSIX, &[(0, unmasked(0)), (2, unmasked(2)), (5, unmasked(5))]);
    assert_eq!(bench.fd.take_calls(), [Call::Set(IrqIndex::Msix, 0, vec![true, false, true])]);
    bench.fire(0);
    bench.fire(2);
    assert_eq!(bench.delivered(), [0, 2].map(|n| Delivery::Irqfd(message(n))));
    assert!(!bench.fd.fire(IrqIndex::Msix, 5), "the host has none for it");
}

#[test]
fn a_batch_is_one_route_commit_and_one_call_for_each_run_of_neighbours() {
    let bench = bench(IrqPath::Kernel, true);
    let all: Vec<_> = [0, 1, 2, 5, 6].map(|n| (n, unmasked(n as u32))).into();
    bench.interrupts.reconcile(MSIX, &all);
    let calls = [(0, 1), (1, 2), (5, 2)].map(|(n, len)| Call::Set(IrqIndex::Msix, n, vec![true; len]));
    assert_eq!(bench.fd.take_calls(), calls);
    assert_eq!(bench.vm.routing_calls(), 1);
    let function_mask: Vec<_> = all.iter().map(|&(n, s)| (n, VectorState { masked: true, ..s })).collect();
    bench.interrupts.reconcile(MSIX, &function_mask);
    assert_eq!(bench.fd.take_calls().len(), 2);
    bench.interrupts.reconcile(MSIX, &all);
    assert_eq!(bench.vm.routing_calls(), 1, "the same messages again commit nothing");
}

#[test]
fn an_interrupt_that_comes_while_masked_is_pending_and_delivered_once() {
    for path in [IrqPath::Kernel, IrqPath::User] {
        let bench = bench(path, true);
        bench.set(4, unmasked(4));
        bench.set(4, masked(4));
        assert_eq!(bench.interrupts.report()[0].signals, Signals::Vmm, "the second eventfd");
        assert!(!bench.interrupts.pending(4));
        bench.fire(4);
        assert!(bench.interrupts.pending(4), "before the VMM's thread has seen it");
        bench.fire(4);
        assert_eq!(bench.delivered(), []);
        bench.fire(4);
        assert!(bench.interrupts.pending(4) && !bench.interrupts.pending(3));
        // The table is rewritten while masked: the new message is sent.
        bench.set(4, unmasked(9));
        let got = bench.delivered();
        let expected = match path {
            IrqPath::Kernel => Delivery::Irqfd(message(9)),
            IrqPath::User => Delivery::SignalMsi(message(9)),
        };
        assert_eq!(got, [expected]);
        assert!(!bench.interrupts.pending(4));
        assert_eq!(bench.delivered(), []);
    }
}

#[test]
fn a_message_rewritten_while_unmasked_changes_the_route_and_nothing_else() {
    let bench = bench(IrqPath::Kernel, true);
    bench.set(0, unmasked(1));
    bench.fd.take_calls();
    bench.fire(0);
    bench.set(0, unmasked(2));
    bench.fire(0);
    assert_eq!(bench.delivered(), [Delivery::Irqfd(message(1)), Delivery::Irqfd(message(2))]);
    assert_eq!(bench.fd.take_calls(), [], "VFIO has nothing to do with it");
    assert_eq!(bench.interrupts.report()[0].through_vmm, 0);
}

#[test]
fn with_irq_user_the_vmm_reads_and_signals_and_no_irqfd_is_made() {
    let bench = bench(IrqPath::User, true);
    bench.set(0, unmasked(5));
    bench.fire(0);
    assert_eq!(bench.delivered(), [Delivery::SignalMsi(message(5))]);
    assert_eq!((bench.vm.irqfds(), bench.vm.routing_calls()), (vec![], 0));
    assert_eq!(bench.interrupts.report()[0].through_vmm, 1);
}

#[test]
fn kinds_follow_each_other_and_leave_nothing_behind() {
    let bench = bench(IrqPath::Kernel, true);
    bench.interrupts.reconcile(Wanted::Intx, &[]);
    assert_eq!(bench.fd.take_calls(), [Call::Set(IrqIndex::Intx, 0, vec![true]), Call::UnmaskBy]);
    assert_eq!(bench.vm.irqfds(), [17]);
    bench.set(0, unmasked(1));
    let calls = [Call::Disable(IrqIndex::Intx), Call::Set(IrqIndex::Msix, 0, vec![true])];
    assert_eq!((bench.fd.take_calls(), bench.vm.irqfds()), (calls.into(), vec![24]));
    bench.interrupts.reconcile(Wanted::Nothing, &[]);
    assert_eq!((bench.fd.take_calls(), bench.vm.irqfds()), (vec![Call::Disable(IrqIndex::Msix)], vec![]));
    assert_eq!(bench.routes.allocate().unwrap(), 24, "the GSI was given back");
    bench.interrupts.reconcile(Wanted::Nothing, &[]);
    assert_eq!(bench.fd.take_calls(), [], "nothing to do is nothing done");
}

#[test]
fn all_vectors_of_msi_are_armed_in_one_batch_masked_ones_too() {
    let vm = FakeVm::new();
    let fd = Arc::new(FakeFd::new([(0, 0); 6], [0, 4, 0], true));
    let routes = Arc::new(Routes::new(vm.clone(), 4096));
    let bdf = "00:03.0".parse().unwrap();
    let kvm: (Arc<dyn VmIoctls>, _) = (vm.clone(), routes);
    let interrupts =
        VectorTable::new(bdf, fd.clone(), kvm, IrqPath::Kernel, 17, EventfdPoller::new().unwrap());
    let states = [unmasked(0), unmasked(1), masked(2), unmasked(3)];
    interrupts.reconcile(Wanted::Msi(4), &states.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(fd.take_calls(), [Call::Set(IrqIndex::Msi, 0, vec![true; 4])]);
    assert!(fd.fire(IrqIndex::Msi, 2) && fd.fire(IrqIndex::Msi, 3));
    interrupts.poller().turn();
    assert_eq!(vm.take_deliveries(), [Delivery::Irqfd(message(3))]);
    assert!(interrupts.pending(2));
}

#[test]
fn intx_by_way_of_the_vmm_reaches_the_same_level_irqfd() {
    let bench = bench(IrqPath::User, true);
    bench.interrupts.reconcile(Wanted::Intx, &[]);
    assert!(bench.fd.fire(IrqIndex::Intx, 0));
    assert_eq!(bench.delivered(), [Delivery::Lost(17)], "the fake knows no route of a pin: it came there");
    assert_eq!(bench.interrupts.report()[0].through_vmm, 1);
}

#[test]
fn without_a_free_gsi_a_vector_goes_through_the_vmm() {
    let vm = FakeVm::new();
    let fd = nvme(8, true);
    let routes = Arc::new(Routes::new(vm.clone(), 41));
    let bdf = "00:03.0".parse().unwrap();
    let kvm: (Arc<dyn VmIoctls>, _) = (vm.clone(), routes);
    let interrupts =
        VectorTable::new(bdf, fd.clone(), kvm, IrqPath::Kernel, 17, EventfdPoller::new().unwrap());
    interrupts.reconcile(MSIX, &[(0, unmasked(1)), (1, unmasked(2))]);
    let bound: Vec<_> = interrupts.report().iter().map(|r| r.signals).collect();
    assert_eq!(bound, [Signals::Kernel, Signals::Vmm]);
    assert!(fd.fire(IrqIndex::Msix, 1));
    interrupts.poller().turn();
    assert_eq!(vm.take_deliveries(), [Delivery::SignalMsi(message(2))]);
}

#[derive(Clone, Debug)]
enum Op {
    State(usize, bool, u32),
    Fire(u32),
    Turn,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..4, any::<bool>(), 0u32..3).prop_map(|(n, masked, data)| Op::State(n, masked, data)),
        4 => (0u32..4).prop_map(Op::Fire),
        1 => Just(Op::Turn),
    ]
}

proptest! {
    /// Whatever the order of masking, rewriting, firing and the VMM's thread: a vector that fired after its last delivery is
    /// pending or gets delivered, and one that did not is not.
    #[test]
    fn nothing_is_lost_and_nothing_is_made_up(user in any::<bool>(), ops in prop::collection::vec(op(), 1..60)) {
        let bench = bench(if user { IrqPath::User } else { IrqPath::Kernel }, true);
        for n in 0..4 {
            bench.set(n, unmasked(n as u32 * 16));
        }
        let mut fired = [0usize; 4];
        let mut got = [0usize; 4];
        let mut owed = [false; 4];
        let take = |got: &mut [usize; 4], owed: &mut [bool; 4]| {
            for delivery in bench.vm.take_deliveries() {
                let (Delivery::Irqfd(m) | Delivery::SignalMsi(m)) = delivery else { panic!("{delivery:?}") };
                let n = m.data as usize / 16;
                got[n] += 1;
                owed[n] = false;
            }
        };
        for op in ops {
            match op {
                Op::State(n, true, data) => bench.set(n, masked(n as u32 * 16 + data)),
                Op::State(n, false, data) => bench.set(n, unmasked(n as u32 * 16 + data)),
                Op::Fire(n) => {
                    take(&mut got, &mut owed);
                    bench.fire(n);
                    fired[n as usize] += 1;
                    owed[n as usize] = true;
                }
                Op::Turn => bench.interrupts.poller().turn(),
            }
            take(&mut got, &mut owed);
            for (n, owed) in owed.iter().enumerate() {
                prop_assert!(!bench.interrupts.pending(n) || *owed, "vector {n} pending without cause");
            }
        }
        for n in 0..4 {
            bench.set(n, unmasked(n as u32 * 16));
        }
        bench.interrupts.poller().turn();
        take(&mut got, &mut owed);
        prop_assert_eq!(owed, [false; 4]);
        for n in 0..4 {
            prop_assert!(got[n] <= fired[n]);
        }
    }
}
