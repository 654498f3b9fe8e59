//! The messages of a stream, both ways, between the client and Python.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;

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
            let stream = call.response.stream()?;
            stream.reserve_capacity(message.len());
            while stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(None) => return Err(Reason::CANCEL.into()),
                    Poll::Pending => return Ok(()),
                }
            }
            let now = stream.capacity().min(message.len());
            stream.send_data(message.split_to(now), false)?;
            if message.is_empty() {
                self.sending.pop_front();
                to.io.outbox.push(Event::Sent { id: to.id });
            }
        }
        Ok(())
    }
}
