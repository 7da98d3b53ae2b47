use super::*;
use crate::vfio::testing::device::{FakeFd, nvme};

fn read32(config: &PassthroughConfig, fd: &FakeFd, at: u16) -> u32 {
    let mut data = [0; 4];
    config.read(fd, at, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_guest_sees_the_identity_and_only_capabilities_that_it_may_drive() {
    let fd = nvme(65, true);
    let config = PassthroughConfig::new(&*fd, true);
    assert_eq!(read32(&config, &fd, 0), 0x0010_1b36);
    let mut header = [0];
    config.read(&*fd, 0x0e, &mut header);
    assert_eq!(header, [0], "the multi-function bit is the host's slot's");
    let seen = capabilities(|at| {
        let mut byte = [0];
        config.read(&*fd, at.into(), &mut byte);
        byte[0]
    });
    assert_eq!(seen, [(0x11, 0x40), (0x10, 0x60)], "no VPD");
    assert_eq!(read32(&config, &fd, 0x50), 0);
    let (at, vectors, table, pba) = config.places.msix.unwrap();
    assert_eq!((at, vectors), (0x40, 65));
    assert_eq!((table, pba), (BarOffset { bar: 0, offset: 0x2000 }, BarOffset { bar: 0, offset: 0x3000 }));
    assert_eq!(
        read32(&config, &fd, 0x60) >> 20 & 0xf,
        9,
        "an integrated endpoint, because there is no port above"
    );
}

#[test]
fn bus_mastering_reaches_the_device_and_decoding_stays_on() {
    let fd = nvme(4, true);
    let mut config = PassthroughConfig::new(&*fd, true);
    config.write(&*fd, 4, &0x0406u16.to_le_bytes());
    config.push_command(&*fd);
    assert_eq!(fd.config(4), 0b111);
    assert!(config.intx_disabled());
    config.write(&*fd, 4, &[0, 0]);
    config.push_command(&*fd);
    assert_eq!((fd.config(4), fd.config(5)), (0b011, 0));
    assert_eq!(read32(&config, &fd, 4) & 0xffff, 0);
}

#[test]
fn writes_reach_the_device_only_where_the_table_says() {
    let fd = nvme(4, true);
    let mut config = PassthroughConfig::new(&*fd, true);
    for at in (0..0x1000u16).step_by(4) {
        config.write(&*fd, at, &[0xff; 4]);
    }
    let touched: Vec<_> = (0..4096).filter(|&at| fd.config(at) == 0xff).collect();
    assert_eq!(touched, [6, 7, 0x68, 0x69, 0x6a, 0x6b], "status, device control and device status");
    assert_eq!(fd.config(0x42), 3, "MSI-X control is not the guest's");
}

#[test]
fn both_kinds_of_function_level_reset_are_seen() {
    let config = PassthroughConfig::new(&*nvme(4, true), true);
    assert!(config.starts_reset(0x68, &[0, 0x80]));
    assert!(config.starts_reset(0x69, &[0x80]));
    assert!(!config.starts_reset(0x68, &[0x80, 0]));
    let fd = FakeFd::new([(0, 0); 6], [0; 3], true)
        .with_config(0x06, &[0x10])
        .with_config(0x34, &[0x70])
        .with_config(0x70, &[0x13, 0, 6, 3]);
    let config = PassthroughConfig::new(&fd, false);
    assert!(config.starts_reset(0x74, &[1]));
    assert!(!config.starts_reset(0x74, &[2]));
}

#[test]
fn extended_capabilities_are_a_chain_past_the_hidden_ones() {
    // AER at 0x100, SR-IOV at 0x140, serial number at 0x180, ATS at 0x1a0.
    let word = |id: u32, next: u32| (id | 1 << 16 | next << 20).to_le_bytes();
    let fd = FakeFd::new([(0, 0); 6], [0; 3], true)
        .with_config(0x100, &word(1, 0x140))
        .with_config(0x140, &word(0x10, 0x180))
        .with_config(0x180, &word(3, 0x1a0))
        .with_config(0x184, &[1, 2, 3, 4, 5, 6, 7, 8])
        .with_config(0x1a0, &word(0xf, 0x100));
    let config = PassthroughConfig::new(&fd, false);
    assert_eq!(read32(&config, &fd, 0x100), 0x180 << 20, "a null capability that leads on");
    assert_eq!(read32(&config, &fd, 0x180), 0x0001_0003);
    assert_eq!(read32(&config, &fd, 0x184), 0x0403_0201);
    assert_eq!((read32(&config, &fd, 0x140), read32(&config, &fd, 0x1a0)), (0, 0));
}

#[test]
fn a_device_without_extended_space_or_with_a_capability_out_of_bounds_is_shown_as_far_as_it_is_sane() {
    let fd = FakeFd::new([(0, 0); 6], [0; 3], true)
        .with_config(0x06, &[0x10])
        .with_config(0x34, &[0xfc])
        .with_config(0xfc, &[0x10, 0xfc, 2, 0]);
    let config = PassthroughConfig::new(&fd, false);
    assert_eq!(read32(&config, &fd, 0x34), 0);
    assert_eq!(read32(&config, &fd, 0x100), 0);
    let mut beyond = [1; 4];
    config.read(&fd, 4094, &mut beyond);
    assert_eq!(beyond, [0; 4]);
}
