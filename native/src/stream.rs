//! The messages of a stream, both ways, between the client and Python.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::call::{Call, Next, Registered};
use crate::events::{Command, Event};

// So many messages may wait for Python.
const MAX_AHEAD: usize = 16;

/// Both directions of a stream.
#[derive(Default)]
pub struct Exchange {
    sending: VecDeque<Bytes>,
    finish: Option<Command>,
    ahead: usize, // messages that Python has not taken
}

impl Exchange {
    /// Give Python the messages that were read before it had the stream.
    pub fn begun(messages: VecDeque<Bytes>, call: &Call, to: &Registered) -> Self {
        let begun = Self {
            ahead: messages.len(),
            ..Self::default()
        };
        for message in messages {
            to.io.outbox.push(Event::Message { id: to.id, message });
        }
        if call.body.ended {
            to.io.outbox.push(Event::HalfClosed { id: to.id });
        }
        begun
    }

    pub fn poll(&mut self, call: &mut Call, to: &Registered, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            while let Poll::Ready(command) = to.slot.poll(cx) {
                match command {
                    Command::Send { message, .. } => self.sending.push_back(message),
                    Command::Taken { .. } => {
                        self.ahead -= 1;
                        call.body.message_taken();
                    }
                    finish => self.finish = Some(finish),
                }
            }
            if self.poll_send(call, to, cx).is_err() {
                return Poll::Ready(Next::Lost);
            }
            if self.sending.is_empty() {
                if let Some(finish) = self.finish.take() {
                    return Poll::Ready(Next::Command(finish));
                }
            }
            if call.body.ended || self.ahead >= MAX_AHEAD || self.finish.is_some() {
                return call.poll_end(cx);
            }
            match call.poll_first(cx) {
                Poll::Ready(Next::Message(Some(message))) => {
                    self.ahead += 1;
                    to.io.outbox.push(Event::Message { id: to.id, message });
                }
                Poll::Ready(Next::Message(None)) => {
                    to.io.outbox.push(Event::HalfClosed { id: to.id });
                }
                other => return other,
            }
        }
    }

    /// Send as much as the client's windows take.
    fn poll_send(
        &mut self,
        call: &mut Call,
        to: &Registered,
        cx: &mut Context<'_>,
    ) -> Result<(), h2::Error> {
        while let Some(message) = self.sending.front_mut() {
            if !call.response.poll_message(message, cx)? {
                return Ok(());
            }
            self.sending.pop_front();
            to.io.outbox.push(Event::Sent { id: to.id });
        }
        Ok(())
    }
}
