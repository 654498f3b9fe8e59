//! A call over the seam: its bytes to Python, and what Python answers to the client.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::head::late;
use super::{Call, Next};
use crate::events::{Command, Event};
use crate::grpc::{self, Status};
use crate::io::Io;
use crate::outbox::Slot;
use crate::stream::Exchange;

impl Call {
    /// Let Python answer.
    pub async fn unary_in_python(mut self: Box<Self>, message: Bytes) {
        let registered = Registered::new(self.io());
        self.begin(&registered, Some(message));
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
            Next::Late => self.end(&registered, &late()),
            _ => registered.end(None),
        }
    }

    /// Let Python answer the messages that were read already, and the rest.
    pub async fn stream_in_python(mut self: Box<Self>, messages: VecDeque<Bytes>) {
        let registered = Registered::new(self.io());
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
            Next::Refused(status) => self.end(&registered, &status),
            Next::Late => self.end(&registered, &late()),
            _ => registered.end(None),
        }
    }

    fn end(self: Box<Self>, registered: &Registered, status: &Status) {
        registered.end(Some(status.code));
        self.response.refuse(status);
    }

    fn begin(&self, registered: &Registered, message: Option<Bytes>) {
        self.io().outbox.push(Event::Call {
            id: registered.id,
            method: self.path().to_owned(),
            peer: Arc::clone(&self.caller.peer),
            metadata: grpc::metadata(self.headers(), self.response.request_id()),
            deadline: self.deadline.map(|deadline| deadline.seconds),
            began: self.caller.began,
            message,
        });
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

    /// Tell Python that nobody waits for the response any more; the code is what the client got.
    fn end(&self, code: Option<u32>) {
        self.io.outbox.push(Event::Ended { id: self.id, code });
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.io.forget(self.id);
    }
}
