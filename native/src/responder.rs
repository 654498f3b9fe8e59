//! What goes back to the client of one call.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::HeaderValue;

use crate::grpc::{self, Status, Value};
use crate::io::Ending;

/// Sends the response of a call.
pub struct Responder {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    request_id: HeaderValue,
}

impl Responder {
    /// Every end of the call carries the id.
    pub fn new(respond: SendResponse<Bytes>, request_id: HeaderValue) -> Self {
        Self {
            respond,
            stream: None,
            request_id,
        }
    }

    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub fn refuse(self, status: &Status) {
        self.finish(status.code, &status.text, &[]);
    }

    pub fn end(self, ending: &Ending) {
        self.finish(ending.code, &ending.text, &ending.trailing);
    }

    /// End the call with a status. Errors: the client is gone, and nothing is to be done.
    pub fn finish(mut self, code: u32, text: &str, trailing: &[(String, Value)]) {
        let trailers = grpc::trailers(code, text, trailing, self.request_id);
        match self.stream.take() {
            Some(mut stream) => drop(stream.send_trailers(trailers)),
            None => drop(
                self.respond
                    .send_response(grpc::trailers_only(trailers), true),
            ),
        }
    }

    /// Answer a unary call that went well with a framed message.
    pub fn answer(mut self, message: Bytes) {
        if let Ok(mut stream) = self.respond.send_response(grpc::response(), false) {
            if stream.send_data(message, false).is_ok() {
                let _ = stream.send_trailers(grpc::ok_trailers(self.request_id));
            }
        }
    }

    /// Send as much of a framed message as the client's windows take; tell whether that was all.
    pub fn poll_message(
        &mut self,
        message: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Result<bool, h2::Error> {
        let stream = self.stream()?;
        while !message.is_empty() {
            stream.reserve_capacity(message.len());
            while stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(None) => return Err(Reason::CANCEL.into()),
                    Poll::Pending => return Ok(false),
                }
            }
            let now = stream.capacity().min(message.len());
            stream.send_data(message.split_to(now), false)?;
        }
        Ok(true)
    }

    fn stream(&mut self) -> Result<&mut SendStream<Bytes>, h2::Error> {
        if self.stream.is_none() {
            self.stream = Some(self.respond.send_response(grpc::response(), false)?);
        }
        Ok(self.stream.as_mut().expect("set above"))
    }

    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        }
    }
}
