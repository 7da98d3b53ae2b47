use std::sync::atomic::Ordering;

use super::super::testing::{Driver, Instant, SIZE, TwoSteps};
use super::super::{CompletePath, IoThread, LoopConfig};
use super::*;
use crate::kvm::testing::Delivery;
use crate::kvm::{MsiMessage, Vector, VectorState};

#[path = "event_loop_order_tests.rs"]
mod order;

fn spawn(uring: bool, poll_max_ns: u64) -> IoThread {
    let config = LoopConfig { name: "test".into(), uring, poll_max_ns, cpu: None };
    IoThread::spawn(config, std::sync::Arc::new(|why| panic!("{why}"))).unwrap()
}

fn have_uring() -> bool {
    let have = Waiter::uring().is_ok();
    if !have {
        eprintln!("skipped: this host offers no io_uring");
    }
    have
}

#[test]
fn requests_made_before_the_queue_was_live_complete_without_a_kick() {
    for uring in [false, true] {
        if uring && !have_uring() {
            continue;
        }
        let (driver, thread) = (Driver::new(CompletePath::Auto), spawn(uring, 0));
        driver.offer(0, 0, 0);
        driver.offer(1, 1, 5);
        let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
        assert_eq!(driver.interrupts(), 1, "two requests, one batch, one interrupt");
        assert_eq!((driver.used_index(), driver.status(0), driver.status(1)), (2, Some(0), Some(0)));
        assert_eq!(driver.counters.batches.load(Ordering::Relaxed), 1);
        assert!(attached.detach().is_some());
    }
}

#[test]
fn every_kick_is_seen_although_the_eventfd_is_never_read() {
    for (uring, poll) in [(false, 0), (true, 0), (false, 50_000), (true, 50_000)] {
        if uring && !have_uring() {
            continue;
        }
        let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(uring, poll));
        let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
        for round in 0..1000u16 {
            driver.offer(round % 5, 0, 0);
            driver.kick();
            driver.interrupts();
            assert_eq!(driver.used_index(), round + 1);
        }
        attached.detach();
        assert_eq!(driver.kick.read().unwrap(), 1000, "the eventfd counts the kicks");
        assert_eq!(driver.counters.requests.load(Ordering::Relaxed), 1000);
    }
}

#[test]
fn with_an_io_uring_the_interrupt_goes_with_the_next_wait() {
    for (uring, own_calls) in [(false, 100), (true, 0)] {
        if uring && !have_uring() {
            continue;
        }
        let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(uring, 0));
        let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
        for round in 0..100u16 {
            driver.offer(round % 5, 0, 0);
            driver.kick();
            driver.interrupts();
        }
        attached.detach();
        assert_eq!(driver.counters.system_calls.load(Ordering::Relaxed), own_calls, "io_uring: {uring}");
    }
}

/// An interrupt that waits for the thread's next wait, while its vector loses the irqfd.
#[test]
fn an_interrupt_that_was_queued_before_its_vector_fell_back_is_delivered() {
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(false, 0));
    let (vm, vector) = (driver.vm.clone(), driver.interrupts.vectors()[0].clone());
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    vm.refuse_irqfds();
    let state = VectorState { message: MsiMessage { address: 0xfee0_0000, data: 7 }, masked: false };
    Vector::apply(&[(&vector, state)]).unwrap_err();
    // As the kernel makes the write for the thread; the kick is that of the device, which knows of the fallback.
    vector.event().write(1).unwrap();
    driver.kick();
    let begun = std::time::Instant::now();
    let delivered = loop {
        let found = vm.take_deliveries();
        if !found.is_empty() || begun.elapsed() > std::time::Duration::from_secs(10) {
            break found;
        }
        std::thread::yield_now();
    };
    attached.detach();
    assert_eq!(delivered, [Delivery::SignalMsi(state.message)]);
    assert_eq!(driver.counters.system_calls.load(Ordering::Relaxed), 2);
}

