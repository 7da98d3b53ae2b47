use super::*;
use crate::bench::testing::report;
use crate::host::InterruptLine;

/// A report of the probe: floors, two paths, a single backend, a reference VMM, and a row that could not be measured.
fn probe() -> Report {
    let mut report = report();
    let row = |job: &str, complete: &str| Row {
        guest: "probe".into(),
        job: job.into(),
        notify: Some("fast-mmio".into()),
        complete: Some(complete.into()),
        wait: Some("blocking".into()),
        backend: Some("null".into()),
        depth: Some(1),
        poll_us: Some(0),
        iops: Some(20_000.0),
        round_iops: vec![Some(19_000.0), Some(21_000.0)],
        p50_ns: Some(40_000),
        p99_ns: Some(900_000),
        floor_p50_ns: Some(35_000),
        floor_ratio: Some(40.0 / 35.0),
        histogram: Some(vec![(31_623, 1000), (33_982, 8000), (42_170, 900), (1_000_000, 100)]),
        ..Row::default()
    };
    report.rows = vec![
        Row { backend: None, floor_p50_ns: None, ..row(FLOOR, "irqfd") },
        Row { backend: None, wait: Some("memory-poll".into()), ..row(FLOOR, "irqfd") },
        row("read-512-1", "irqfd"),
        row("read-512-1", "signal-msi"),
        Row { backend: Some("sync".into()), ..row("read-512-1", "irqfd") },
        Row { peer: Some("qemu".into()), ..row("read-512-1", "irqfd") },
        Row { not_here: Some("no <io_uring> & co".into()), ..row("read-512-1", "irqfd") },
        Row { depth: Some(32), ..row("read-512-32", "irqfd") },
    ];
    report.run.first_instruction_ns = Some(18_000_000);
    report.run.host_interrupts = Some(vec![InterruptLine {
        label: "PIN".into(),
        count: 12,
        what: "Posted-interrupt notification event".into(),
    }]);
    report
}

/// Elements that are closed where they are opened.
const VOID: [&str; 4] = ["meta", "br", "line", "circle"];

/// Checks that in `page` every `<` begins a tag, tags are closed in order, and attributes are quoted. Returns the
/// attributes (element, name, value).
fn parse(page: &str) -> Vec<(String, String, String)> {
    let page = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    let (mut open, mut attributes) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        assert!(
            ["style", "script"].map(Some).contains(&open.last().copied()) || !rest[..at].contains('>'),
            "a stray >: {}",
            &rest[..at]
        );
        let end = at + rest[at..].find('>').expect("the tag has no end");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in another order");
            continue;
        }
        let closed = tag.ends_with('/');
        let tag = tag.trim_end_matches('/').trim_end();
        let (name, mut more) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "an odd element: {tag}");
        while let Some((key, value)) = more.trim_start().split_once("=\"") {
            let (value, after) = value.split_once('"').expect("a value has an end");
            attributes.push((name.to_string(), key.to_string(), value.to_string()));
            more = after;
        }
        assert_eq!(more.trim(), "", "an attribute without a value in {tag}");
        match closed {
            true => assert!(VOID.contains(&name) || name == "path", "{name} cannot be closed at once"),
            false => open.push(name),
        }
        if ["style", "script"].contains(&name) {
            rest = &rest[rest.find(&format!("</{name}>")).expect("it has an end")..];
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    attributes
}

#[test]
fn the_page_needs_nothing_else_and_parses() {
    for report in [probe(), report(), Report { rows: vec![], ..report() }] {
        let page = render_html(&report);
        for word in
            ["http:", "https:", "url(", "@import", "<link", "<img", "<iframe", "srcset", "fetch(", "import("]
        {
            assert!(!page.contains(word), "{word}");
        }
        assert_eq!(page.matches("<script").count(), 2, "the JSON, and what sorts");
        for (element, name, value) in parse(&page) {
            assert!(
                !["src", "href", "xlink:href", "data", "action"].contains(&name.as_str()),
                "{element} {name}={value}"
            );
            assert!(!name.starts_with("on"), "{element} {name}={value}");
            assert!(!value.contains("NaN") && !value.contains("inf"), "{element} {name}={value}");
        }
    }
}

