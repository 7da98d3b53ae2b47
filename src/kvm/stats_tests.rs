use super::*;

/// Returns a statistics file in the kernel's layout: header, id, descriptors, data.
fn file(descriptors: &[(&str, u32, u16, u32)]) -> Vec<u8> {
    let (name_len, desc_at) = (16, 24 + 16);
    let data_at = desc_at + descriptors.len() * (16 + name_len);
    let header = [0, name_len as u32, descriptors.len() as u32, 24, desc_at as u32, data_at as u32];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.resize(desc_at, 0);
    for &(name, kind, values, offset) in descriptors {
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0i16.to_ne_bytes());
        bytes.extend(values.to_ne_bytes());
        bytes.extend(offset.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        let end = bytes.len() + name_len;
        bytes.extend(name.bytes());
        bytes.resize(end, 0);
    }
    bytes
}

fn fields(bytes: &[u8]) -> io::Result<Vec<Field>> {
    describe(|buffer, at| {
        let from = bytes.get(at as usize..).and_then(|b| b.get(..buffer.len()));
        from.map(|b| buffer.copy_from_slice(b)).ok_or(io::ErrorKind::UnexpectedEof.into())
    })
}

#[test]
fn descriptors_are_found_by_name_and_histograms_left_out() {
    let bytes = file(&[("exits", 0, 1, 0), ("halt_poll_hist", 4, 32, 8), ("blocking", 1, 1, 264)]);
    let found = fields(&bytes).unwrap();
    let names: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.kind)).collect();
    assert_eq!(names, [("exits", Kind::Cumulative), ("blocking", Kind::Level)]);
    assert_eq!(found[1].at - found[0].at, 264);
}

#[test]
fn a_layout_beyond_belief_is_an_error() {
    let mut bytes = file(&[]);
    bytes[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(fields(&bytes).is_err());
    assert!(fields(&[]).is_err());
}

fn snapshot(values: &[(&str, u64)], levels: &[&str]) -> StatsSnapshot {
    StatsSnapshot {
        values: values.iter().map(|&(name, value)| (name.into(), value)).collect(),
        levels: levels.iter().map(|&l| l.into()).collect(),
    }
}

#[test]
fn differences_are_of_counters_and_not_of_levels() {
    let before = snapshot(&[("exits", 10), ("blocking", 1)], &["blocking"]);
    let after = snapshot(&[("exits", 25), ("blocking", 1)], &["blocking"]);
    let mut delta = after.since(&before);
    assert_eq!((delta.get("exits"), delta.get("blocking"), delta.get("absent")), (Some(15), Some(1), None));
    delta.add(&after);
    assert_eq!(delta.get("exits"), Some(40));
}

#[test]
fn the_kernel_s_own_are_read() {
    let Ok(kvm) = kvm_ioctls::Kvm::new() else { return eprintln!("skipped: no usable /dev/kvm") };
    let vm = kvm.create_vm().unwrap();
    let Some(stats) = KvmStats::of(&vm).unwrap() else { return eprintln!("skipped: no KVM_GET_STATS_FD") };
    assert!(stats.read().unwrap().iter().count() > 0);
    let vcpu = vm.create_vcpu(0).unwrap();
    let stats = KvmStats::of(&vcpu).unwrap().unwrap();
    assert_eq!(stats.read().unwrap().get("exits"), Some(0));
}