#[test]
fn auto_completes_by_irqfd_on_an_io_thread_and_by_message_elsewhere() {
    let (driver, thread) = (Driver::new(CompletePath::Auto), spawn(false, 0));
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    driver.offer(0, 0, 0);
    driver.kick();
    driver.interrupts();
    let counts = driver.interrupt.counts();
    assert_eq!((counts.irqfd.load(Ordering::Relaxed), counts.pending.load(Ordering::Relaxed)), (1, 0));
    attached.detach();

    // The same device on the main loop, which is this thread.
    let driver = Driver::new(CompletePath::Auto);
    let main = EventLoop::new(&LoopConfig { name: "main".into(), ..LoopConfig::default() }).unwrap();
    let handle = main.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let attached = handle.attach(driver.setup(Instant)).unwrap();
            driver.offer(0, 0, 0);
            driver.kick();
            driver.interrupts();
            attached.detach();
            handle.stop();
        });
        main.run().unwrap();
    });
    let counts = driver.interrupt.counts();
    assert_eq!((counts.irqfd.load(Ordering::Relaxed), counts.pending.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn detaching_drains_what_is_in_flight_and_every_request_completes_once() {
    if !have_uring() {
        return;
    }
    for _ in 0..50 {
        let (driver, thread) = (Driver::new(CompletePath::Auto), spawn(true, 0));
        let attached = thread.handle().attach(driver.setup(TwoSteps::default())).unwrap();
        for n in 0..5 {
            driver.offer(n, 0, 0);
        }
        driver.kick();
        attached.detach();
        // The kick and the detach race: the loop started all five or none.
        let done = driver.counters.requests.load(Ordering::Relaxed);
        assert_eq!(u64::from(driver.used_index()), done);
        let answered = (0..5).filter(|&n| driver.status(n).is_some()).count();
        assert_eq!(answered as u64, done);
    }
}

#[test]
fn stopping_the_thread_drains_too() {
    if !have_uring() {
        return;
    }
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(true, 0));
    for n in 0..5 {
        driver.offer(n, 0, 0);
    }
    let attached = thread.handle().attach(driver.setup(TwoSteps::default())).unwrap();
    driver.interrupts();
    drop(thread);
    assert_eq!(driver.used_index(), 5);
    assert!(attached.detach().is_none(), "the loop has ended and keeps nothing");
}

#[test]
fn a_broken_ring_is_reported_once_and_stops_only_its_own_queue() {
    let thread = spawn(false, 0);
    let (bad, good) = (Driver::new(CompletePath::Irqfd), Driver::new(CompletePath::Irqfd));
    let bad_queue = thread.handle().attach(bad.setup(Instant)).unwrap();
    let good_queue = thread.handle().attach(good.setup(Instant)).unwrap();
    bad.offer(0, 0, 0);
    bad.offer_head(SIZE);
    bad.kick();
    bad.interrupts();
    good.offer(0, 0, 0);
    good.kick();
    good.interrupts();
    assert!(bad.broken.load(Ordering::SeqCst));
    assert_eq!((bad.used_index(), good.used_index()), (1, 1), "what came before the break completes");
    bad_queue.detach();
    good_queue.detach();
}

#[test]
fn errors_become_the_status_that_the_spec_names() {
    let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(false, 0));
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    for (n, (kind, sector)) in [(4, 0), (0, 1000), (1, 999), (77, 0)].into_iter().enumerate() {
        driver.offer(n as u16, kind, sector);
    }
    driver.kick();
    driver.interrupts();
    attached.detach();
    let status = |n| driver.status(n).unwrap();
    assert_eq!(
        [status(0), status(1), status(2), status(3)],
        [1, 1, 0, 2],
        "EIO, beyond the end, ok, unknown"
    );
}

#[test]
fn the_path_of_a_live_queue_can_be_switched_and_nothing_is_lost() {
    let (driver, thread) = (Driver::new(CompletePath::SignalMsi), spawn(false, 0));
    let attached = thread.handle().attach(driver.setup(Instant)).unwrap();
    for (round, path) in [CompletePath::Irqfd, CompletePath::SignalMsi].iter().cycle().take(200).enumerate() {
        driver.interrupts.set_path(*path).unwrap();
        driver.offer(round as u16 % 5, 0, 0);
        driver.kick();
        driver.interrupts();
    }
    attached.detach();
    let counts = driver.interrupt.counts();
    assert_eq!((counts.irqfd.load(Ordering::Relaxed), counts.pending.load(Ordering::Relaxed)), (100, 100));
    assert!(driver.interrupts.set_path(CompletePath::IrqLine).is_err(), "INTx is not a matter of switching");
}

