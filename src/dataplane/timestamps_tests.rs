use super::super::testing::{Driver, Instant, TwoSteps};
use super::super::waiter::Waiter;
use super::super::{CompletePath, IoThread, LoopConfig, Moderation};
use super::*;

fn spawn(uring: bool) -> IoThread {
    let config = LoopConfig { name: "test".into(), uring, ..LoopConfig::default() };
    IoThread::spawn(config, std::sync::Arc::new(|why| panic!("{why}"))).unwrap()
}

/// Runs `rounds` reads and one get-id, one at a time, through a real I/O thread.
fn run(driver: &Driver, rounds: u16) {
    for round in 0..=rounds {
        driver.offer(round % 5, if round == rounds { 8 } else { 0 }, 0);
        driver.kick();
        driver.interrupts();
    }
}

fn in_order(timestamps: &RequestTimestamps) -> bool {
    let RequestTimestamps { seen, taken, parsed, submitted, completed, ending, published, signalled, .. } =
        *timestamps;
    [seen, taken, parsed, submitted, completed, ending, published, signalled].is_sorted() && seen > 0
}

#[test]
fn every_request_passes_every_stage_in_order() {
    for uring in [false, true] {
        if uring && Waiter::uring().is_err() {
            eprintln!("skipped: this host offers no io_uring");
            continue;
        }
        let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(uring));
        driver.counters.trace.start(1000);
        let attached = match uring {
            true => thread.handle().attach(driver.setup(TwoSteps::default())).unwrap(),
            false => thread.handle().attach(driver.setup(Instant)).unwrap(),
        };
        run(&driver, 20);
        attached.detach();
        let recorded = driver.counters.trace.stop().unwrap();
        assert_eq!((recorded.requests.len(), recorded.dropped), (21, 0));
        assert!(recorded.requests.iter().all(in_order), "{recorded:?}");
        let ids: Vec<_> = recorded.requests.iter().map(|timestamps| timestamps.id).collect();
        assert_eq!(ids, (1..=21).collect::<Vec<_>>());
        let last = recorded.requests.last().unwrap();
        assert_eq!(
            (last.kind, recorded.requests[0].kind, recorded.requests[0].len),
            (RequestKind::Answer, RequestKind::Read, 512)
        );
    }
}

#[test]
fn held_interrupts_are_stamped_when_they_are_sent() {
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(false));
    driver.counters.trace.start(100);
    let setup = driver.setup(Instant);
    setup.moderation.set(Moderation::Fixed { completions: 3, max_us: 1_000_000 });
    let attached = thread.handle().attach(setup).unwrap();
    for round in 0..3 {
        driver.offer(round, 0, 0);
        driver.kick();
    }
    driver.interrupts();
    attached.detach();
    let recorded = driver.counters.trace.stop().unwrap().requests;
    assert!(recorded.iter().all(in_order), "{recorded:?}");
    // How many of the three a batch has depends on the threads; the last batch is never held.
    let signalled: Vec<_> = recorded.iter().map(|stamps| stamps.signalled).collect();
    assert_eq!(signalled, vec![signalled[2]; 3], "{recorded:?}");
    assert!(!recorded[2].held, "{recorded:?}");
}

#[test]
fn a_full_buffer_drops_and_counts() {
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(false));
    driver.counters.trace.start(5);
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    run(&driver, 7);
    attached.detach();
    let recorded = driver.counters.trace.stop().unwrap();
    assert_eq!((recorded.requests.len(), recorded.dropped), (5, 3));
}

#[test]
fn it_can_be_switched_on_and_off_on_a_live_queue() {
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(false));
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    run(&driver, 3);
    assert!(driver.counters.trace.stop().is_none(), "it was never on");
    driver.counters.trace.start(100);
    run(&driver, 3);
    driver.counters.trace.start(100);
    run(&driver, 1);
    attached.detach();
    // The second start begins a new trace. Of the requests before it, only the last may have been recorded after it.
    assert!((2..=3).contains(&driver.counters.trace.stop().unwrap().requests.len()));
    assert_eq!(driver.counters.position().used, 10);
}
