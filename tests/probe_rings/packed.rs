//! The same with packed rings (virtio 1.2, 2.8).

use super::*;

/// Every path of messages with packed rings, as above with split ones: depths, masks and moves, holds, EVENT_IDX or flags, direct
/// and indirect chains, a ring of no power of two.
#[test]
fn packed_rings_lose_and_double_nothing() {
    if !usable_kvm() {
        return;
    }
    let run = |disk: &str, orders: &str, blocks, n| {
        let disk = format!("backend=mem,size=64M,ring=packed,{disk}");
        let lines = doorbell(&disk, 1, &format!("packed=1 op=verify requests={n} {orders}"));
        assert!(is_packed(&lines), "{disk}");
        assert_blocks(&format!("{disk} {orders}"), &lines, blocks, n);
    };
    for complete in MESSAGES {
        for notify in NOTIFY {
            let disk = format!("backend=mem,size=64M,ring=packed,notify={notify},complete={complete}");
            assert_pair(&disk, requests() / 10, "packed=1 op=verify");
        }
        let disk = format!("complete={complete}");
        run(&disk, "depth=1,7,64 event_idx=0", 3, 1000);
        run(&disk, "depth=1,7,30 queue_size=100 indirect_desc=0", 3, 1000);
        run(&disk, "depth=1,16 mask_every=5 hold_us=60 route_every=3 vector2=0x90", 2, 1000);
        run(&disk, "depth=1,16 wait=halt,poll", 4, 1000);
        run(&disk, "depth=1,8 reset_queue=1 rounds=2", 4, 1000);
    }
    for moderate in ["auto", "off", "4:200", "64:50"] {
        let disk = format!("complete=irqfd,moderate={moderate}");
        run(&disk, "one_by_one=1 depth=1,7,64,256", 4, 1000);
        run(&disk, "one_by_one=1 event_idx=0 depth=1,64", 2, 1000);
        run(&disk, "one_by_one=1 depth=1,16 mask_every=5 hold_us=60 route_every=3 vector2=0x90", 2, 1000);
    }
    run("notify=pio,notification-data=on", "depth=1,16", 2, 1000);
    run("complete=resample", "irq=intx depth=1,16", 2, 1000);
}

/// A driver that does not accept the feature uses split rings; one that accepts what is not offered has none either.
#[test]
fn packed_rings_are_the_drivers_choice() {
    if !usable_kvm() {
        return;
    }
    for (ring, packed) in [("packed", 0), ("split", 1)] {
        let disk = format!("backend=mem,size=64M,ring={ring}");
        let lines = doorbell(&disk, 1, &format!("packed={packed} op=verify depth=1,7 requests=1000"));
        assert!(!is_packed(&lines), "{disk}");
        assert_blocks(&disk, &lines, 2, 1000);
    }
}
