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
        histogram: Some(vec![(31_623, 10), (33_982, 80), (42_170, 9), (1_000_000, 1)]),
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
const VOID: [&str; 3] = ["meta", "br", "line"];

/// Checks that in `page` every `<` begins a tag, tags are closed in order, and attributes are quoted. Returns the
/// attributes (element, name, value).
fn parse(page: &str) -> Vec<(String, String, String)> {
    let page = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    let (mut open, mut attributes) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        assert!(open.last() == Some(&"style") || !rest[..at].contains('>'), "a stray >: {}", &rest[..at]);
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
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("the style sheet has an end")..];
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
            ["http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "<iframe", "srcset"]
        {
            assert!(!page.contains(word), "{word}");
        }
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
    // Plots: floors by answer and by wait; fast-mmio; single rows (sync, QEMU); depth 32.
    assert_eq!(page.matches("<svg ").count(), 5);
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
    assert!(!page.contains("<svg") && !page.contains("Distributions</h2>"));
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
    assert!(!page.contains("<script"));
}
