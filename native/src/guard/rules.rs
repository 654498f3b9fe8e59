//! What a client may send: the pings that gRPC's core allows, and so many other frames a second.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{
    Head, ACK, DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// gRPC's core forgives two pings that come too early, and ends the connection at the third.
const MAX_PING_STRIKES: u32 = 2;
const SECOND: Duration = Duration::from_secs(1);
/// SETTINGS a second: gRPC's clients send one at the start, and one when their estimate of the
/// bandwidth changes. Each may change the window of every call, so it costs most.
const MAX_SETTINGS: u32 = 100;
/// Calls that may be reset in a second beside those that were answered: twice as many as a client
/// may have at a time, for their deadlines may pass together, and at least so many.
const MIN_RESETS: u32 = 2_000;
/// Frames a second that carry nothing of a call. Clients send WINDOW_UPDATEs for what they get, so
/// there are more with each frame that is sent to them.
const MAX_IDLE: u32 = 10_000;
const IDLE_FOR_EACH_SENT: u32 = 4;

/// Return how many calls a client may reset in a second, of those that it may have at a time.
pub fn max_resets(max_calls: u32) -> u32 {
    MIN_RESETS.max(max_calls.saturating_mul(2))
}

/// Frames of one second.
#[derive(Default)]
struct Counts {
    settings: u32,
    resets: u32,
    idle: u32,
    sent_headers: u32,
    sent: u32,
}

/// The state of a connection that the rules need.
pub struct Rules {
    min_ping: Duration,
    max_resets: u32,
    now: Instant,
    last_ping: Option<Instant>,
    ping_strikes: u32,
    second: Instant,
    counts: Counts,
    last_call: u32,
}

impl Rules {
    pub fn new(min_ping: Duration, max_calls: u32) -> Self {
        let now = Instant::now();
        Self {
            min_ping,
            max_resets: max_resets(max_calls),
            now,
            last_ping: None,
            ping_strikes: 0,
            second: now,
            counts: Counts::default(),
            last_call: 0,
        }
    }

    /// The stream of the last call that the client began, for GOAWAY.
    pub fn last_call(&self) -> u32 {
        self.last_call
    }

    /// Tell the time at which the next frames are read.
    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        if now.duration_since(self.second) >= SECOND {
            self.second = now;
            self.counts = Counts::default();
        }
    }

    /// Note a frame of the client; return what it floods the server with, if it does.
    pub fn read(&mut self, head: Head) -> Option<&'static str> {
        let counts = &mut self.counts;
        let (is_over, text) = match head.kind {
            DATA if head.length > 0 || head.has(END_STREAM) => return None,
            HEADERS => {
                self.last_call = self.last_call.max(head.stream);
                return None;
            }
            PING if !head.has(ACK) => (self.is_ping_too_many(), "too_many_pings"),
            SETTINGS if !head.has(ACK) => {
                counts.settings += 1;
                (counts.settings > MAX_SETTINGS, "too_many_settings")
            }
            RST_STREAM => {
                counts.resets += 1;
                let most = self.max_resets.saturating_add(counts.sent_headers);
                (counts.resets > most, "too_many_resets")
            }
            _ => {
                counts.idle += 1;
                let more = counts.sent.saturating_mul(IDLE_FOR_EACH_SENT);
                let is_over = counts.idle > MAX_IDLE.saturating_add(more);
                (is_over, "too_many_frames")
            }
        };
        is_over.then_some(text)
    }

    /// Note a frame that the server sent.
    pub fn wrote(&mut self, head: Head) {
        match head.kind {
            HEADERS => {
                self.counts.sent_headers += 1;
                self.counts.sent += 1;
            }
            DATA => self.counts.sent += 1,
            WINDOW_UPDATE => {}
            _ => return,
        }
        // As in gRPC's core: clients ping when something comes, to measure the bandwidth.
        self.last_ping = None;
        self.ping_strikes = 0;
    }

    fn is_ping_too_many(&mut self) -> bool {
        let last = self.last_ping.replace(self.now);
        if last.is_none_or(|last| self.now.duration_since(last) >= self.min_ping) {
            return false;
        }
        self.ping_strikes += 1;
        self.ping_strikes > MAX_PING_STRIKES
    }
}

#[cfg(test)]
mod tests;
