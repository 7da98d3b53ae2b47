//! In which order a loop serves its queues, and what it keeps of those that have left.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::backend::{Backend, Outcome, Request, Submitter};
use crate::kvm::readable;

/// A backend that calls a function for each request, which completes only when it is told to.
struct Asks<F>(F);

impl<F: FnMut() + Send> Backend for Asks<F> {
    fn start(&mut self, _: u64, _: Request, _: &mut dyn Submitter) -> Outcome {
        (self.0)();
        Outcome::Pending
    }

    fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        Outcome::Done(Ok(()))
    }
}

/// A backend that makes a system call for each request.
struct OneCall(u64);

impl Backend for OneCall {
    fn start(&mut self, _: u64, _: Request, _: &mut dyn Submitter) -> Outcome {
        self.0 += 1;
        Outcome::Done(Ok(()))
    }

    fn complete(&mut self, token: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
        unreachable!("token {token} was never pending")
    }

    fn system_calls(&self) -> u64 {
        self.0
    }
}

fn event_loop(uring: bool) -> EventLoop {
    EventLoop::new(&LoopConfig { name: "test".into(), uring, ..LoopConfig::default() }).unwrap()
}

#[test]
fn what_has_completed_is_shown_before_more_is_started() {
    let driver = Arc::new(Driver::new(CompletePath::Irqfd));
    let shown = Arc::new(AtomicU64::new(0));
    let (look, store) = (driver.clone(), shown.clone());
    let backend = Asks(move || store.store(look.used_index().into(), Ordering::Relaxed));
    let mut this = event_loop(false);
    this.seat(driver.setup(backend)).unwrap();
    driver.offer(0, 0, 0);
    this.work();
    let worker = &mut this.seats[0].as_mut().unwrap().worker;
    worker.complete(0, 0, &mut Tagged { waiter: &mut this.waiter, worker: 0 });
    driver.offer(1, 0, 0);
    this.seats[0].as_mut().unwrap().ready = true;
    this.work();
    assert_eq!(shown.load(Ordering::Relaxed), 1, "the first one is seen while the second one starts");
}

/// With an io_uring an interrupt may go with the next wait, but not if another queue's requests come before that.
#[test]
fn an_interrupt_does_not_wait_for_the_requests_of_other_queues() {
    if let Err(why) = crate::host::io_uring_available() {
        return println!("skipped: {why}");
    }
    let first = Driver::new(CompletePath::Irqfd);
    let second = Driver::new(CompletePath::Irqfd);
    let (event, sent) = (first.interrupts.vectors()[0].event().clone(), Arc::new(AtomicU64::new(0)));
    let note = sent.clone();
    let mut this = event_loop(true);
    this.seat(first.setup(Instant)).unwrap();
    let backend = Asks(move || note.store(u64::from(readable(&event)), Ordering::Relaxed));
    this.seat(second.setup(backend)).unwrap();
    first.offer(0, 0, 0);
    second.offer(0, 0, 0);
    this.work();
    assert_eq!(
        sent.load(Ordering::Relaxed),
        1,
        "the first queue's interrupt was there when the second queue's request started"
    );
}

#[test]
fn the_place_of_a_queue_that_left_is_used_again() {
    let driver = Driver::new(CompletePath::Irqfd);
    let mut this = event_loop(false);
    for _ in 0..1000 {
        let id = this.seat(driver.setup(Instant)).unwrap();
        let (reply, worker) = crossbeam_channel::bounded(1);
        seat_of(&mut this.seats, id).unwrap().leaving = Some(reply);
        this.work();
        drop(worker.recv().unwrap());
    }
    assert_eq!(this.seats.len(), 1);
}

#[test]
fn system_calls_are_counted_once_however_often_a_backend_serves() {
    let counters = Driver::new(CompletePath::Irqfd).counters.clone();
    let mut backend: Box<dyn Backend> = Box::new(OneCall(0));
    for activation in 1..=3 {
        let driver = Driver::new(CompletePath::Irqfd);
        let mut setup = driver.setup(Instant);
        (setup.backend, setup.counters) = (backend, counters.clone());
        let mut worker: Worker = Worker::new(setup).unwrap();
        for n in 0..5 {
            driver.offer(n, 0, 0);
        }
        worker.process(&mut Tagged { waiter: &mut Waiter::epoll().unwrap(), worker: 0 });
        worker.finish(&mut |_| true);
        backend = worker.into_backend();
        assert_eq!(counters.system_calls.load(Ordering::Relaxed), 5 * activation);
    }
}
