//! One call: its messages, its deadline, and who answers it, the lane or Python.

use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::RecvStream;
use http::request::Parts;
use http::{HeaderMap, Request};
use tokio::task::spawn_local;
use tokio::time::{sleep_until, Instant, Sleep};

mod ending;
mod head;
mod seam;

use crate::body::{Body, BodyError};
use crate::events::Command;
use crate::grpc::{Status, PREFIX_BYTES, UNIMPLEMENTED};
use crate::held::{Inflow, Share};
use crate::io::{Counted, Io};
use crate::laned;
use crate::responder::Responder;
pub use head::late;
pub use head::Deadline;
use head::{admitted, not_grpc, path};
pub use seam::Registered;

/// Answer a request, whatever it is, in a task of its own.
///
/// The call is made here: a task that has but a pointer to it is cheap to move.
pub fn serve(
    io: Rc<Io>,
    peer: Arc<str>,
    inflow: Rc<Inflow>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    began: Instant,
) {
    let (parts, stream) = request.into_parts();
    if let Some(refusal) = not_grpc(&parts) {
        let _ = respond.send_response(refusal, true); // the connection may be gone
        return;
    }
    let response = Responder::new(respond, io.request_ids.of(&parts.headers));
    let caller = Caller {
        _counted: Counted::new(&io),
        io,
        peer,
        parts,
        began,
    };
    let (encoding, deadline) = match admitted(&caller.io, &caller.parts) {
        Ok(admitted) => admitted,
        Err(status) => return caller.refuse(response, &status),
    };
    let share = Share::new(&inflow);
    let body = Body::new(stream, encoding, caller.io.options.max_message_bytes, share);
    let call = Box::new(Call {
        caller,
        response,
        body,
        deadline,
        timer: None,
    });
    if call.io().shared.methods.is_unary(call.path()) {
        spawn_local(call.unary());
    } else {
        spawn_local(call.stream());
    }
}

/// What ends the waiting for a message or a command.
pub enum Next {
    Message(Option<Bytes>),
    Command(Command),
    Refused(Status),
    Late,
    Lost,
}

impl From<BodyError> for Next {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Status(status) => Self::Refused(status),
            BodyError::Lost => Self::Lost,
        }
    }
}

/// Who calls, and what.
pub struct Caller {
    io: Rc<Io>,
    peer: Arc<str>,
    parts: Parts,
    began: Instant,
    _counted: Counted,
}

pub struct Call {
    caller: Caller,
    pub response: Responder,
    pub body: Body,
    pub deadline: Option<Deadline>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Call {
    pub fn io(&self) -> &Rc<Io> {
        &self.caller.io
    }

    pub fn path(&self) -> &str {
        path(&self.caller.parts)
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.caller.parts.headers
    }

    async fn unary(mut self: Box<Self>) {
        let begun = poll_fn(|cx| self.poll_begin(cx)).await;
        let mut arrival = None;
        if let Ok(Some(bytes)) = begun {
            match laned::begin(&self, bytes) {
                Ok(awaited) => arrival = awaited,
                Err(refusal) => return self.end_in_lane(&refusal, bytes - PREFIX_BYTES),
            }
        }
        let first = match begun {
            Ok(_) => poll_fn(|cx| self.poll_first(cx)).await,
            Err(next) => next,
        };
        drop(arrival);
        let message = match first {
            Next::Message(message) => message,
            Next::Refused(status) => return self.refuse(&status),
            Next::Late => return self.refuse(&late()),
            Next::Lost | Next::Command(_) => return self.lose(),
        };
        let Some(message) = message else {
            let text = "expected one request, got none";
            return self.refuse(&Status::new(UNIMPLEMENTED, text));
        };
        if let Some((call, message)) = laned::take(self, message) {
            call.unary_in_python(message).await;
        }
    }

    async fn stream(self: Box<Self>) {
        if let Some((call, messages)) = laned::stream(self).await {
            call.stream_in_python(messages).await;
        }
    }

    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self.body.poll_message(cx) {
            Poll::Ready(read) => Poll::Ready(read.map_or_else(Next::from, Next::Message)),
            Poll::Pending => self.poll_end(cx),
        }
    }

    /// The bytes of the first message, if more of it is to come.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, Next>> {
        match self.body.poll_begin(cx) {
            Poll::Ready(read) => Poll::Ready(read.map_err(Next::from)),
            Poll::Pending => self.poll_end(cx).map(Err),
        }
    }

    /// Whether the client, its connection or the deadline ends the call.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.response.poll_reset(cx).is_ready() {
            return Poll::Ready(Next::Lost);
        }
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline.at)));
        timer.as_mut().poll(cx).map(|()| Next::Late)
    }
}
