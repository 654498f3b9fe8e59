//! Calls in the lane: what it takes is answered here, the rest goes to Python as it came.

use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::call::{late, Call, Next};
use crate::grpc;
use crate::io::Ending;
use crate::lane::arrivals::Arrival;
use crate::lane::metrics::{End, Method};
use crate::lane::queue::{end_of_lost, Answered, Begun, Caller, Queue};
use crate::lane::refusal::put_request_info;
use crate::lane::stream::{Ahead, First, StreamCaller};

pub type Lane = Queue<LaneCaller>;

/// Who waits for an answer of the lane.
pub enum LaneCaller {
    Unary(UnaryCaller),
    Stream(StreamCaller),
}

/// A call of one request, with its message for Python.
pub struct UnaryCaller {
    call: Box<Call>,
    message: Bytes,
}

impl Caller for LaneCaller {
    fn is_waiting(&mut self) -> bool {
        match self {
            Self::Unary(unary) => {
                let cx = &mut Context::from_waker(Waker::noop());
                unary.call.response.poll_reset(cx).is_pending()
            }
            Self::Stream(stream) => stream.is_waiting(),
        }
    }

    fn answer(self, response: Bytes, answered: &Answered) {
        match self {
            Self::Unary(unary) => {
                let UnaryCaller { call, message } = unary;
                let response_bytes = response.len() - grpc::PREFIX_BYTES;
                let run = std::slice::from_ref(&answered.batch);
                call.observe(grpc::OK, message.len(), response_bytes, *answered, run);
                call.response.answer(response);
            }
            Self::Stream(stream) => stream.answer(response, answered),
        }
    }

    fn lose(self, end: End) {
        match self {
            Self::Unary(UnaryCaller { call, message }) => {
                call.observe(end.code(), message.len(), 0, Answered::default(), &[]);
            }
            Self::Stream(stream) => stream.lose(end),
        }
    }

    fn hand_back(self) {
        match self {
            Self::Unary(unary) => {
                let UnaryCaller { call, message } = unary;
                spawn_local(call.unary_in_python(message));
            }
            Self::Stream(stream) => stream.hand_back(),
        }
    }
}

/// Answer a call of one request in the lane; what it does not take comes back.
///
/// Its task ends here: no run waits for anything, so no timer of the call's could be due before it.
pub fn take(call: Box<Call>, message: Bytes) -> Option<(Box<Call>, Bytes)> {
    let io = call.io().clone();
    let Some(method) = method_of(&call) else {
        return Some((call, message));
    };
    let Some(decoded) = io.lane.decode(method, &message) else {
        return Some((call, message));
    };
    let images = decoded.images();
    let deadline = call.deadline.map(|deadline| deadline.at);
    let caller = LaneCaller::Unary(UnaryCaller { call, message });
    if let Err(LaneCaller::Unary(unary)) = io.lane.submit(decoded, caller, deadline) {
        let UnaryCaller { call, message } = unary;
        let refusal = refused(&call, method, images);
        call.end_in_lane(&refusal, message.len());
    }
    None
}

/// The method of a call of one request, if the lane may answer it.
fn method_of(call: &Call) -> Option<Method> {
    Method::of(call.path()).filter(|_| call.io().is_lane_open(call.headers()))
}

/// Let the lane await a call whose message has so many bytes; else return what it ends with.
pub fn begin(call: &Call, bytes: usize) -> Result<Option<Arrival>, Ending> {
    let Some(method) = method_of(call) else {
        return Ok(None);
    };
    match call
        .io()
        .lane
        .begin(method, call.body.begin(), bytes, Instant::now())
    {
        Begun::Awaited(arrival) => Ok(arrival),
        Begun::Refused(images) => Err(refused(call, method, images)),
    }
}

fn refused(call: &Call, method: Method, images: usize) -> Ending {
    let lane = &call.io().lane;
    lane.metrics()
        .observe_call(method, End::ResourceExhausted, 0.0);
    let id = call.response.request_id().as_bytes();
    let (text, details) = lane.fill(Instant::now()).refusal(images, id);
    let details = grpc::Value::Binary(details);
    Ending {
        code: grpc::RESOURCE_EXHAUSTED,
        text,
        trailing: vec![(grpc::DETAILS_KEY.into(), details)],
    }
}

