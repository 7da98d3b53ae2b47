use std::sync::Arc;

use crossbeam_channel::unbounded;

use super::super::testing::Driver;
use super::super::{CompletePath, IoThread, LoopConfig};
use crate::backend::{Backend, Outcome, Request, Submitter};

#[test]
fn a_loop_that_dies_with_requests_in_flight_keeps_the_guests_memory_mapped() {
    /// Never completes its first request, and panics at the second.
    struct Stuck(bool);

    impl Backend for Stuck {
        fn start(&mut self, _: u64, _: Request, _: &mut dyn Submitter) -> Outcome {
            assert!(!std::mem::replace(&mut self.0, true), "this panic belongs to a test");
            Outcome::Pending
        }

        fn complete(&mut self, _: u64, _: i32, _: &mut dyn Submitter) -> Outcome {
            unreachable!("nothing completes")
        }
    }

    let driver = Driver::new(CompletePath::Irqfd);
    let (sender, deaths) = unbounded();
    let config = LoopConfig { name: "test".into(), ..LoopConfig::default() };
    let on_death = Arc::new(move |why| sender.send(why).unwrap());
    let thread = IoThread::spawn(config, on_death).unwrap();
    driver.offer(0, 0, 0);
    let attached = thread.handle().attach(driver.setup(Stuck(false))).unwrap();
    driver.offer(1, 0, 0);
    driver.kick();
    assert!(deaths.recv().unwrap().contains("thread test died"));
    assert!(attached.detach().is_none(), "whoever takes the queue back is not left waiting");
    drop(thread);
    let memory = Arc::downgrade(&driver.memory);
    drop(driver);
    assert!(memory.upgrade().is_some(), "the kernel may still write to it");
}
