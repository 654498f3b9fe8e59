//! How a call ends that Python does not answer: with a status, counted, and observed if it is to be.

use http::HeaderValue;
use tokio::time::Instant;

use super::head::path;
use super::{Call, Caller};
use crate::grpc::Status;
use crate::io::Ending;
use crate::lane::queue::{end_of_lost, Answered, Batch};
use crate::observer::{text_of, traceparent, Ends};
use crate::responder::Responder;

impl Caller {
    /// Return the end of the call if it is to be observed.
    fn ends(&self, request_id: &HeaderValue, code: u32) -> Option<Ends> {
        let headers = &self.parts.headers;
        let audience = self.io.observer.audience(headers, code)?;
        Some(Ends {
            method: path(&self.parts).to_owned(),
            peer: self.peer.clone(),
            request_id: text_of(Some(request_id)).unwrap_or_default(),
            traceparent: text_of(traceparent(headers)),
            began: self.began,
            code,
            audience,
        })
    }

    /// Count the call, which ends before any service has it.
    fn count(&self, request_id: &HeaderValue, code: u32) {
        self.io.shared.methods.count(path(&self.parts), code);
        if let Some(ends) = self.ends(request_id, code) {
            self.io.outbox.observe(ends.unanswered(0));
        }
    }

    /// End the call before any service has it.
    pub fn refuse(&self, response: Responder, status: &Status) {
        self.count(response.request_id(), status.code);
        response.refuse(status);
    }
}

impl Call {
    /// End the call with a status before any service has it.
    pub fn refuse(self: Box<Self>, status: &Status) {
        self.caller.refuse(self.response, status);
    }

    /// Count the call, whose client is gone before any service has it.
    pub fn lose(self: Box<Self>) {
        let deadline = self.deadline.map(|deadline| deadline.at);
        let code = end_of_lost(deadline, Instant::now()).code();
        self.caller.count(self.response.request_id(), code);
    }

    /// End a call that the lane has counted.
    pub fn end_in_lane(self: Box<Self>, ending: &Ending, request_bytes: usize) {
        self.observe(ending.code, request_bytes, 0, Answered::default(), &[]);
        self.response.end(ending);
    }

    /// Tell Python of a call that the lane has answered, if it is to know.
    pub fn observe(
        &self,
        code: u32,
        request_bytes: usize,
        response_bytes: usize,
        answered: Answered,
        runs: &[Batch],
    ) {
        if let Some(ends) = self.caller.ends(self.response.request_id(), code) {
            let observation = ends.answered(request_bytes, response_bytes, answered, runs);
            self.io().outbox.observe(observation);
        }
    }
}
