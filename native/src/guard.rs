//! Ends connections that flood the server with frames which are cheap to send.
//!
//! [`Guarded`] wraps the socket under `h2`, passes every byte through and looks at the headers of
//! frames only, but for one thing that it mends (`authority`). It is for what `h2` 0.4.20 lets pass:
//! - PINGs, SETTINGS, WINDOW_UPDATEs, PRIORITYs and frames of unknown types, however many come
//!   (the first two are answered before more is read, so they take time but no memory);
//! - calls that are reset once they were accepted (CVE-2023-44487), however many.
//!
//! `h2` itself ends a connection at: more CONTINUATIONs in a header block than its list of headers
//! may need (CVE-2024-27316), headers of four times `max_header_list_size`, more than 20 calls
//! reset before they were accepted, 1,024 resets of its own for errors of the client, many
//! empty or small DATA frames, and frames larger than it announced.

mod authority;
mod frames;
mod rules;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use authority::Authority;
use frames::{Frames, GOAWAY, HEAD_BYTES, PREFACE_BYTES};
pub use rules::max_resets;
use rules::Rules;

/// What is known of a connection to both its guard and who serves it.
pub struct Seen {
    /// When something last came, or when the connection began.
    pub last_read: Cell<Instant>,
    /// Why the guard ended the connection: what its GOAWAY says.
    pub flood: Cell<Option<&'static str>>,
}

/// A stream of bytes whose HTTP/2 frames are watched; a server's, from the client's preface on.
pub struct Guarded<S> {
    stream: S,
    read: Frames,
    written: Frames,
    rules: Rules,
    authority: Authority,
    seen: Rc<Seen>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Clients may ping each `min_ping` while nothing is sent to them, and reset all the calls that
    /// they may have.
    pub fn new(stream: S, min_ping: Duration, max_calls: u32) -> Self {
        Self {
            stream,
            read: Frames::after(PREFACE_BYTES),
            written: Frames::after(0),
            rules: Rules::new(min_ping, max_calls),
            authority: Authority::default(),
            seen: Rc::new(Seen {
                last_read: Cell::new(Instant::now()),
                flood: Cell::new(None),
            }),
        }
    }

    pub fn seen(&self) -> Rc<Seen> {
        Rc::clone(&self.seen)
    }

    /// Note what was read; of a flood, tell the client and return the error that ends `h2`.
    fn check(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) -> io::Result<()> {
        let now = Instant::now();
        self.seen.last_read.set(now);
        self.rules.begin(now);
        let (rules, mut flood) = (&mut self.rules, None);
        self.read.follow_payload(
            bytes,
            &mut self.authority,
            |authority, head| {
                let found = rules.read(head);
                flood = flood.or(found);
                authority.begin(head);
            },
            Authority::payload,
        );
        let Some(text) = flood else { return Ok(()) };
        self.seen.flood.set(Some(text));
        self.go_away(text, cx);
        Err(flooded(text))
    }

    /// Send a GOAWAY that says why (`h2` lets a server choose no text), as far as that can be done
    /// at once: a client that doesn't read its answers gets none.
    fn go_away(&mut self, text: &str, cx: &mut Context<'_>) {
        if !self.written.is_between_frames() {
            return; // it would become part of a frame that h2 had begun to write
        }
        let length = (8 + text.len()) as u32;
        let mut frame = Vec::with_capacity(HEAD_BYTES + 8 + text.len());
        frame.extend(&length.to_be_bytes()[1..]);
        frame.extend([GOAWAY, 0, 0, 0, 0, 0]); // no flags, of the whole connection
        frame.extend(self.rules.last_call().to_be_bytes());
        frame.extend(u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes());
        frame.extend(text.as_bytes());
        let stream = Pin::new(&mut self.stream);
        if let Poll::Ready(Ok(_)) = stream.poll_write(cx, &frame) {
            // The end comes after it, so that a reset of the socket finds it delivered.
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
    }
}

fn flooded(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(text) = this.seen.flood.get() {
            return Poll::Ready(Err(flooded(text)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        Poll::Ready(match &mut buffer.filled_mut()[before..] {
            [] => Ok(()), // the end
            bytes => this.check(bytes, cx),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(text) = this.seen.flood.get() {
            return Poll::Ready(Err(flooded(text))); // nothing comes after the GOAWAY
        }
        let taken = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        let rules = &mut this.rules;
        this.written
            .follow(&bytes[..taken], |head| rules.wrote(head));
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(text) = this.seen.flood.get() {
            return Poll::Ready(Err(flooded(text)));
        }
        let taken = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, parts))?;
        let (rules, mut left) = (&mut this.rules, taken);
        for part in parts {
            let bytes = &part[..left.min(part.len())];
            this.written.follow(bytes, |head| rules.wrote(head));
            left -= bytes.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
