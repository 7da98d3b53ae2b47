use super::*;
use crate::kvm::testing::FakeVm;

fn message(data: u32) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000, data }
}

#[test]
fn legacy_gsis_keep_their_pic_and_ioapic_pins_in_every_commit() {
    let vm = FakeVm::new();
    let routes = Routes::new(vm.clone(), 4096);
    let gsi = routes.allocate().unwrap();
    routes.set(gsi, message(0x41));
    routes.commit().unwrap();
    let table = vm.routing();
    assert_eq!(table.len(), 16 + 24 + 1);
    assert_eq!(table.iter().filter(|e| e.gsi == 4).count(), 2, "PIC and IOAPIC");
    assert_eq!(table.iter().filter(|e| e.gsi == 20).count(), 1, "IOAPIC only");
}

#[test]
fn many_changes_are_one_ioctl_and_no_change_is_none() {
    let vm = FakeVm::new();
    let routes = Routes::new(vm.clone(), 4096);
    for data in 0..8 {
        let gsi = routes.allocate().unwrap();
        routes.set(gsi, message(data));
    }
    assert_eq!(vm.routing_calls(), 0);
    routes.commit().unwrap();
    assert_eq!(vm.routing_calls(), 1);
    routes.set(FIRST_MSI_GSI, message(0));
    routes.commit().unwrap();
    assert_eq!(vm.routing_calls(), 1, "an unchanged entry commits nothing");
    routes.set(FIRST_MSI_GSI, message(99));
    routes.commit().unwrap();
    assert_eq!(vm.routing_calls(), 2);
}

#[test]
fn released_gsis_are_used_again_and_a_full_table_says_so() {
    let routes = Routes::new(FakeVm::new(), 43);
    let taken: Vec<_> = (0..3).map(|_| routes.allocate().unwrap()).collect();
    assert_eq!(taken, [24, 25, 26]);
    assert!(matches!(routes.allocate(), Err(KvmError::NoFreeGsi { limit: 43 })));
    routes.release(25);
    assert_eq!(routes.allocate().unwrap(), 25);
}
