//! `--pin`: which host CPUs the threads of a VM stay on.

use std::fmt;
use std::str::FromStr;

use super::Failure;
use crate::host::allowed_cpus;

/// CPUs by thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins {
    vcpus: Threads,
    iothreads: Threads,
}

/// CPUs of one kind of thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Threads {
    /// Of those that are not named.
    all: Option<usize>,
    /// (number, CPU).
    named: Vec<(usize, usize)>,
}

impl Threads {
    fn get(&self, n: usize) -> Option<usize> {
        self.named.iter().find(|(named, _)| *named == n).map(|(_, cpu)| *cpu).or(self.all)
    }

    fn cpus(&self) -> impl Iterator<Item = usize> {
        self.all.into_iter().chain(self.named.iter().map(|(_, cpu)| *cpu))
    }

    fn add(&mut self, number: &str, cpu: usize) -> Option<()> {
        if number.is_empty() {
            return self.all.replace(cpu).is_none().then_some(());
        }
        let number = number.parse().ok()?;
        let new = !self.named.iter().any(|(named, _)| *named == number);
        self.named.push((number, cpu));
        new.then_some(())
    }
}

impl FromStr for Pins {
    type Err = String;

    /// `vcpu0=2,iothread0=3`; without a number, all threads of that kind. Two numbers alone: all vCPUs, all I/O threads.
    fn from_str(text: &str) -> Result<Pins, String> {
        let error = || "use THREAD=CPU,..., as in vcpu0=2,iothread0=3; without a number, all of that kind: vcpu=2,iothread=3";
        let mut pins = Pins::default();
        if let Some((vcpu, io)) = text.split_once(',')
            && let (Ok(vcpu), Ok(io)) = (vcpu.parse(), io.parse())
        {
            (pins.vcpus.all, pins.iothreads.all) = (Some(vcpu), Some(io));
            return Ok(pins);
        }
        for pin in text.split(',') {
            let (thread, cpu) = pin.split_once('=').ok_or_else(error)?;
            let cpu = cpu.parse().map_err(|_| error())?;
            let added = match (thread.strip_prefix("vcpu"), thread.strip_prefix("iothread")) {
                (Some(number), _) => pins.vcpus.add(number, cpu),
                (_, Some(number)) => pins.iothreads.add(number, cpu),
                _ => None,
            };
            added.ok_or_else(error)?;
        }
        Ok(pins)
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for (kind, threads) in [("vcpu", &self.vcpus), ("iothread", &self.iothreads)] {
            words.extend(threads.all.map(|cpu| format!("{kind}={cpu}")));
            words.extend(threads.named.iter().map(|(n, cpu)| format!("{kind}{n}={cpu}")));
        }
        f.write_str(&words.join(","))
    }
}

impl Pins {
    /// Fails on a CPU that this process may not use (affinity and cpuset, sched_getaffinity(2)), and on a thread that the VM
    /// does not have.
    pub(super) fn check(&self, vcpus: usize, iothreads: usize) -> Result<(), Failure> {
        self.check_with(vcpus, iothreads, &allowed_cpus())
    }

    pub(super) fn check_with(&self, vcpus: usize, iothreads: usize, cpus: &[usize]) -> Result<(), Failure> {
        if let Some(missing) = self.vcpus.cpus().chain(self.iothreads.cpus()).find(|cpu| !cpus.contains(cpu))
        {
            let all = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "--pin: this process may not run on CPU {missing}; it may use {all}"
            )));
        }
        for (kind, threads, count) in [("vcpu", &self.vcpus, vcpus), ("iothread", &self.iothreads, iothreads)]
        {
            if let Some((n, _)) = threads.named.iter().find(|(n, _)| *n >= count) {
                return Err(Failure::usage(format!(
                    "--pin: there is no {kind}{n}; the last one is {kind}{}",
                    count - 1
                )));
            }
        }
        Ok(())
    }

    /// Of the first `count` vCPUs.
    pub(super) fn vcpus(&self, count: usize) -> Vec<Option<usize>> {
        (0..count).map(|n| self.vcpus.get(n)).collect()
    }

    /// Of I/O thread `n`.
    pub(super) fn iothread(&self, n: usize) -> Option<usize> {
        self.iothreads.get(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_named_or_all_of_a_kind() {
        let pins: Pins = "vcpu0=2,iothread=3,iothread1=4".parse().unwrap();
        assert_eq!(pins.vcpus(2), [Some(2), None]);
        assert_eq!([0, 1, 2].map(|n| pins.iothread(n)), [Some(3), Some(4), Some(3)]);
        assert_eq!(pins.to_string(), "vcpu0=2,iothread=3,iothread1=4");
        assert_eq!("5,1".parse::<Pins>().unwrap().to_string(), "vcpu=5,iothread=1");
        for wrong in [
            "",
            "2",
            "vcpu0",
            "vcpu0=",
            "vcpux=1",
            "cpu0=1",
            "vcpu0=1,vcpu0=2",
            "1,2,3",
            "0,99999999999999999999",
        ] {
            assert!(wrong.parse::<Pins>().unwrap_err().contains("vcpu0=2"), "{wrong}");
        }
    }

    #[test]
    fn a_cpu_or_a_thread_that_is_not_there_is_refused() {
        let error =
            |text: &str| text.parse::<Pins>().unwrap().check_with(1, 2, &[0, 1, 5]).map_err(|f| f.message);
        assert_eq!(error("vcpu0=5,iothread1=0"), Ok(()));
        assert!(error("vcpu=7").unwrap_err().contains("may not run on CPU 7; it may use 0, 1, 5"));
        assert!(error("vcpu1=0").unwrap_err().contains("no vcpu1; the last one is vcpu0"));
        assert!(Pins::default().check(1, 1).is_ok());
    }
}
