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
use crate::grpc;
use crate::io::Io;
use crate::outbox::Slot;
use crate::stream::Exchange;

impl Call {
    /// Let Python answer; None: the client sent no message.
    pub async fn unary_in_python(mut self: Box<Self>, message: Option<Bytes>) {
        let registered = Registered::new(self.io());
        let is_empty = message.is_none();
        self.begin(&registered, message);
        if is_empty {
            self.io()
                .outbox
                .push(Event::HalfClosed { id: registered.id });
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
                self.response.refuse(&late());
            }
            _ => registered.end(),
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
            Next::Refused(status) => {
                registered.end();
                self.response.refuse(&status);
            }
            Next::Late => {
                registered.end();
                self.response.refuse(&late());
            }
            _ => registered.end(),
        }
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
