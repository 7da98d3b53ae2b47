use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> DiskConfig {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[track_caller]
fn says(text: &str, sentence: &str) {
    let error = text.parse::<DiskConfig>().expect_err("not refused").to_string();
    assert_eq!(error, sentence);
}

const LIST: &str = "its keys are path, vhost-user, readonly, backend, size, direct, block-size, delay, queues, queue-size, iothread, \
                    notify, complete, ring, event-idx, notification-data, moderate, serial";

#[test]
fn a_path_is_enough() {
    let disk = parse("path=/srv/disk.img");
    assert_eq!(
        disk,
        DiskConfig {
            options: DiskOptions {
                path: Some("/srv/disk.img".into()),
                readonly: false,
                kind: BackendKind::IoUring,
                size: None,
                direct: false,
                block_size: None,
                delay_us: 0,
            },
            queues: 1,
            queue_size: 256,
            iothread: IoThreadChoice::Auto,
            notify: NotifyPath::FastMmio,
            complete: CompletePath::Auto,
            packed: false,
            event_idx: true,
            notification_data: false,
            moderation: crate::dataplane::Moderation::Auto,
            vhost_user: None,
            serial: None,
        }
    );
}

#[test]
fn every_key_in_any_order() {
    let disk = parse(
        "serial=lab 1,ring=packed,event-idx=off,complete=signal-msi,notify=pio,iothread=3,queue-size=1024,queues=16,direct,\
         size=4G,backend=sync,readonly,path=a=b",
    );
    assert_eq!(disk.options.path, Some("a=b".into()));
    assert!(disk.options.readonly && disk.options.direct && !disk.event_idx && disk.packed);
    assert_eq!((disk.options.kind, disk.options.size), (BackendKind::Sync, Some(4 << 30)));
    assert_eq!((disk.queues, disk.queue_size), (16, 1024));
    assert_eq!(disk.iothread, IoThreadChoice::Index(3));
    assert_eq!((disk.notify, disk.complete), (NotifyPath::Pio, CompletePath::SignalMsi));
    assert_eq!(disk.serial.as_deref(), Some("lab 1"));
}

#[test]
fn a_delay_has_a_unit() {
    for (text, us) in [("80us", 80), ("2ms", 2000), ("1s", 1_000_000)] {
        assert_eq!(parse(&format!("backend=null,size=1G,delay={text}")).options.delay_us, us);
    }
}

#[test]
fn every_name_is_taken() {
    for (name, kind) in BackendKind::NAMES {
        assert_eq!(parse(&format!("path=f,backend={name}")).options.kind, kind);
        assert_eq!(kind.to_string(), name);
    }
    for (name, path) in NotifyPath::NAMES {
        assert_eq!(parse(&format!("path=f,notify={name}")).notify, path);
    }
    for (name, path) in CompletePath::NAMES {
        assert_eq!(parse(&format!("path=f,complete={name}")).complete, path);
    }
    assert_eq!(parse("path=f,iothread=none").iothread, IoThreadChoice::None);
    assert_eq!(parse("path=f,iothread=auto").iothread, IoThreadChoice::Auto);
    assert!(!parse("path=f,readonly=off").options.readonly);
    assert!(parse("path=f,readonly=on,event-idx=on").event_idx);
}

#[test]
fn commas_in_a_path_are_doubled() {
    let path = |text| parse(text).options.path.unwrap();
    assert_eq!(path("path=a,,b"), PathBuf::from("a,b"));
    assert_eq!(path("path=a,,,readonly"), PathBuf::from("a,"));
    assert_eq!(path("readonly,path=,,,,"), PathBuf::from(",,"));
}

#[test]
fn sizes() {
    let size = |text: &str| parse(&format!("backend=null,size={text}")).options.size.unwrap();
    assert_eq!(size("512"), 512);
    assert_eq!(size("64k"), 64 << 10);
    assert_eq!(size("512M"), 512 << 20);
    assert_eq!(size("4GiB"), 4 << 30);
    assert_eq!(size("1T"), 1 << 40);
    let allowed = "size is bytes, or a number with K, M, G or T";
    for bad in ["", "G", "-1", "1.5G", "1X", "0", "0M", "99999999999999T", "18446744073709551616", "１G"] {
        says(&format!("path=f,size={bad}"), &format!("--disk: size={bad} is not allowed; {allowed}"));
    }
}

#[test]
fn unknown_keys_name_the_known_ones() {
    says("path=f,reedonly", &format!("--disk has no key \"reedonly\" (did you mean readonly?); {LIST}"));
    says("file=f", &format!("--disk has no key \"file\" (did you mean path?); {LIST}"));
    says(
        "path=f,queue_size=4",
        &format!("--disk has no key \"queue_size\" (did you mean queue-size?); {LIST}"),
    );
    says("disk.img", &format!("--disk has no key \"disk.img\" (did you mean path=disk.img?); {LIST}"));
    says("path=f,", &format!("--disk has no key \"\"; {LIST}"));
    says("path=f,Direct", &format!("--disk has no key \"Direct\" (did you mean direct?); {LIST}"));
}

#[test]
fn unknown_values_name_the_known_ones() {
    says(
        "path=f,backend=iouring",
        "--disk: backend=iouring is not allowed (did you mean io_uring?); backend is one of io_uring, sync, null, mem",
    );
    says(
        "path=f,notify=fast_mmio",
        "--disk: notify=fast_mmio is not allowed (did you mean fast-mmio?); notify is one of fast-mmio, mmio, pio, exit",
    );
    says(
        "path=f,complete=msi",
        "--disk: complete=msi is not allowed; complete is one of auto, irqfd, signal-msi, irq-line, resample",
    );
    says("path=f,event-idx=yes", "--disk: event-idx=yes is not allowed; event-idx is one of on, off");
    says(
        "path=f,iothread=-1",
        "--disk: iothread=-1 is not allowed; iothread is the number of an I/O thread (from 0), auto or none",
    );
}

#[test]
fn numbers_out_of_range_name_the_range() {
    for bad in ["0", "17", "+1", "many", "65537"] {
        says(
            &format!("path=f,queues={bad}"),
            &format!("--disk: queues={bad} is not allowed; queues is a number from 1 to 16"),
        );
    }
    for bad in ["1", "3", "2048", "1000"] {
        says(
            &format!("path=f,queue-size={bad}"),
            &format!("--disk: queue-size={bad} is not allowed; queue-size is a power of two from 2 to 1024"),
        );
    }
    for bad in ["", "abcdefghijklmnopqrstu", "ä", "a\tb"] {
        says(
            &format!("path=f,serial={bad}"),
            &format!("--disk: serial={bad} is not allowed; serial is 1 to 20 printable ASCII characters"),
        );
    }
}

#[test]
fn missing_or_superfluous_parts_are_reported() {
    says("readonly", "--disk: backend=io_uring needs a file: give path=FILE");
    says("backend=mem", "--disk: backend=mem without a path needs a size: give size=, for example size=1G");
    says(
        "backend=null,size=1G,direct",
        "--disk: direct has no effect on backend=null, which reads no file: leave it out",
    );
    says("path=f,delay=80us", "--disk: delay is for backend=null, not for backend=io_uring: leave it out");
    for bad in ["", "80", "us", "0us", "1001ms", "2s", "70000us", "-1us"] {
        let allowed = "delay is 1us to 1s, for example 80us or 2ms";
        says(
            &format!("backend=null,size=1G,delay={bad}"),
            &format!("--disk: delay={bad} is not allowed; {allowed}"),
        );
    }
    says("path=f,path=g", "--disk has path twice: leave one out");
    says("path", "--disk: path needs a value: a file or a block device");
    says("path=", "--disk: path= is not allowed; path is a file or a block device");
    says("path=f,backend", "--disk: backend needs a value: one of io_uring, sync, null, mem");
}

proptest! {
    /// Any text is a disk or is refused in one sentence.
    #[test]
    fn any_text_is_a_disk_or_is_refused(text in ".{0,60}") {
        refused_in_one_sentence(&text)?;
    }

    /// The same with texts that are nearly right.
    #[test]
    fn nearly_right_texts_are_disks_or_refused(pairs in prop::collection::vec(
        ("(path|vhost-user|readonly|backend|size|direct|block-size|delay|queues|queue-size|iothread|notify|complete|ring|event-idx|\
          notification-data|moderate|serial|[a-z-]{0,6})", prop::option::of(
          "(a|/dev/null|io_uring|sync|null|mem|[0-9]{1,25}[KMGTus]{0,2}|auto|none|off|on|pio|exit|mmio|irqfd|resample|packed|split|[0-9]:[0-9]{1,3}|.{0,8})")),
        0..8,
    )) {
        let pair = |(key, value): &(String, Option<String>)| value.as_ref().map_or(key.clone(), |value| format!("{key}={value}"));
        refused_in_one_sentence(&pairs.iter().map(pair).collect::<Vec<_>>().join(","))?;
    }
}

fn refused_in_one_sentence(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<DiskConfig>() {
        Ok(disk) => {
            prop_assert!((1..=16).contains(&disk.queues) && disk.queue_size.is_power_of_two());
            prop_assert!(disk.options.block_size.is_none_or(|size| size == 512 || size == 4096));
        }
        Err(error) => prop_assert!(error.to_string().len() > 5),
    }
    Ok(())
}
