//! The messages of a call, out of the frames of its stream.

use std::collections::VecDeque;
use std::task::{ready, Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;

use crate::encoding::Encoding;
use crate::grpc::{too_large, Status, INTERNAL, PREFIX_BYTES};
use crate::held::Share;

// Of a large message memory is taken as its bytes arrive, not as its prefix announces them. Up to here
// it is taken at once, which saves copies: what is not written to takes up no memory yet.
const MIN_RESERVE: usize = 1024 * 1024;

pub enum BodyError {
    /// The call ends with it.
    Status(Status),
    /// The stream was reset, or its connection was lost.
    Lost,
}

pub struct Body {
    stream: RecvStream,
    chunk: Bytes,      // received and not looked at
    partial: BytesMut, // the begin of a message that came in several chunks
    encoding: Encoding,
    max: usize,               // bytes of a message
    untaken: VecDeque<usize>, // bytes of the messages that were returned and not taken
    share: Share,
    pub ended: bool,
}

impl Body {
    pub fn new(stream: RecvStream, encoding: Encoding, max: usize, share: Share) -> Self {
        let (chunk, partial) = (Bytes::new(), BytesMut::new());
        Self {
            stream,
            chunk,
            partial,
            encoding,
            max,
            untaken: VecDeque::new(),
            share,
            ended: false,
        }
    }

    /// Return the next message; None at the end of the stream.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            if let Some(message) = self.next_message().map_err(BodyError::Status)? {
                return Poll::Ready(Ok(Some(message)));
            }
            if !ready!(self.poll_chunk(cx))? {
                return Poll::Ready(self.end());
            }
        }
    }

    /// Wait for the first bytes; return the size of a message of which more is to come.
    pub fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        ready!(self.poll_chunk(cx))?;
        let total = self.total(&self.chunk).map_err(BodyError::Status)?;
        Poll::Ready(Ok(total.filter(|&total| total > self.chunk.len())))
    }

    /// Receive what comes next, all before having been looked at; tell if there was more.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        let Some(received) = ready!(self.stream.poll_data(cx)) else {
            return Poll::Ready(Ok(false));
        };
        self.chunk = received.map_err(|_| BodyError::Lost)?;
        let flow = self.stream.flow_control();
        let counted = self.share.receive(self.chunk.len(), flow);
        Poll::Ready(counted.map(|()| true).map_err(BodyError::Status))
    }

    /// The message of which `poll_begin` told, as far as it is there.
    pub fn begin(&self) -> &[u8] {
        self.chunk.get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Count out the oldest message that was returned, of a stream; the end of a call counts all out.
    pub fn message_taken(&mut self) {
        if let Some(bytes) = self.untaken.pop_front() {
            self.share.remove(bytes);
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.ended = true;
        if self.partial.is_empty() {
            return Ok(None);
        }
        let text = "the stream ended within a message";
        Err(BodyError::Status(Status::new(INTERNAL, text)))
    }

    fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        if self.partial.is_empty() {
            let Some(total) = self.total(&self.chunk)? else {
                self.keep_partial(PREFIX_BYTES);
                return Ok(None);
            };
            if self.chunk.len() >= total {
                let message = self.chunk.split_to(total);
                return self.plain(message).map(Some);
            }
            self.keep_partial(total);
            return Ok(None);
        }
        if self.partial.len() < PREFIX_BYTES {
            self.keep_partial(PREFIX_BYTES);
        }
        let Some(total) = self.total(&self.partial)? else {
            return Ok(None);
        };
        self.keep_partial(total);
        if self.partial.len() < total {
            return Ok(None);
        }
        let message = std::mem::take(&mut self.partial).freeze();
        self.plain(message).map(Some)
    }

    /// Return the bytes of the message that begins here, with its prefix; None without a prefix.
    fn total(&self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        if bytes.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        if length > self.max {
            return Err(too_large(length, self.max));
        }
        Ok(Some(PREFIX_BYTES + length))
    }

    /// Move what belongs to a message of so many bytes out of the chunk.
    fn keep_partial(&mut self, total: usize) {
        let missing = total.saturating_sub(self.partial.len());
        let now = missing.min(self.chunk.len());
        if now == 0 {
            return;
        }
        if self.partial.capacity() < total {
            let spare = self.partial.capacity() - self.partial.len();
            if spare < now {
                let grown = (2 * self.partial.len()).max(MIN_RESERVE).max(now);
                self.partial.reserve(grown.min(missing));
            }
        }
        self.partial.extend_from_slice(&self.chunk[..now]);
        self.chunk.advance(now);
    }

    fn plain(&mut self, framed: Bytes) -> Result<Bytes, Status> {
        let mut bytes = framed.len();
        let message = framed.slice(PREFIX_BYTES..);
        let plain = match framed[0] {
            0 => message,
            1 => {
                let plain = self.encoding.decompress(&message, self.max)?;
                self.share.add(plain.len())?;
                bytes += plain.len();
                plain
            }
            flag => {
                let text = format!("expected a message's compression flag 0 or 1, got {flag}");
                return Err(Status::new(INTERNAL, text));
            }
        };
        self.share.complete(bytes);
        self.untaken.push_back(bytes);
        Ok(plain)
    }
}
