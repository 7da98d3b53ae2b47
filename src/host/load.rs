//! How busy the host is: load, and CPU time that its own hypervisor took away.

use std::fs;

/// Clock ticks of all CPUs since boot (proc_stat(5)), and the load at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostLoad {
    /// Tasks that ran or waited, averaged over the last minute (proc_loadavg(5)).
    pub load: Option<f64>,
    total: u64,
    steal: u64,
}

impl HostLoad {
    /// Now. What cannot be read is unknown.
    pub fn now() -> HostLoad {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        HostLoad::of(&read("/proc/loadavg"), &read("/proc/stat"))
    }

    fn of(loadavg: &str, stat: &str) -> HostLoad {
        let load = loadavg.split_whitespace().next().and_then(|load| load.parse().ok());
        let cpus = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest times are part of user.
        let ticks: Vec<u64> = cpus.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
        HostLoad { load, total: ticks.iter().sum(), steal: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Percent of all CPU time since `earlier` that the hypervisor below gave to others.
    pub fn steal_since(&self, earlier: &HostLoad) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|&total| total > 0)?;
        Some(100.0 * self.steal.saturating_sub(earlier.steal) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_the_time_between() {
        let early = HostLoad::of("0.42 0.3 0.2 1/99 123\n", "cpu  100 0 50 800 0 0 0 50 7 0\ncpu0 1\n");
        let late = HostLoad::of("1.00 0 0 1/9 1\n", "cpu  150 0 60 830 0 0 0 60 9 0\n");
        assert_eq!((early.load, late.steal_since(&early)), (Some(0.42), Some(10.0)));
        assert_eq!(early.steal_since(&late), None);
        assert_eq!(HostLoad::of("", ""), HostLoad::default());
        assert!(HostLoad::now().load.is_some());
    }
}