/// The guest reads the ISR after every second interrupt. Only then does the next interrupt need a system call.
#[test]
fn the_system_calls_of_a_level_interrupt_are_counted_as_they_are_made() {
    use crate::kvm::testing::FakeVm;
    use crate::kvm::{Level, LevelPath, Line};
    for (complete, path, calls) in
        [(CompletePath::IrqLine, LevelPath::IrqLine, 50), (CompletePath::Resample, LevelPath::Resample, 50)]
    {
        let vm = FakeVm::new();
        let level = Level::new(std::sync::Arc::new(Line::new(vm.clone(), 17)), path).unwrap();
        let mut driver = Driver::new(complete);
        driver.interrupts = crate::dataplane::DeviceInterrupts::new(vec![], Some(level), complete);
        driver.interrupts.configure(false, false);
        driver.interrupt = driver.interrupts.queue_interrupt();
        let mut worker: Worker = Worker::new(driver.setup(Instant)).unwrap();
        let mut waiter = Waiter::epoll().unwrap();
        for round in 0..100 {
            driver.offer(round % 5, 0, 0);
            worker.process(&mut Tagged { waiter: &mut waiter, worker: 0 });
            worker.finish(&mut |_| false);
            if round % 2 == 1 {
                driver.interrupts.take_isr();
            }
        }
        let counted = driver.counters.system_calls.load(Ordering::Relaxed);
        assert_eq!(counted, calls, "{complete}: {:?}", vm.take_deliveries().len());
    }
}

/// A backend whose requests never complete.
struct Sleeps;

impl crate::backend::Backend for Sleeps {
    fn start(
        &mut self,
        _: u64,
        _: crate::backend::Request,
        _: &mut dyn crate::backend::Submitter,
    ) -> crate::backend::Outcome {
        crate::backend::Outcome::Pending
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn crate::backend::Submitter) -> crate::backend::Outcome {
        crate::backend::Outcome::Done(Ok(()))
    }
}

#[test]
fn a_queue_has_a_bound_of_bytes_in_flight_so_that_its_drain_has_an_end() {
    let driver = Driver::new(CompletePath::Irqfd);
    let mut setup = driver.setup(Sleeps);
    let gib = 1 << 21;
    let block = crate::dataplane::BlockParams {
        capacity: (1u64 << 40).into(),
        max_write_zeroes_sectors: gib,
        ..Driver::block()
    };
    setup.block = std::sync::Arc::new(block);
    let mut worker: Worker = Worker::new(setup).unwrap();
    let mut waiter = Waiter::epoll().unwrap();
    for n in 0..5 {
        // The segment is the start of the data buffer; the rest of the buffer must be empty.
        driver.offer(n, 13, 0);
        driver.write(
            0x1000 + 16 * (3 * u64::from(n) + 1) + 8,
            u64::from(16u32) | 1 << 32 | u64::from(3 * n + 2) << 48,
        );
        driver.write(super::super::testing::DATA + 512 * u64::from(n) + 8, u64::from(gib));
    }
    for _ in 0..5 {
        worker.process(&mut Tagged { waiter: &mut waiter, worker: 0 });
    }
    assert_eq!(worker.in_flight(), 2, "1 GiB each");
    assert!(!worker.has_work(), "nothing that could be started now");
    worker.complete(15, 0, &mut Tagged { waiter: &mut waiter, worker: 0 });
    worker.complete(0, 0, &mut Tagged { waiter: &mut waiter, worker: 0 });
    assert!(worker.has_work());
}

#[test]
fn a_poll_that_fails_is_told_once_and_not_armed_again() {
    for uring in [false, true] {
        if uring && !have_uring() {
            continue;
        }
        let mut waiter = if uring { Waiter::uring() } else { Waiter::epoll() }.unwrap();
        let mut events = vec![];
        if waiter.add(7, 9999, true).is_ok() {
            waiter.wait(WaitMode::Sleep, &mut events).unwrap();
            assert_eq!(events, [Event::Failed { tag: 7, errno: libc::EBADF }]);
        }
        for _ in 0..5 {
            waiter.wait(WaitMode::Look, &mut events).unwrap();
        }
        assert!(events.len() <= 1, "{events:?}");
    }
}

#[test]
fn a_queue_whose_kicks_cannot_be_watched_asks_for_a_reset() {
    for uring in [false, true] {
        if uring && !have_uring() {
            continue;
        }
        let (driver, thread) = (Driver::new(CompletePath::Irqfd), spawn(uring, 0));
        let mut setup = driver.setup(Instant);
        // Neither kind of waiter accepts a closed descriptor.
        use std::os::fd::FromRawFd;
        // SAFETY: no descriptor has this number, and it is never closed.
        let closed = unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(99_999) };
        setup.kick = std::sync::Arc::new(closed);
        std::mem::forget(setup.kick.clone());
        let attached = thread.handle().attach(setup).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !driver.broken.load(Ordering::SeqCst) {
            assert!(std::time::Instant::now() < deadline, "io_uring: {uring}: attached and deaf");
            std::thread::yield_now();
        }
        assert!(attached.detach().is_some(), "its backend serves the next activation");
    }
}
