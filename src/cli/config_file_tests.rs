use super::*;

/// A value that each flag takes.
const VALUES: [(&str, &[&str]); 18] = [
    ("kernel", &["a \"b\"\\c"]),
    ("initrd", &["initrd"]),
    ("guest-dir", &["42"]),
    ("fio", &["my.fio"]),
    ("cmdline", &["console=ttyS0 root=/dev/vda"]),
    ("cpus", &["3"]),
    ("memory", &["256M"]),
    ("hugepages", &["2M"]),
    ("console", &["file=log"]),
    ("disk", &["path=a,,b,readonly", "backend=mem,size=1G,complete=signal-msi"]),
    ("vfio", &["0000:01:00.0", "0000:02:00.0,irq=user"]),
    ("iothreads", &["2"]),
    ("poll-us", &["50"]),
    ("stats", &["stats.json"]),
    ("on-reset", &["restart"]),
    ("pin", &["vcpu0=2,iothread0=3"]),
    ("sandbox", &["log"]),
    ("control", &["/tmp/vm"]),
];
const MORE: [(&str, &[&str]); 5] = [
    ("append", &["quiet"]),
    ("cpu", &["passthrough"]),
    ("trace", &["trace.json"]),
    ("log", &["stderr"]),
    ("log-format", &["json"]),
];

/// Each flag alone as its words.
fn each_flag() -> Vec<Words> {
    let one = |flag: &Arg| {
        let name = long(flag);
        let mut values = VALUES.iter().chain(&MORE);
        let words = match values.find(|(known, _)| *known == name) {
            Some((_, values)) => values.iter().map(|value| format!("--{name}={value}").into()).collect(),
            None if is_switch(flag) => vec![format!("--{name}").into()],
            None => panic!("--{name} has no value here: add one, so that it is tested"),
        };
        Words::from([(name.to_string(), words)])
    };
    flags().iter().map(one).collect()
}

fn matches(words: &Words) -> ArgMatches {
    let line = std::iter::once(OsString::from("run")).chain(words.values().flatten().cloned());
    Line::command().try_get_matches_from(line).unwrap()
}

#[test]
fn every_flag_goes_into_a_file_and_out_of_it() {
    for words in each_flag() {
        assert_eq!(given_words(&matches(&words)), words);
        assert_eq!(words_of(&text_of(&words).unwrap()), Ok(words));
    }
    let mut all: Words = each_flag().into_iter().flatten().collect();
    all.remove("verbose"); // is another word for --log stderr
    let text = text_of(&all).unwrap();
    assert_eq!(words_of(&text), Ok(all), "{text}");
    // The defaults stand as comments, which say what leaving them out means.
    let text = text_of(&Words::new()).unwrap();
    assert!(text.contains("\n# cpus = 1\n") && text.contains("\n# memory = \"512M\"\n"), "{text}");
    let uncommented: String =
        text.lines().skip(1).map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let run = format!("{:?}", parsed(&words_of(&uncommented).unwrap()).unwrap());
    assert!(run.contains("memory: 536870912"), "{run}");
}

#[test]
fn a_disk_may_be_a_table_and_numbers_may_be_numbers() {
    let text = "memory = \"1G\"\ncpus = 2\nprefault = false\nevidence = true\n[[disk]]\npath = \"a,b\"\nqueues = 2\nreadonly = true\n";
    let words: Vec<_> = words_of(text).unwrap().into_values().flatten().collect();
    let wanted = ["--cpus=2", "--disk=path=a,,b,queues=2,readonly=on", "--evidence", "--memory=1G"];
    assert_eq!(words, wanted.map(OsString::from));
}

#[test]
fn a_mistake_is_told_with_its_line() {
    let cases = [
        ("cpus = 1\nmemroy = \"1G\"\n", "line 2: run has no flag --memroy (did you mean memory?)"),
        ("\n\ncpus = 17\n", "line 3: invalid value '17' for '--cpus <N>'"),
        ("cpus = 1\ncpus = 2\n", "line 2: duplicate key"),
        ("cpus = [1, 2]\n", "line 1: cpus takes a text or a number here"),
        ("\nprefault = \"yes\"\n", "line 2: prefault is true or false"),
        ("memory = \"1G\"\nkernel = \n", "line 2:"),
        ("[[disk]]\npath = \"x\"\ncomplete = \"irqfds\"\n", "irqfd"),
        ("config = \"other\"\n", "line 1: run has no flag --config"),
    ];
    for (text, wanted) in cases {
        let error = words_of(text).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn the_command_line_counts_before_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.toml");
    std::fs::write(&file, "cpus = 3\nmemory = \"1G\"\ndisk = [\"path=a\", \"path=b\"]\n").unwrap();
    let line = ["run", "--memory", "256M", "--disk", "path=c", "--config", file.to_str().unwrap()];
    let given = Line::command().try_get_matches_from(line).unwrap();
    let args = Line::try_parse_from(line).unwrap().run;
    let args = with_file(args, &given).unwrap().unwrap();
    let shown = format!("{args:?}");
    assert!(shown.contains("memory: 268435456") && shown.contains("cpus: 3"), "{shown}");
    assert!(shown.contains("\"c\"") && !shown.contains("\"a\""), "{shown}");
}
