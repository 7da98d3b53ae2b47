use super::{Backend, Outcome, Request, Submitter, transfer};

/// A backend that does nothing, so that only the cost of the dataplane remains. A read leaves the guest's buffers
/// unchanged; a write is dropped.
pub(super) struct NullBackend {
    pub(super) size: u64,
    pub(super) readonly: bool,
}

impl Backend for NullBackend {
    fn start(&mut self, _token: u64, request: Request, _submitter: &mut dyn Submitter) -> Outcome {
        Outcome::Done(transfer::check(&request, self.size, self.readonly))
    }

    fn complete(&mut self, _token: u64, _result: i32, _submitter: &mut dyn Submitter) -> Outcome {
        super::nothing_in_flight()
    }
}
