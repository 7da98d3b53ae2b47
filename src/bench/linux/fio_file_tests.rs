use super::*;

const FILE: &str = "\
; four kinds
[global]
ioengine=libaio
filename=/dev/nvme0n1
direct=1
runtime=2m
time_based

[mixed sizes]
rw=randread
bssplit=4k/50:64k/50
iodepth=16
[global]
ramp_time=500ms
[mixed directions]
readwrite=randrw:2
rwmixread=70
numjobs=4
iodepth=2
filename=/dev/sdb:/dev/sdc
[checked]
rw=randwrite
verify=crc32c
runtime=
size=16m
[plain]
ioengine=psync
iodepth=32
";

#[test]
fn each_section_is_a_job_with_the_global_options_before_it() {
    let all = sections(FILE).unwrap();
    let names: Vec<_> = all.iter().map(Section::name).collect();
    assert_eq!(names, ["mixed sizes", "mixed directions", "checked", "plain"]);
    assert_eq!(
        all[0].file(),
        "[global]\nfilename=${DISK}\nlat_percentiles=1\nclat_percentiles=0\n[global]\nioengine=libaio\ndirect=1\n\
         runtime=2m\ntime_based\n[mixed sizes]\nrw=randread\nbssplit=4k/50:64k/50\niodepth=16\n"
    );
    let second = all[1].file();
    assert!(
        second.contains("\nramp_time=500ms\n[mixed directions]\n") && !second.contains("/dev/"),
        "{second}"
    );
    let facts: Vec<_> =
        all.iter().map(|s| (s.in_flight(), s.reads(), s.reads_back(), s.seconds(1.0))).collect();
    assert_eq!(
        facts,
        [
            (Some(16), true, false, Some(120.0)),
            (Some(8), false, false, Some(120.5)),
            (None, false, true, None),
            (Some(1), true, false, Some(120.5)),
        ]
    );
}

#[test]
fn the_runtime_of_the_environment_is_known() {
    let all = sections("[global]\nruntime=${RUNTIME}\n[a]\n[b]\nruntime=${OTHER}\n").unwrap();
    assert_eq!((all[0].seconds(2.5), all[1].seconds(2.5)), (Some(2.5), None));
}

#[test]
fn an_invalid_job_is_refused_with_its_line() {
    let error = |text| sections(text).unwrap_err().to_string();
    assert!(error("; nothing\n[global]\nrw=read\n").contains("no section"));
    assert_eq!(error("rw=read\n[a]\n"), "line 1 stands before the first section");
    assert!(error("[a]\n[b]\n[a]\n").contains("[a]"));
    assert_eq!(
        error("[a]\nrw=read\ndirectory=/tmp\n"),
        "line 3: directory cannot be used: the disk under test is not a directory"
    );
    assert!(error("[a]\ninclude other.fio\n").contains("line 2"));
}
