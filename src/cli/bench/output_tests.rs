use std::fs;

use super::*;
use crate::bench::{RunFacts, SCHEMA};

#[test]
fn both_files_are_written_and_standard_output_is_for_one_of_them() {
    let report = Report {
        schema: SCHEMA.into(),
        host: crate::host::HostFacts::here(),
        run: RunFacts::default(),
        rows: vec![],
    };
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("r.json"), dir.path().join("r.html"));
    let page = |report: &Report| format!("{} rows", report.rows.len());
    let output = Output::prepare(Some(json.clone()), Some(html.clone()), &mut FilesInUse::default());
    output.unwrap().write("", &report, page).unwrap();
    let back: Report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(back, report);
    assert_eq!(fs::read_to_string(&html).unwrap(), "0 rows");
    let twice = Output::prepare(Some("-".into()), Some("-".into()), &mut FilesInUse::default());
    assert_eq!(twice.unwrap_err().code, 2);
    let mut files = FilesInUse::default();
    files.input("--kernel", &json);
    assert_eq!(Output::prepare(Some(json), None, &mut files).unwrap_err().code, 2);
}
