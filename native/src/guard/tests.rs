//! The guard over pipes in memory, below a real server of h2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{
    duplex, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf,
};
use tokio::task::LocalSet;

use super::frames::{Frames, Head, GOAWAY, HEAD_BYTES, PING, PREFACE_BYTES, SETTINGS};
use super::Guarded;

const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MIN_PING: Duration = Duration::from_secs(5);

fn frame(head: Head) -> Vec<u8> {
    let mut bytes = head.length.to_be_bytes()[1..].to_vec();
    bytes.extend([head.kind, head.flags]);
    bytes.extend(head.stream.to_be_bytes());
    bytes.resize(HEAD_BYTES + head.length as usize, 0xff);
    bytes
}

fn ping() -> Vec<u8> {
    frame(Head {
        length: 8,
        kind: PING,
        flags: 0,
        stream: 0,
    })
}

fn followed<'a>(frames: &mut Frames, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Head> {
    let mut found = Vec::new();
    for piece in pieces {
        frames.follow(piece, |head| found.push(head));
    }
    found
}

fn heads() -> impl Strategy<Value = Vec<Head>> {
    let head = (0..40_u32, any::<u8>(), any::<u8>(), 0..1_u32 << 31);
    let head = head.prop_map(|(length, kind, flags, stream)| Head {
        length,
        kind,
        flags,
        stream,
    });
    prop::collection::vec(head, 0..12)
}

proptest! {
    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut(
        heads in heads(), cuts in prop::collection::vec(1..30_usize, 1..40)
    ) {
        let mut bytes = PREFACE.to_vec();
        for head in &heads {
            // The first bit is reserved, and no part of the stream's number.
            bytes.extend(frame(Head { stream: head.stream | 1 << 31, ..*head }));
        }
        for at in 0..=bytes.len() {
            let mut frames = Frames::after(PREFACE_BYTES);
            let pieces = [&bytes[..at], &bytes[at..]];
            prop_assert_eq!(&followed(&mut frames, pieces.into_iter()), &heads);
            prop_assert!(frames.is_between_frames());
        }
        let (mut frames, mut rest, mut pieces) = (Frames::after(PREFACE_BYTES), &bytes[..], vec![]);
        for cut in cuts.iter().cycle() {
            let (piece, left) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(followed(&mut frames, pieces.into_iter()), heads);
    }

    #[test]
    fn a_cut_within_a_frame_is_not_between_frames(head in heads(), at in any::<usize>()) {
        let bytes = head.first().map(|head| frame(*head)).unwrap_or(frame(Head {
            length: 0, kind: 0, flags: 0, stream: 0
        }));
        let mut frames = Frames::after(0);
        frames.follow(&bytes[..1 + at % (bytes.len() - 1)], |_| ());
        prop_assert!(!frames.is_between_frames());
    }
}

/// Bytes to read, and room for so many bytes of each write.
struct Pipe {
    unread: Vec<u8>,
    written: Vec<u8>,
    room: usize,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = std::mem::take(&mut self.unread);
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        bytes.truncate(self.room);
        self.written.extend(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest! {
    #[test]
    fn no_goaway_gets_into_another_frame(
        heads in heads(), at in any::<usize>(), room in 1..50_usize, cut in any::<usize>()
    ) {
        let sent: Vec<u8> = heads.iter().flat_map(|head| frame(*head)).collect();
        let sent = &sent[..at % (sent.len() + 1)];
        let mut ends = heads.iter().scan(0, |end, head| {
            *end += HEAD_BYTES + head.length as usize;
            Some(*end)
        });
        let is_whole = sent.is_empty() || ends.any(|end| end == sent.len());

        let (unread, written) = (Vec::new(), Vec::new());
        let mut guarded = Guarded::new(Pipe { unread, written, room }, MIN_PING, 1024);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut taken = 0;
        while taken < sent.len() {
            let (one, other) = sent[taken..].split_at(cut % (sent.len() - taken + 1));
            let written = match cut % 3 {
                0 => Pin::new(&mut guarded).poll_write(cx, &sent[taken..]),
                _ => Pin::new(&mut guarded)
                    .poll_write_vectored(cx, &[IoSlice::new(one), IoSlice::new(other)]),
            };
            let Poll::Ready(Ok(count)) = written else { panic!("{written:?}") };
            taken += count;
        }
        guarded.stream.room = 1000;
        guarded.stream.unread = PREFACE.to_vec();
        (0..9).for_each(|_| guarded.stream.unread.extend(ping()));
        let mut buffer = [0; 1000];
        let read = Pin::new(&mut guarded).poll_read(cx, &mut ReadBuf::new(&mut buffer));
        prop_assert!(matches!(read, Poll::Ready(Err(_))));
        let written = Pin::new(&mut guarded).poll_write(cx, b"more");
        prop_assert!(matches!(written, Poll::Ready(Err(_))), "nothing comes after the GOAWAY");

        let expected = if is_whole { [sent, &goaway(b"too_many_pings")].concat() } else { sent.to_vec() };
        prop_assert_eq!(&guarded.stream.written, &expected);
    }
}

fn goaway(text: &[u8]) -> Vec<u8> {
    let mut bytes = frame(Head {
        length: 8 + text.len() as u32,
        kind: GOAWAY,
        flags: 0,
        stream: 0,
    });
    bytes.truncate(HEAD_BYTES);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 11]);
    bytes.extend(text);
    bytes
}

/// Serve a connection by h2 until it ends, answering every call; return the guard's finding.
async fn serve(stream: DuplexStream) -> Option<&'static str> {
    let guarded = Guarded::new(stream, MIN_PING, 1024);
    let seen = guarded.seen();
    let mut connection = h2::server::handshake(guarded).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut body = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        body.send_data(Bytes::from_static(b"served"), true).unwrap();
    }
    drop(connection);
    seen.flood.get()
}