/// Answer a call of many requests in the lane, as far as it goes.
///
/// What it does not take comes back, with the messages that were read and not answered.
pub async fn stream(mut call: Box<Call>) -> Option<(Box<Call>, VecDeque<Bytes>)> {
    let io = call.io().clone();
    if Method::of(call.path()) != Some(Method::PredictStream) || !io.is_lane_open(call.headers()) {
        return Some((call, VecDeque::new()));
    }
    let started = Instant::now();
    let mut laned = LanedStream {
        ahead: Ahead::new(io.observer.traces()),
        ..LanedStream::default()
    };
    let mut draining = pin!(io.shared.gate_closed());
    let ended = poll_fn(|cx| {
        laned.is_draining = laned.is_draining || draining.as_mut().poll(cx).is_ready();
        laned.poll(&mut call, cx)
    })
    .await;
    let deadline = call.deadline.map(|deadline| deadline.at);
    let mut totals = laned.ahead.totals();
    let (end, ending) = match ended {
        Ended::ForPython(messages) => return Some((call, messages)),
        Ended::Early(Next::Refused(status)) => {
            call.refuse(&status);
            return None;
        }
        Ended::Done => (End::Ok, Some(Ending::ok())),
        Ended::Drained => (End::Unavailable, Some(drained(&call))),
        Ended::Early(Next::Late) => (End::DeadlineExceeded, Some(Ending::from(late()))),
        Ended::Early(_) => (end_of_lost(deadline, Instant::now()), None),
    };
    let metrics = io.lane.metrics();
    metrics.observe_call(Method::PredictStream, end, started.elapsed().as_secs_f64());
    let (request_bytes, response_bytes) = (totals.request_bytes, totals.response_bytes);
    let runs = totals.runs.make_contiguous();
    call.observe(
        end.code(),
        request_bytes,
        response_bytes,
        totals.answered,
        runs,
    );
    if let Some(ending) = ending {
        call.response.end(&ending);
    }
    None
}

/// What a stream ends with when the server drains, with the call's own id.
fn drained(call: &Call) -> Ending {
    let mut ending = call.io().options.drained.clone();
    for (key, value) in &mut ending.trailing {
        if let (grpc::DETAILS_KEY, grpc::Value::Binary(details)) = (&**key, value) {
            let mut status = BytesMut::from(&details[..]);
            put_request_info(&mut status, call.response.request_id().as_bytes());
            *details = status.to_vec();
        }
    }
    ending
}

/// How a stream leaves the lane.
enum Ended {
    Done,
    /// The server drains, and all that was read is answered.
    Drained,
    ForPython(VecDeque<Bytes>),
    Early(Next),
}

#[derive(Default)]
struct LanedStream {
    ahead: Ahead,
    /// Read, and not in the lane as there was no room beside what was read before.
    held: Option<Bytes>,
    /// What is left of the first message's response.
    sending: Option<Bytes>,
    /// Nothing more is read: a message is for Python, and so is the rest.
    is_leaving: bool,
    is_draining: bool,
}

impl LanedStream {
    fn poll(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ahead.watch(cx);
        loop {
            if self.poll_send(call, cx).is_err() {
                return Poll::Ready(Ended::Early(Next::Lost));
            }
            if matches!(self.ahead.first(), First::HandedBack) {
                let mut rest = self.ahead.take_rest();
                rest.extend(self.held.take());
                return Poll::Ready(Ended::ForPython(rest));
            }
            let has_ended = call.body.ended && self.held.is_none();
            if self.ahead.is_empty() && has_ended {
                return Poll::Ready(Ended::Done);
            }
            if self.ahead.is_empty() && self.is_draining {
                return Poll::Ready(Ended::Drained);
            }
            if self.is_draining || self.is_leaving || has_ended || self.ahead.is_full(0, usize::MAX)
            {
                return call.poll_end(cx).map(Ended::Early);
            }
            match self.held.take() {
                Some(message) => {
                    self.held = self.submit(call, message);
                    if self.held.is_some() {
                        return call.poll_end(cx).map(Ended::Early);
                    }
                }
                None => match call.poll_first(cx) {
                    Poll::Ready(Next::Message(message)) => self.held = message,
                    other => return other.map(Ended::Early),
                },
            }
        }
    }

    /// Let the lane answer a message; return it if it must wait for those before it.
    fn submit(&mut self, call: &Call, message: Bytes) -> Option<Bytes> {
        let lane = &call.io().lane;
        let Some(decoded) = lane.decode(Method::PredictStream, &message) else {
            self.leave_from(message);
            return None;
        };
        let images = decoded.images();
        if self.ahead.is_full(images, decoded.max_images()) {
            return Some(message);
        }
        let caller = LaneCaller::Stream(self.ahead.enter(message, images));
        let deadline = call.deadline.map(|deadline| deadline.at);
        if let Err(caller) = lane.submit(decoded, caller, deadline) {
            caller.hand_back();
            self.is_leaving = true;
        }
        None
    }

    fn leave_from(&mut self, message: Bytes) {
        self.ahead.enter(message, 0).hand_back();
        self.is_leaving = true;
    }

    /// Send what is answered, as much as the client's windows take.
    fn poll_send(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Result<(), h2::Error> {
        loop {
            if self.sending.is_none() {
                let First::Answered(response) = self.ahead.first() else {
                    return Ok(());
                };
                self.sending = Some(response);
            }
            if let Some(response) = &mut self.sending {
                if !call.response.poll_message(response, cx)? {
                    return Ok(());
                }
            }
            self.sending = None;
            self.ahead.leave();
            call.body.message_taken();
        }
    }
}
