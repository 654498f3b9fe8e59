//! One call over the seam: its bytes to Python, and what Python answers to the client.

use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::RecvStream;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::{sleep_until, Instant, Sleep};

use crate::body::{Body, BodyError};
use crate::clock::monotonic_seconds;
use crate::encoding::Encoding;
use crate::events::{Command, Event, Slot};
use crate::grpc::{self, Status, DEADLINE_EXCEEDED};
use crate::held::{Inflow, Share};
use crate::io::Io;
use crate::laned;
use crate::responder::Responder;
use crate::stream::Exchange;

/// When a call is late, in both clocks.
#[derive(Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub seconds: f64, // of CLOCK_MONOTONIC
}

impl Deadline {
    fn after(timeout: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(timeout)?;
        Some(Self {
            at,
            seconds: monotonic_seconds() + timeout.as_secs_f64(),
        })
    }
}

/// Answer a request, whatever it is.
pub async fn serve(
    io: Rc<Io>,
    peer: Arc<str>,
    inflow: Rc<Inflow>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    if let Some(refusal) = not_grpc(&parts) {
        let _ = respond.send_response(refusal, true); // the connection may be gone
        return;
    }
    let response = Responder::new(respond);
    let (encoding, deadline) = match admitted(&io, &parts) {
        Ok(admitted) => admitted,
        Err(status) => return response.refuse(&status),
    };
    let share = Share::new(&inflow);
    let body = Body::new(stream, encoding, io.options.max_message_bytes, share);
    let call = Call {
        io,
        peer,
        parts,
        response,
        body,
        deadline,
        timer: None,
    };
    if call.io.options.unary_methods.contains(call.path()) {
        call.unary().await;
    } else {
        call.stream().await;
    }
}

fn not_grpc(parts: &Parts) -> Option<Response<()>> {
    let status = if parts.method != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !is_grpc(
        parts
            .headers
            .get(CONTENT_TYPE)
            .map_or(b"", |value| value.as_bytes()),
    ) {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    Some(response)
}

fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// The name of the method. gRPC has no queries: one would be a part of it.
fn path(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", |path| path.as_str())
}

/// gRPC's own words for a call that was late before its service could say so.
fn late() -> Status {
    Status::new(DEADLINE_EXCEEDED, "Deadline Exceeded")
}

fn admitted(io: &Io, parts: &Parts) -> Result<(Encoding, Option<Deadline>), Status> {
    let authority = parts
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let size = grpc::metadata_bytes(&parts.headers, path(parts), authority);
    if size > io.options.max_metadata_bytes {
        return Err(grpc::metadata_too_large(
            size,
            io.options.max_metadata_bytes,
        ));
    }
    let encoding = Encoding::of(&parts.headers)?;
    grpc::check_metadata(&parts.headers)?;
    let timeout = grpc::timeout(&parts.headers)?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(late());
    }
    Ok((encoding, timeout.and_then(Deadline::after)))
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

pub struct Call {
    pub io: Rc<Io>,
    peer: Arc<str>,
    parts: Parts,
    pub response: Responder,
    pub body: Body,
    pub deadline: Option<Deadline>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Call {
    pub fn path(&self) -> &str {
        path(&self.parts)
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    async fn unary(mut self) {
        let begun = poll_fn(|cx| self.poll_begin(cx)).await;
        let mut arrival = None;
        if let Ok(Some(bytes)) = begun {
            match laned::begin(&self, bytes) {
                Ok(awaited) => arrival = awaited,
                Err(refusal) => return self.response.end(&refusal),
            }
        }
        let first = match begun {
            Ok(_) => poll_fn(|cx| self.poll_first(cx)).await,
            Err(next) => next,
        };
        drop(arrival);
        let message = match first {
            Next::Message(message) => message,
            Next::Refused(status) => return self.response.refuse(&status),
            Next::Late => return self.finish_late(),
            Next::Lost | Next::Command(_) => return,
        };
        match message {
            None => self.unary_in_python(None).await,
            Some(message) => {
                if let Some((call, message)) = laned::take(self, message) {
                    call.unary_in_python(Some(message)).await;
                }
            }
        }
    }

    /// Let Python answer; None: the client sent no message.
    pub async fn unary_in_python(mut self, message: Option<Bytes>) {
        let registered = Registered::new(&self.io);
        let is_empty = message.is_none();
        self.begin(&registered, message);
        if is_empty {
            self.io.outbox.push(Event::HalfClosed { id: registered.id });
        }
        let next = poll_fn(|cx| match registered.slot.poll(cx) {
            Poll::Ready(command) => Poll::Ready(Next::Command(command)),
            Poll::Pending => self.poll_end(cx),
        })
        .await;
        match next {
            Next::Command(Command::Respond { message, .. }) => self.response.answer(message),
            Next::Command(Command::Finish {
                code,
                text,
                trailing,
                ..
            }) => {
                self.response.finish(code, &text, &trailing);
            }
            Next::Late => {
                registered.end();
                self.finish_late();
            }
            _ => registered.end(),
        }
    }

    async fn stream(self) {
        if let Some((call, messages)) = laned::stream(self).await {
            call.stream_in_python(messages).await;
        }
    }

    /// Let Python answer the messages that were read already, and the rest.
    async fn stream_in_python(mut self, messages: VecDeque<Bytes>) {
        let registered = Registered::new(&self.io);
        self.begin(&registered, None);
        let mut exchange = Exchange::begun(messages, &self, &registered);
        match poll_fn(|cx| exchange.poll(&mut self, &registered, cx)).await {
            Next::Command(Command::Finish {
                code,
                text,
                trailing,
                ..
            }) => {
                self.response.finish(code, &text, &trailing);
            }
            Next::Refused(status) => {
                registered.end();
                self.response.refuse(&status);
            }
            Next::Late => {
                registered.end();
                self.finish_late();
            }
            _ => registered.end(),
        }
    }

    fn begin(&self, registered: &Registered, message: Option<Bytes>) {
        self.io.outbox.push(Event::Call {
            id: registered.id,
            method: self.path().to_owned(),
            peer: Arc::clone(&self.peer),
            metadata: grpc::metadata(self.headers()),
            deadline: self.deadline.map(|deadline| deadline.seconds),
            message,
        });
    }

    pub fn finish_late(self) {
        self.response.refuse(&late());
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

/// A call that Python knows of, until it ends.
pub struct Registered {
    pub io: Rc<Io>,
    pub id: u64,
    pub slot: Rc<Slot>,
}

impl Registered {
    fn new(io: &Rc<Io>) -> Self {
        let (id, slot) = io.register();
        Self {
            io: Rc::clone(io),
            id,
            slot,
        }
    }

    /// Tell Python that nobody waits for the response any more.
    fn end(&self) {
        self.io.outbox.push(Event::Ended { id: self.id });
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.io.forget(self.id);
    }
}