#[test]
fn every_row_is_in_it_and_so_is_what_is_not_here() {
    let page = render_html(&probe());
    assert_eq!(page.matches("<div class=\"bar\">").count(), 2 + 4 + 1, "floors and depth 1, depth 32");
    // Distributions: floors by answer and by wait; fast-mmio; single rows (sync, QEMU); depth 32.
    assert_eq!(page.matches("aria-label=\"Distribution").count(), 5);
    assert_eq!(page.matches("aria-label=\"Latency by percentile").count(), 5);
    assert!(page.contains("no &lt;io_uring&gt; &amp; co") && !page.contains("<io_uring>"));
    assert!(page.contains("Posted-interrupt notification event") && page.contains("18 ms"));
    assert!(page.contains("2 rounds") || page.contains("3 rounds"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
}

#[test]
fn a_bar_stands_on_its_floor_and_is_cut_at_the_axis() {
    let page = render_html(&probe());
    let bar = page.lines().find(|line| line.contains("fast-mmio + signal-msi, null")).unwrap();
    // The axis goes to 50 us.
    assert!(bar.contains("class=\"fill k1\" style=\"width:80.00%\""), "{bar}");
    assert!(bar.contains("class=\"stand\" style=\"left:70.00%\""), "{bar}");
    assert!(bar.contains("whisker cut") && bar.contains("p99 900 \u{b5}s"), "{bar}");
}

#[test]
fn a_report_without_distributions_has_bars_and_tables_only() {
    let page = render_html(&report());
    assert!(!page.contains("Distributions</h2>") && !page.contains("Percentiles</h2>"));
    // Its rounds are there, and each that both rows have is a dot: the second was lost in one, and no IOPS are no ratio.
    assert_eq!(page.matches("<circle ").count(), 2 + 1);
    assert!(page.contains("rand-read-32") && page.contains("1 of 3 rounds were lost"));
}

#[test]
fn verdicts_come_first_and_nothing_else_names_a_winner() {
    let mut report = report();
    report.rows[1].verdict = Some("2.6 x slower (2.4 to 2.8)".into());
    let page = render_html(&report);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing"));
    let line = at("<li>fast-mmio + signal-msi, io_uring: 2.6 x slower (2.4 to 2.8)</li>");
    assert!(line < at("class=\"warn\"") && line < at("class=\"tiles\"") && line < at("Round trips</h2>"));
    // Tiles are of the rows that the others are compared with, fast or not.
    report.rows[1].p50_ns = Some(1);
    report.rows[3].iops = Some(1e9);
    let page = render_html(&report);
    let tiles: Vec<_> = page.lines().filter(|line| line.contains("class=\"tile\"")).collect();
    assert!(tiles.len() >= 2 && tiles.iter().all(|tile| !tile.contains("signal-msi")), "{tiles:?}");
    assert!(!page.contains("lowest") && !page.contains("most IOPS"));
}

#[test]
fn text_cannot_become_markup() {
    let mut report = probe();
    report.host.cpu = Some("</style><script>\"'&".into());
    report.rows[3].job = "<b>".into();
    report.rows[3].notify = Some("\" onclick=\"x".into());
    let page = render_html(&report);
    assert!(parse(&page).iter().all(|(_, name, _)| name != "onclick"));
    assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
    assert_eq!(embedded(&page), report);
}

/// The report inside the page.
fn embedded(page: &str) -> Report {
    let json = page.split("id=\"report\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_run_that_was_cut_or_disturbed_says_so_before_its_figures() {
    let mut report = report();
    report.run.incomplete = Some("ended by signal 2, after 2 of 3 rounds".into());
    report.run.steal_percent = Some(20.0);
    let page = render_html(&report);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing"));
    assert!(at("incomplete: ended by signal 2") < at("Round trips</h2>"));
    assert!(at("noisy: ") < at("Round trips</h2>"));
}

#[test]
fn where_time_goes_and_what_a_request_costs_is_shown_for_rows_that_know_it() {
    let mut report = probe();
    let page = render_html(&report);
    assert!(!page.contains("Kick, device, interrupt</h2>") && !page.contains("Per request</h2>"));
    let row = &mut report.rows[2];
    (row.kick_p50_ns, row.interrupt_p50_ns, row.requests) = (Some(10_000), Some(25_000), Some(100));
    (row.kicks_ioeventfd, row.exits, row.io_thread_cpu_ns_per_request) = (Some(50), Some(300), Some(1500.0));
    let page = render_html(&report);
    // 40 us in all; the axis goes to 40.
    assert!(page.contains("10 \u{b5}s | 5 \u{b5}s | 25 \u{b5}s"), "{page}");
    assert!(page.contains("style=\"left:25.00%;width:12.50%\""), "{page}");
    assert!(page.contains("--part:100.0%\">0.50</td>") && page.contains("1.50</td>"));
}

#[test]
fn a_job_at_three_depths_has_curves() {
    let mut report = report();
    let row = |depth: u64| Row {
        job: format!("randread:{depth}"),
        depth: Some(depth),
        iops: Some(100.0 * depth as f64),
        ..report.rows[0].clone()
    };
    report.rows = [1, 8, 64].map(row).to_vec();
    let page = render_html(&report);
    assert!(
        page.contains("<h2>Against depth</h2>\n<h3>randread</h3>") && page.contains(">64</text>"),
        "{page}"
    );
    report.rows.pop();
    assert!(!render_html(&report).contains("Against depth"));
}
