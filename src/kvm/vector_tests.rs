use std::sync::Arc;

use super::*;
use crate::kvm::testing::{Delivery, FakeVm};

fn unmasked(data: u32) -> VectorState {
    VectorState { message: MsiMessage { address: 0xfee0_0000, data }, masked: false }
}

fn masked(data: u32) -> VectorState {
    VectorState { masked: true, ..unmasked(data) }
}

fn vector(via_irqfd: bool) -> (Arc<FakeVm>, Arc<Routes>, Vector) {
    let vm = FakeVm::new();
    let routes = Arc::new(Routes::new(vm.clone(), 4096));
    let vector = Vector::new(vm.clone(), routes.clone(), via_irqfd).unwrap();
    (vm, routes, vector)
}

fn set(vector: &Vector, state: VectorState) {
    Vector::apply(&[(vector, state)]).unwrap();
}

#[test]
fn a_vector_takes_its_gsi_at_first_unmask_and_gives_it_back_at_reset() {
    let (vm, routes, vector) = vector(true);
    set(&vector, masked(1));
    assert_eq!((vm.irqfds(), vm.routing_calls()), (vec![], 0));
    set(&vector, unmasked(1));
    assert_eq!(vm.irqfds(), [24]);
    vector.reset();
    assert!(vm.irqfds().is_empty());
    assert_eq!(routes.allocate().unwrap(), 24);
}

#[test]
fn signalled_while_masked_is_pending_and_delivered_once_at_unmask_with_the_new_message() {
    let (vm, _, vector) = vector(true);
    set(&vector, unmasked(1));
    set(&vector, masked(1));
    vector.signal_irqfd();
    vector.signal_irqfd();
    assert_eq!(vector.signal_msi(), Signalled::Pending);
    assert!(vector.pending());
    assert!(vector.pending(), "reading the pending bit must not consume it");
    assert_eq!(vm.take_deliveries(), []);
    set(&vector, unmasked(2));
    assert_eq!(vm.take_deliveries(), [Delivery::Irqfd(unmasked(2).message)]);
    assert!(!vector.pending());
}

#[test]
fn without_irqfd_the_pending_bit_becomes_one_message_at_unmask() {
    let (vm, _, vector) = vector(false);
    set(&vector, masked(7));
    assert_eq!(vector.signal_msi(), Signalled::Pending);
    assert_eq!(vector.signal_msi(), Signalled::Pending);
    set(&vector, unmasked(7));
    assert_eq!(vm.take_deliveries(), [Delivery::SignalMsi(unmasked(7).message)]);
    assert_eq!((vm.irqfds(), vm.routing_calls()), (vec![], 0), "no GSI, no route");
}

#[test]
fn a_message_changed_while_unmasked_is_one_commit_and_loses_nothing() {
    let (vm, _, vector) = vector(true);
    set(&vector, unmasked(1));
    vector.signal_irqfd();
    set(&vector, unmasked(2));
    vector.signal_irqfd();
    let got = vm.take_deliveries();
    assert_eq!(got, [Delivery::Irqfd(unmasked(1).message), Delivery::Irqfd(unmasked(2).message)]);
    assert_eq!(vm.routing_calls(), 2);
    set(&vector, masked(2));
    set(&vector, unmasked(2));
    assert_eq!(vm.routing_calls(), 2, "mask and unmask with the same message commit nothing");
}

#[test]
fn a_batch_of_vectors_is_one_commit() {
    let vm = FakeVm::new();
    let routes = Arc::new(Routes::new(vm.clone(), 4096));
    let vectors: Vec<_> = (0..8).map(|_| Vector::new(vm.clone(), routes.clone(), true).unwrap()).collect();
    let changes: Vec<_> = vectors.iter().zip(0..).map(|(v, n)| (v, unmasked(n))).collect();
    Vector::apply(&changes).unwrap();
    assert_eq!((vm.routing_calls(), vm.irqfds().len()), (1, 8));
}

#[test]
fn a_full_table_falls_back_to_messages() {
    let vm = FakeVm::new();
    let routes = Arc::new(Routes::new(vm.clone(), 40));
    let vector = Vector::new(vm.clone(), routes, true).unwrap();
    assert!(Vector::apply(&[(&vector, unmasked(1))]).is_err());
    assert!(!vector.via_irqfd());
    assert_eq!(vector.signal_msi(), Signalled::Delivered);
}

#[test]
fn irqfd_can_be_enabled_on_a_live_vector() {
    let (vm, _, vector) = vector(false);
    set(&vector, unmasked(3));
    vector.enable_irqfd().unwrap();
    vector.signal_irqfd();
    assert_eq!(vm.take_deliveries(), [Delivery::Irqfd(unmasked(3).message)]);
}
