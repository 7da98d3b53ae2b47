//! The log of the control plane: a probe guest on /dev/kvm sets its disk up, and every step is in the log, in the order in which it
//! happened, with its thread; requests are not. Skipped with one line where /dev/kvm is not usable.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use doorbell::bench::probe::{Session, SessionConfig};
use doorbell::bench::probe_abi::{GuestJob, kind, op};
use doorbell::dataplane::CompletePath;
use doorbell::host::events::{Format, start};
use doorbell::vm::{DiskConfig, ThreadConfig};
use serde_json::Value;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn events(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// One test: a process has one log.
#[test]
fn each_step_of_the_set_up_is_in_the_log_and_no_request_is() {
    if let Err(error) = kvm_ioctls::Kvm::new() {
        eprintln!("skipped: /dev/kvm: {error}");
        return;
    }
    let log = Shared::default();
    start(log.clone(), Format::Json);
    let disk: DiskConfig = "backend=mem,size=1M,complete=irqfd,notify=mmio".parse().unwrap();
    let threads = vec![ThreadConfig::default()];
    let mut session =
        Session::start(SessionConfig { disks: vec![disk], threads, cpus: 1, ..Default::default() }).unwrap();
    session.run(GuestJob { kind: kind::SETUP, queues: 1, ..GuestJob::default() }).unwrap();

    let events = log.events();
    let at = |message: &str, more: &[(&str, Value)]| {
        let is = |event: &&Value| {
            event["message"] == message && more.iter().all(|(name, value)| event[*name] == *value)
        };
        let found = events.iter().position(|event| is(&event));
        found.unwrap_or_else(|| panic!("no {message} {more:?} in {events:#?}"))
    };
    let disk0 = ("device", Value::from("disk0"));
    let mapped = at("BAR mapped", &[("slot", 1.into())]);
    let accepted = at("features accepted", std::slice::from_ref(&disk0));
    let route = at("route", &[("gsi", 24.into())]);
    let entry = at("MSI-X entry", &[disk0.clone(), ("masked", false.into())]);
    let table = at("KVM_SET_GSI_ROUTING", &[]);
    let irqfd = at("KVM_IRQFD", &[("assign", true.into()), ("gsi", 24.into())]);
    let ready = at("driver status", &[disk0.clone(), ("status", "0xf".into())]);
    let started = at("queue started", &[disk0.clone(), ("queue", 0.into())]);
    let doorbell = at("KVM_IOEVENTFD", &[("assign", true.into())]);
    // The order that the specifications and KVM ask for.
    assert!(mapped < accepted && accepted < ready && ready < started && started < doorbell, "{events:#?}");
    assert!(entry < route && route < table && table < irqfd, "{events:#?}");
    for event in &events[accepted..] {
        assert_eq!(event["threadName"], "vcpu0", "the guest did it: {event}");
        assert!(event["timestamp"].as_str().is_some_and(|time| time.parse::<f64>().is_ok()), "{event}");
    }

    // 500 requests, each with its kick and its interrupt: no event.
    let requests =
        GuestJob { kind: kind::IO, depth: 1, requests: 500, size: 512, op: op::READ, ..GuestJob::default() };
    assert_eq!(session.run(requests).unwrap().completed, 500);
    assert_eq!(log.events().len(), events.len(), "{:#?}", &log.events()[events.len()..]);

    // A switch by hand is one, on the thread that asked.
    session.parts().disks[0].set_complete_path(CompletePath::SignalMsi).unwrap();
    let last = log.events().pop().unwrap();
    assert_eq!((&last["message"], &last["complete"]), (&"path switched".into(), &"signal-msi".into()));
}
