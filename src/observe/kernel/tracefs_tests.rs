use super::*;

#[test]
fn hits_are_those_of_the_totals() {
    let text = "{ common_cpu:  1 } hitcount:  1\n{ common_cpu: 0 } hitcount: 4\n\nTotals:\n    Hits: 5\n    Entries: 2\n";
    assert_eq!(hits(text), Some(5));
    assert_eq!(hits(""), None);
}

#[test]
fn only_instances_of_ours_have_an_owner() {
    assert_eq!(owner("doorbell_4711_0"), Some(4711));
    assert_eq!((owner("perf_4711"), owner("doorbell_x")), (None, None));
}

#[test]
fn a_directory_that_is_not_tracefs_is_an_error_and_stays_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Session::at(dir.path()), Err(EvidenceError::Io { .. })));
    fs::create_dir(dir.path().join("instances")).unwrap();
    fs::write(dir.path().join("README"), "no such triggers").unwrap();
    assert!(matches!(Session::at(dir.path()), Err(EvidenceError::Lacks(_))));
    fs::write(dir.path().join("README"), "a hist trigger").unwrap();
    assert!(matches!(Session::at(dir.path()), Err(EvidenceError::Lacks(_))));
    assert_eq!(fs::read_dir(dir.path().join("instances")).unwrap().count(), 0);
}

#[test]
fn leftovers_of_a_killed_doorbell_are_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let instances = dir.path().join("instances");
    let (dead, alive) = ("doorbell_4194305_0", format!("doorbell_{}_9", std::process::id()));
    for name in [dead, &alive, "perf"] {
        fs::create_dir_all(instances.join(name)).unwrap();
    }
    // A plain file replaces the kernel's list: the appended lines are the requests to the kernel.
    let list = format!("p:{dead}/irqfd_wakeup irqfd_wakeup\np:kprobes/mine vfs_read\np:{alive}/x x\n");
    fs::write(dir.path().join("kprobe_events"), &list).unwrap();
    remove_leftovers(dir.path());
    assert!(
        !instances.join(dead).exists() && instances.join(&alive).exists() && instances.join("perf").exists()
    );
    let asked = fs::read_to_string(dir.path().join("kprobe_events")).unwrap();
    assert_eq!(asked, format!("{list}-:{dead}/irqfd_wakeup\n"));
}

#[test]
fn the_cleanup_of_a_killed_process_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let name = "doorbell_1_0".to_string();
    let instance = dir.path().join("instances").join(&name);
    fs::create_dir_all(&instance).unwrap();
    let list = format!("p:{name}/irqfd_wakeup irqfd_wakeup\np:kprobes/mine vfs_read\n");
    fs::write(dir.path().join("kprobe_events"), &list).unwrap();
    let session = Session { root: dir.path().into(), name: name.clone(), events: Vec::new(), cleanup: None };
    let mut cleanup = session.start_cleanup().unwrap();
    // As if killed: our drop does not run, and the pipe is closed.
    std::mem::forget(session);
    cleanup.wait().unwrap();
    assert!(!instance.exists());
    let asked = fs::read_to_string(dir.path().join("kprobe_events")).unwrap();
    assert_eq!(asked, format!("{list}-:{name}/irqfd_wakeup\n"));
}
