//! One connection: its handshake, calls, keepalive, age and end.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout, timeout_at, Instant};

use crate::call;
use crate::connections::{Closed, Refused};
use crate::guard::{max_resets, Guarded, Seen};
use crate::held::Inflow;
use crate::io::{Io, Options};

// A message in one frame needs no copy. h2 takes the memory as bytes arrive.
const FRAME_BYTES: u32 = 1 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
// h2 answers larger headers by itself, with 431; up to here they get the status of gRPC.
const HEADERS_FACTOR: usize = 4;
const HEADERS_SLACK: usize = 64 * 1024;

/// When a server stops: None while it serves; then until when calls may go on.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Serve a connection until it ends; its client must have begun HTTP/2 before the deadline.
pub async fn serve<S>(
    io: &Rc<Io>,
    socket: S,
    peer: Arc<str>,
    mut stop: Stop,
    deadline: Instant,
) -> Result<Closed, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let min_ping = Duration::from_secs_f64(io.options.min_ping_seconds);
    let socket = Guarded::new(socket, min_ping, io.options.max_concurrent_streams);
    let seen = socket.seen();
    let handshake = builder(&io.options).handshake::<_, Bytes>(socket);
    let Ok(Ok(mut connection)) = timeout_at(deadline, handshake).await else {
        return Err(Refused::Http2);
    };
    io.shared.connections.count_opened();
    let inflow = Inflow::new(&io.held);
    let pings = connection.ping_pong().expect("it is taken once");
    let mut keepalive = std::pin::pin!(keepalive(&io.options, pings, &seen));
    let mut end = std::pin::pin!(end(&io.options, &mut stop));
    let mut close = std::pin::pin!(sleep(NEVER));
    let mut closing = None;
    let closed = loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (io, peer, inflow) = (Rc::clone(io), Arc::clone(&peer), Rc::clone(&inflow));
                    call::serve(io, peer, inflow, request, respond, seen.last_read.get());
                }
                Some(Err(error)) => break closing.unwrap_or_else(|| Closed::from(&error)),
                None => break closing.unwrap_or(Closed::Client),
            },
            () = &mut keepalive => break Closed::Keepalive,
            (at, why) = &mut end, if closing.is_none() => {
                closing = Some(why);
                connection.graceful_shutdown();
                close.as_mut().reset(at);
            }
            () = &mut close => {
                abort(connection).await;
                break closing.unwrap_or(Closed::Drain);
            }
        }
    };
    Ok(match seen.flood.get() {
        Some(_) => Closed::Flood,
        None => closed,
    })
}

/// Reset what still runs and tell the client so.
async fn abort<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<S, Bytes>) {
    connection.abrupt_shutdown(h2::Reason::NO_ERROR);
    let flushed = poll_fn(|cx| connection.poll_closed(cx));
    let _ = timeout(Duration::from_millis(100), flushed).await; // it may not read
}

fn builder(options: &Options) -> Builder {
    let headers = options.max_metadata_bytes * HEADERS_FACTOR + HEADERS_SLACK;
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(max_resets(options.max_concurrent_streams) as usize)
        .max_header_list_size(u32::try_from(headers).unwrap_or(u32::MAX));
    builder
}

/// Return when the connection is to close and why, when it is too old or the server stops.
async fn end(options: &Options, stop: &mut Stop) -> (Instant, Closed) {
    let age = if options.max_age_seconds > 0.0 {
        Duration::from_secs_f64(options.max_age_seconds * jitter())
    } else {
        NEVER
    };
    let old = sleep(age);
    tokio::select! {
        () = old => {
            let grace = Duration::from_secs_f64(options.age_grace_seconds);
            (Instant::now() + grace, Closed::Age)
        }
        at = stopping(stop) => (at, Closed::Drain),
    }
}

async fn stopping(stop: &mut Stop) -> Instant {
    let stopped = match stop.wait_for(Option::is_some).await {
        Ok(at) => *at,
        Err(_) => None, // the server itself is gone
    };
    stopped.unwrap_or_else(Instant::now)
}

/// 0.9 to 1.1, as in gRPC: connections that began together do not all end together.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) >> 11;
    0.9 + 0.2 * (random as f64 / (1u64 << 53) as f64)
}

/// Return when a connection that was silent does not answer a ping.
async fn keepalive(options: &Options, mut pings: PingPong, seen: &Seen) {
    if options.keepalive_seconds <= 0.0 {
        return std::future::pending().await;
    }
    let interval = Duration::from_secs_f64(options.keepalive_seconds);
    let limit = Duration::from_secs_f64(options.keepalive_timeout_seconds);
    loop {
        let silent_since = seen.last_read.get();
        sleep_until(silent_since + interval).await;
        if seen.last_read.get() != silent_since {
            continue;
        }
        if pings.send_ping(Ping::opaque()).is_err() {
            return;
        }
        match timeout(limit, poll_fn(|cx| pings.poll_pong(cx))).await {
            Ok(Ok(_)) => {}
            // What the client sends counts too, though it is no answer.
            _ if seen.last_read.get() != silent_since => {}
            _ => return,
        }
    }
}
