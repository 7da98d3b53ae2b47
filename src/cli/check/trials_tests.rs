use super::*;
use crate::observe::kernel::Counted;

const INTEL: Claims = Claims { vendor: Some(Vendor::Intel), fast_mmio: true, posts: true };
const SOFTWARE: Claims = Claims { vendor: None, fast_mmio: false, posts: false };

fn counts(all: &[(&str, Option<u64>)]) -> Counts {
    let counted = |&(name, hits): &(&str, Option<u64>)| Counted {
        name: name.into(),
        hits,
        tracepoint: name.contains(':'),
        vendor: Vendor::of(name),
        absent: hits.is_none().then(|| "it is inlined".into()),
    };
    Counts { method: "test", counts: all.iter().map(counted).collect(), stacks: Vec::new() }
}

fn trial(claims: Claims, name: &str) -> Trial {
    trials(claims).into_iter().find(|trial| trial.name == name).unwrap()
}

#[test]
fn the_expected_counts_follow_from_the_features_of_the_host() {
    let fast = counts(&[("kvm:kvm_fast_mmio", Some(REQUESTS - 1)), ("ioeventfd_write", Some(REQUESTS))]);
    assert_eq!(judge(&trial(INTEL, "fast MMIO"), Ok(&fast)).0, Verdict::AsExpected);
    // A hit where none can be contradicts as well.
    let (verdict, found) = judge(&trial(SOFTWARE, "fast MMIO"), Ok(&fast));
    assert!(verdict == Verdict::Otherwise && found.contains("kvm_fast_mmio 199 (expected at most 0)"));
    let slow = counts(&[("kvm:kvm_fast_mmio", Some(0)), ("ioeventfd_write", Some(REQUESTS))]);
    assert_eq!(judge(&trial(INTEL, "fast MMIO"), Ok(&slow)).0, Verdict::Otherwise);
    assert_eq!(judge(&trial(SOFTWARE, "fast MMIO"), Ok(&slow)).0, Verdict::AsExpected);
}

#[test]
fn a_posted_completion_kicks_nobody() {
    let all = |kicks| {
        counts(&[
            ("irqfd_wakeup", Some(REQUESTS)),
            ("vmx_deliver_interrupt", Some(REQUESTS)),
            ("kvm:kvm_apicv_accept_irq", Some(REQUESTS)),
            ("kvm_vcpu_kick", Some(kicks)),
        ])
    };
    assert_eq!(judge(&trial(INTEL, "irqfd"), Ok(&all(3))).0, Verdict::AsExpected);
    assert_eq!(judge(&trial(INTEL, "irqfd"), Ok(&all(REQUESTS))).0, Verdict::Otherwise);
    assert_eq!(judge(&trial(INTEL, "halted vCPU"), Ok(&all(REQUESTS))).0, Verdict::AsExpected);
}

#[test]
fn a_missing_count_is_not_as_expected_and_says_why() {
    let (verdict, found) = judge(&trial(INTEL, "irqfd"), Err("run it as root"));
    assert_eq!((verdict, &*found), (Verdict::NotCounted, "run it as root"));
    let partly = counts(&[("kvm:kvm_fast_mmio", Some(REQUESTS)), ("ioeventfd_write", None)]);
    let (verdict, found) = judge(&trial(INTEL, "fast MMIO"), Ok(&partly));
    assert!(verdict == Verdict::NotCounted && found.contains("ioeventfd_write: it is inlined"), "{found}");
}

#[test]
fn each_trial_has_its_row_in_the_document() {
    // A cell may have links: "[masked](words.md#mask) [vectors](words.md#vector)".
    let plain = |cell: &str| -> String {
        let parts = cell.split('[').map(|part| {
            let (word, rest) = part.split_once("](").unwrap_or((part, ""));
            format!("{word}{}", rest.split_once(')').map_or("", |(_, rest)| rest))
        });
        parts.collect()
    };
    let text = include_str!("../../../docs/hardware.md");
    let rows: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).map(plain).collect();
    let by_hand = super::super::hardware::BY_HAND.into_iter().map(|(name, _)| name);
    for name in trials(INTEL).iter().map(|trial| trial.name).chain(by_hand) {
        assert!(rows.iter().any(|row| row == name), "{name} is not in {rows:?}");
    }
}
