use super::*;
use crate::bench::{RunFacts, SCHEMA};

fn report() -> Report {
    Report {
        schema: SCHEMA.into(),
        host: crate::host::HostFacts::here(),
        run: RunFacts::default(),
        rows: vec![],
    }
}

fn json(path: PathBuf) -> Result<Output, Failure> {
    Output::prepare(Some(path), None)
}

#[test]
fn an_old_result_stays_until_there_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    fs::write(&path, "old").unwrap();
    drop(json(path.clone()).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    json(path.clone()).unwrap().write("", &report(), |_| String::new()).unwrap();
    let back: Report = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(back, report());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_written_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("no/such/r.json")] {
        let failure = json(path).unwrap_err();
        assert!(failure.code == 4 && failure.message.contains("--json"), "{failure:?}");
    }
}

#[test]
fn a_device_is_written_to_not_replaced() {
    json("/dev/null".into()).unwrap().write("", &report(), |_| String::new()).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn the_page_is_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.html");
    let page = |report: &Report| format!("{} rows", report.rows.len());
    Output::prepare(None, Some(path.clone())).unwrap().write("", &report(), page).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0 rows");
    let failure = Output::prepare(None, Some(dir.path().join("no/such"))).unwrap_err();
    assert!(failure.code == 4 && failure.message.contains("--html"), "{failure:?}");
    assert_eq!(Output::prepare(None, Some("-".into())).unwrap_err().code, 2);
}
