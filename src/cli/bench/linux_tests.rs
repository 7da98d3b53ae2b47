use clap::{CommandFactory, Parser};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: LinuxArgs,
    #[command(flatten)]
    common: Common,
}

/// What a command line asks for; the guest is a directory with two empty files.
fn bench(line: &str) -> Result<LinuxBench, String> {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vmlinux", "initrd"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let dir = dir.path().to_str().unwrap();
    let words = ["bench", "--guest-dir", dir].into_iter().chain(line.split_whitespace());
    let line = Line::try_parse_from(words).map_err(|e| e.to_string())?;
    line.args.bench(&line.common).map_err(|failure| failure.message)
}

#[test]
fn without_flags_both_completions_are_compared() {
    let bench = bench("").unwrap();
    let paths: Vec<_> = bench.schedule.paths.iter().map(ToString::to_string).collect();
    assert_eq!(paths, ["fast-mmio+irqfd", "fast-mmio+signal-msi", "fast-mmio+irqfd moderated"]);
    let jobs: Vec<_> = bench.schedule.jobs.iter().map(ToString::to_string).collect();
    assert_eq!(jobs.join(","), JOBS);
    assert_eq!((bench.schedule.rounds, bench.runtime_s, bench.block_size), (FULL.0, FULL.1, 4096));
}

#[test]
fn quick_is_a_default_that_other_flags_override() {
    let quick = bench("--quick --rounds 9").unwrap();
    assert_eq!((quick.schedule.rounds, quick.runtime_s, quick.schedule.jobs.len()), (9, QUICK.1, 2));
    let job = bench("--quick --jobs seq-rw-7 --runtime 0.5").unwrap();
    assert_eq!((job.schedule.jobs[0].to_string().as_str(), job.runtime_s), ("seq-rw-7", 0.5));
}

#[test]
fn every_job_is_run_at_every_depth() {
    let jobs = |line: &str| {
        let jobs =
            bench(line).map(|bench| bench.schedule.jobs.iter().map(ToString::to_string).collect::<Vec<_>>());
        jobs.map(|jobs| jobs.join(","))
    };
    assert_eq!(
        jobs("--depths 1,2,...,8 --jobs randread:bs=8k").unwrap(),
        "randread:1:bs=8k,randread:2:bs=8k,randread:4:bs=8k,randread:8:bs=8k"
    );
    assert_eq!(jobs("--depths 1,4").unwrap(), "randread:1,randread:4,randwrite:1,randwrite:4");
    assert_eq!(jobs("--depths 1,4 --vfio 01:00.0").unwrap(), "randread:1,randread:4");
    assert_eq!(parse_depths("1,2,...,128").unwrap().0, [1, 2, 4, 8, 16, 32, 64, 128]);
    assert_eq!(parse_depths("3,5,...,10").unwrap().0, [3, 5, 7, 9, 10]);
    assert!(
        jobs("--depths 1,...,8").is_err() && jobs("--depths 1,1").is_err() && jobs("--depths 0").is_err()
    );
    assert!(jobs("--depths 2,2,...,2").is_err());
    assert!(jobs("--depths 4 --jobs rand-read-1").unwrap_err().contains("rand-read-1 at depth 4"));
}

#[test]
fn a_job_file_is_run_as_it_is_and_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[global]\nioengine=libaio\nruntime=3\n[mix]\nrw=randrw\niodepth=4\n[seq]\nrw=read\n";
    std::fs::write(file.path(), text).unwrap();
    let with = |more: &str| bench(&format!("--fio {} {more}", file.path().display()));
    let bench = with("").unwrap();
    let jobs: Vec<_> = bench.schedule.jobs.iter().map(ToString::to_string).collect();
    assert_eq!((jobs.join(",").as_str(), bench.fio_file.as_deref()), ("mix,seq", Some(text)));
    assert!(bench.to_string().ends_with("as the job file says"), "{bench}");
    assert!(with("--vfio 01:00.0").unwrap_err().contains("mix would destroy"));
    assert!(with("--jobs randread").is_err() && with("--block-size 8k").is_err());
    std::fs::write(file.path(), "rw=read\n").unwrap();
    assert!(with("").unwrap_err().contains("line 1"));
}

#[test]
fn a_run_to_a_width_has_as_many_rounds_as_fit() {
    let bench = bench("--until 2% --max-time 10m").unwrap();
    assert_eq!((bench.pace.until, bench.pace.max_time.unwrap().as_secs()), (Some(0.02), 600));
    assert_eq!(bench.schedule.rounds, 208, "12 steps each");
}

#[test]
fn paths_are_completed_by_notify() {
    let bench = bench("--paths auto,exit+signal-msi,pio --notify mmio").unwrap();
    let paths: Vec<_> = bench.schedule.paths.iter().map(ToString::to_string).collect();
    assert_eq!(paths, ["mmio+auto", "exit+signal-msi", "pio+irqfd"]);
}

#[test]
fn a_passed_through_disk_is_compared_last_and_only_read_unless_told_otherwise() {
    let bench_of = |line: &str| {
        let bench = bench(line).unwrap();
        let last = bench.schedule.paths.last().unwrap().to_string();
        (last, bench.schedule.jobs.len(), bench.schedule.jobs.iter().all(FioJob::reads))
    };
    assert_eq!(bench_of("--vfio 01:00.0"), ("vfio 0000:01:00.0 irq=kernel".into(), 2, true));
    assert_eq!(
        bench_of("--vfio 01:00.0,irq=user --overwrite"),
        ("vfio 0000:01:00.0 irq=user".into(), 4, false)
    );
    let error = bench("--vfio 01:00.0 --jobs rand-read-1,rand-write-1").unwrap_err();
    assert_eq!(
        error,
        "rand-write-1 would destroy the data on 0000:01:00.0: leave that job out, or add --overwrite"
    );
}

#[test]
fn nonsense_is_refused_in_a_sentence() {
    let cases = [
        ("--paths irqf", "fast-mmio"),
        ("--jobs rand-read", "rand-read-32"),
        ("--jobs rand-read-1,rand-read-1", "twice"),
        ("--notify fastmmio", "did you mean fast-mmio?"),
        ("--backend uring", "io_uring"),
        ("--runtime 0", "0.1 to 3600"),
        ("--until 0", "2%"),
        ("--max-time soon", "10m"),
        ("--runtime nan", "0.1 to 3600"),
        ("--rounds 0", "1..=1000"),
        ("--block-size 700", "multiple of 512"),
        ("--size 0", "--size"),
        ("--memory 1M", "128M to 8G"),
        ("--direct", "--dir"),
        ("--overwrite", "--vfio"),
        ("--vfio nvme0", "not a PCI address"),
        ("--vfio 01:00.0 --vfio 0000:01:00.0,irq=user", "0000:01:00.0 twice"),
        ("--kernel /no/such", "guest-images/linux/build"),
        ("--progress loud", "lines"),
    ];
    for (line, wanted) in cases {
        let error = bench(line).unwrap_err();
        assert!(error.contains(wanted), "{line}: {error}");
    }
}

#[test]
fn the_script_that_passes_the_flags_on_names_them_all() {
    let script = include_str!("../../../scripts/bench");
    let help = script.split("\nEND\n").next().unwrap();
    let words: Vec<_> = help.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
    for flag in Line::command().get_arguments().filter_map(|arg| arg.get_long()) {
        assert!(words.contains(&format!("--{flag}").as_str()), "scripts/bench --help lacks --{flag}");
    }
}
