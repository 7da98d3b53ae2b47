//! Signs that other programs disturbed the run, so that a reader knows how far to trust the figures.

use super::{Report, Row};

/// Tasks per CPU that others kept busy before the run.
const LOAD_PER_CPU: f64 = 0.5;
/// Percent of CPU time that a hypervisor took.
const STEAL: f64 = 1.0;
/// Coefficient of variation of a typical row's rounds.
const SPREAD: f64 = 0.15;

/// Signs of noise, a clause each; nothing on a quiet machine.
pub fn noise(report: &Report) -> Vec<String> {
    let (host, run) = (&report.host, &report.run);
    let mut signs = Vec::new();
    if let Some(load) = run.load_before.filter(|load| *load > LOAD_PER_CPU * host.cpus.max(1) as f64) {
        signs.push(format!("the load was {load:.1} on {} CPUs before it began", host.cpus));
    }
    if let Some(steal) = run.steal_percent.filter(|steal| *steal > STEAL) {
        signs.push(format!("{steal:.0} % of the CPU time was stolen by the hypervisor below"));
    }
    if let Some(governor) = host.governor.as_deref().filter(|governor| *governor != "performance") {
        signs.push(format!("the frequency governor is {governor}"));
    }
    let mut spreads: Vec<f64> = report.rows.iter().filter_map(variation).collect();
    spreads.sort_by(f64::total_cmp);
    if let Some(spread) = spreads.get(spreads.len() / 2).filter(|spread| **spread > SPREAD) {
        signs.push(format!("a typical row's rounds vary by {:.0} %", 100.0 * spread));
    }
    signs
}

/// The coefficient of variation of a row's rounds: of medians at depth 1, else of IOPS.
fn variation(row: &Row) -> Option<f64> {
    let rounds = if row.depth == Some(1) { &row.round_p50_ns } else { &row.round_iops };
    let rounds: Vec<f64> = rounds.iter().flatten().copied().collect();
    let n = rounds.len() as f64;
    if rounds.len() < 2 {
        return None;
    }
    let mean = rounds.iter().sum::<f64>() / n;
    let variance = rounds.iter().map(|round| (round - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean > 0.0).then(|| variance.sqrt() / mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::report;

    #[test]
    fn a_quiet_run_has_no_signs_and_a_noisy_one_names_them() {
        let mut report = report();
        report.rows.iter_mut().for_each(|row| {
            row.round_iops = vec![Some(1000.0), Some(1010.0)];
            row.round_p50_ns = row.round_iops.clone();
        });
        (report.host.cpus, report.host.governor) = (2, Some("performance".into()));
        assert_eq!(noise(&report), [""; 0]);
        report.run.load_before = Some(1.7);
        report.run.steal_percent = Some(12.4);
        report.host.governor = Some("powersave".into());
        report.rows.iter_mut().for_each(|row| {
            row.round_iops = vec![Some(1000.0), Some(2000.0)];
            row.round_p50_ns = row.round_iops.clone();
        });
        let signs = noise(&report).join("; ");
        for sign in ["load was 1.7 on 2 CPUs", "12 % of the CPU time", "powersave", "vary by 47 %"] {
            assert!(signs.contains(sign), "{signs}");
        }
    }
}
