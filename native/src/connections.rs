//! The connections, counted for the metrics: the io thread counts, Python reads.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

use h2::Reason;

use crate::counts::{add, loaded};

/// Why a connection ended that had begun HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Closed {
    /// The client ended it, or is gone.
    Client,
    /// It was older than the server lets one be.
    Age,
    /// The client did not answer a ping.
    Keepalive,
    Drain,
    Flood,
    /// The client broke the protocol, or the network failed.
    Error,
}

/// The names of `Closed`, in its order.
pub const CLOSED: [&str; 6] = ["client", "age", "keepalive", "drain", "flood", "error"];

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refused {
    /// There were as many as the server takes.
    Limit,
    /// Its TLS handshake failed, or took too long.
    Tls,
    /// It did not begin HTTP/2, or not in time.
    Http2,
}

/// The names of `Refused`, in its order.
pub const REFUSED: [&str; 3] = ["limit", "tls", "http2"];

#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    pub opened: AtomicU64,
    pub closed: [AtomicU64; CLOSED.len()],
    pub refused: [AtomicU64; REFUSED.len()],
}

impl Connections {
    /// Those that are there, also in their handshakes.
    pub fn open(&self) -> u64 {
        loaded(&self.open)
    }

    pub fn enter(&self) {
        add(&self.open, 1);
    }

    pub fn count_opened(&self) {
        add(&self.opened, 1);
    }

    pub fn refuse(&self, why: Refused) {
        add(&self.refused[why as usize], 1);
    }

    /// Count one out that had entered: it was served, or not.
    pub fn leave(&self, ended: Result<Closed, Refused>) {
        match ended {
            Ok(why) => add(&self.closed[why as usize], 1),
            Err(why) => self.refuse(why),
        }
        self.open.store(self.open() - 1, Ordering::Relaxed);
    }
}

impl From<&h2::Error> for Closed {
    fn from(error: &h2::Error) -> Self {
        const LEFT: [ErrorKind; 5] = [
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionAborted,
            ErrorKind::ConnectionReset,
            ErrorKind::NotConnected,
            ErrorKind::UnexpectedEof,
        ];
        if let Some(failed) = error.get_io() {
            let has_left = LEFT.contains(&failed.kind());
            return if has_left { Self::Client } else { Self::Error };
        }
        match error.reason() {
            _ if error.is_remote() => Self::Client, // its GOAWAY
            Some(Reason::ENHANCE_YOUR_CALM) => Self::Flood,
            _ => Self::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_open_or_closed_and_what_was_refused_is_neither() {
        let connections = Connections::default();
        for _ in 0..3 {
            connections.enter();
        }
        connections.count_opened();
        connections.leave(Err(Refused::Tls));
        connections.leave(Ok(Closed::Flood));
        connections.refuse(Refused::Limit);
        assert_eq!((connections.open(), loaded(&connections.opened)), (1, 1));
        assert_eq!(
            connections.closed.each_ref().map(loaded),
            [0, 0, 0, 0, 1, 0]
        );
        assert_eq!(connections.refused.each_ref().map(loaded), [1, 1, 0]);
    }

    #[test]
    fn the_cause_of_an_end_is_known_by_its_error() {
        let cause = |error: h2::Error| Closed::from(&error);
        assert_eq!(cause(Reason::ENHANCE_YOUR_CALM.into()), Closed::Flood);
        assert_eq!(cause(Reason::PROTOCOL_ERROR.into()), Closed::Error);
    }
}
