use super::*;

fn all(texts: &[&str]) -> Result<Vec<Peer>, String> {
    Peer::all(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
}

#[test]
fn a_name_may_bring_its_program() {
    for text in ["qemu", "qemu=/opt/a=b", "cloud-hypervisor=ch", "host"] {
        assert_eq!(text.parse::<PeerSpec>().unwrap().to_string(), text);
    }
    for wrong in ["", "kvmtool", "qemu=", "=x", "Qemu"] {
        assert!(wrong.parse::<PeerSpec>().unwrap_err().contains("cloud-hypervisor"), "{wrong}");
    }
}

#[test]
fn a_program_that_is_not_there_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmm");
    std::fs::write(&file, "").unwrap();
    let spec = format!("qemu={}", file.display());
    let error = all(&[&spec]).unwrap_err();
    assert_eq!(error, format!("--peer {spec}: it is not executable (chmod +x)"));
    assert!(all(&["qemu=/no/such"]).unwrap_err().ends_with("there is no such file"));
    assert!(all(&["qemu=/"]).unwrap_err().ends_with("it is not a file"));
    assert_eq!(
        all(&["host=/bin/sh", "host=/bin/sh"]).unwrap_err(),
        "--peer names host=/bin/sh twice; leave one out"
    );
}

#[test]
fn two_of_a_kind_are_named_with_their_files() {
    let names = |texts: &[&str]| all(texts).unwrap().into_iter().map(|peer| peer.name).collect::<Vec<_>>();
    assert_eq!(names(&["qemu=/bin/sh", "host=/bin/sh"]), ["qemu", "host"]);
    assert_eq!(names(&["qemu=/bin/sh", "qemu=/bin/cat"]), ["qemu=/bin/sh", "qemu=/bin/cat"]);
}

#[test]
fn rows_say_what_is_known_and_no_more() {
    let disk = Row { guest: "linux".into(), queues: Some(2), poll_us: Some(0), ..Row::default() };
    let rows: Vec<_> = all(&["qemu=/bin/sh", "cloud-hypervisor=/bin/sh", "host=/bin/sh"]).unwrap();
    let rows: Vec<_> = rows.iter().map(|peer| peer.row(&disk, BackendKind::Sync)).collect();
    let text = |row: &Row| (row.peer.clone().unwrap(), row.backend.clone().unwrap(), row.queues, row.poll_us);
    assert_eq!(text(&rows[0]), ("qemu".into(), "threads".into(), Some(2), Some(33)));
    assert_eq!(text(&rows[1]), ("cloud-hypervisor".into(), "sync".into(), Some(2), None));
    assert_eq!(text(&rows[2]), ("host".into(), "libaio".into(), None, None));
    assert!(rows.iter().all(|row| row.moderate.is_none() && row.guest == "linux"));
}
