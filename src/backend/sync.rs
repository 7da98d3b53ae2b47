use super::file::QueueFile;
use super::{Backend, Outcome, Request, Submitter};

/// A backend that executes each request in `start`, on the thread that owns the queue.
pub(super) struct SyncBackend(pub(super) QueueFile);

impl Backend for SyncBackend {
    fn start(&mut self, _token: u64, request: Request, _submitter: &mut dyn Submitter) -> Outcome {
        Outcome::Done(self.0.execute(request))
    }

    fn complete(&mut self, _token: u64, _result: i32, _submitter: &mut dyn Submitter) -> Outcome {
        super::nothing_in_flight()
    }

    fn system_calls(&self) -> u64 {
        self.0.calls()
    }
}
