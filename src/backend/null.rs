use super::{Backend, Outcome, Request, Submitter, transfer};

/// A queue that does nothing, as fast as that goes: what is left is the cost of the dataplane itself. A read leaves
/// the guest's buffers as they were; a write goes nowhere.
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