/// Send bytes in pieces; return the server's finding and what it sent until it ended it.
fn send(bytes: Vec<u8>, piece: usize, room: usize) -> (Option<&'static str>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let (near, far) = duplex(room);
        let serving = tokio::task::spawn_local(serve(far));
        let (mut reader, mut writer) = tokio::io::split(near);
        let sending = tokio::task::spawn_local(async move {
            for piece in bytes.chunks(piece) {
                if writer.write_all(piece).await.is_err() {
                    return; // the server ended it
                }
            }
        });
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        sending.abort();
        (serving.await.unwrap(), answer)
    })
}

fn opened() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(Head {
        length: 0,
        kind: SETTINGS,
        flags: 0,
        stream: 0,
    }));
    bytes
}

#[test]
fn a_client_that_floods_h2_is_told_why() {
    for piece in [1, 7, 17, 1000] {
        let mut bytes = opened();
        (0..20).for_each(|_| bytes.extend(ping()));
        let (flood, answer) = send(bytes, piece, 1 << 16);
        assert_eq!(flood, Some("too_many_pings"));
        assert!(answer.ends_with(&goaway(b"too_many_pings")));
    }
}

#[test]
fn bytes_pass_as_they_are() {
    for piece in [1, 5, 4096] {
        let mut bytes = opened();
        for call in 0..40_u32 {
            // GET / of http, without a body: static entries of HPACK.
            let mut headers = frame(Head {
                length: 3,
                kind: 1,
                flags: 5,
                stream: 2 * call + 1,
            });
            headers[HEAD_BYTES..].copy_from_slice(&[0x82, 0x84, 0x86]);
            bytes.extend(headers);
        }
        bytes.extend(ping());
        bytes.extend(goaway(b"")); // h2 ends when all is answered
        let (flood, answer) = send(bytes, piece, 1 << 16);
        assert_eq!(flood, None);
        let heads = followed(&mut Frames::after(0), [&answer[..]].into_iter());
        let answers = heads
            .iter()
            .filter(|head| head.kind == 0 && head.length == 6);
        assert_eq!(answers.count(), 40);
        assert!(heads.iter().any(|head| head.kind == PING && head.has(1)));
    }
}

#[test]
fn what_is_read_is_timed() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut near, far) = duplex(64);
        let mut guarded = Guarded::new(far, MIN_PING, 1024);
        let seen = guarded.seen();
        let began = seen.last_read.get();
        tokio::time::sleep(Duration::from_millis(2)).await;
        guarded.write_all(b"to the client").await.unwrap();
        assert_eq!(seen.last_read.get(), began, "writing is no sign of life");
        near.write_all(PREFACE).await.unwrap();
        guarded.read_u8().await.unwrap();
        assert!(seen.last_read.get() > began);
    });
}
