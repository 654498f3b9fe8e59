//! What is read of a stream and not yet answered.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::metrics::Method;
use super::queue::{Answered, Batch, Caller};
use super::stream::{Ahead, First, StreamCaller};
use super::testing::{request, settle, Laned};
use crate::grpc::framed;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn answered(ahead: &Ahead) -> Option<Bytes> {
    match ahead.first() {
        First::Answered(response) => Some(response),
        _ => None,
    }
}

#[test]
fn messages_are_read_ahead_by_number_and_by_images() {
    let ahead = Ahead::default();
    assert!(!ahead.is_full(1000, 10)); // alone, whatever its size
    ahead.enter(Bytes::new(), 8);
    assert!(!ahead.is_full(2, 10));
    assert!(ahead.is_full(3, 10));
    (1..64).for_each(|_| drop(ahead.enter(Bytes::new(), 0)));
    assert!(ahead.is_full(0, 10));
    ahead.leave();
    assert!(!ahead.is_full(10, 10));
}

#[test]
fn the_stream_is_woken_for_its_first_message_alone() {
    let (ahead, woken) = (Ahead::default(), Arc::new(Woken::default()));
    let waker = Waker::from(Arc::clone(&woken));
    let (first, second) = (ahead.enter(Bytes::new(), 1), ahead.enter(Bytes::new(), 1));
    ahead.watch(&Context::from_waker(&waker));
    second.answer(framed(b"second"), &Answered::default());
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    assert!(matches!(ahead.first(), First::Waiting));
    first.answer(framed(b"first"), &Answered::default());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(answered(&ahead).unwrap(), framed(b"first"));
    ahead.leave();
    assert_eq!(answered(&ahead).unwrap(), framed(b"second"));
    ahead.leave();
    assert!(matches!(ahead.first(), First::Nothing));
    ahead
        .enter(Bytes::new(), 1)
        .answer(framed(b"third"), &Answered::default());
    assert_eq!(answered(&ahead).unwrap(), framed(b"third"));
}

#[test]
fn from_what_is_handed_back_on_the_rest_is_for_python_in_order() {
    let ahead = Ahead::default();
    let [a, b, mut c] = [1, 2, 3].map(|byte| ahead.enter(Bytes::from(vec![byte]), 1));
    b.hand_back();
    a.answer(framed(b"a"), &Answered::default());
    assert_eq!(answered(&ahead).unwrap(), framed(b"a"));
    ahead.leave();
    assert!(matches!(ahead.first(), First::HandedBack));
    assert_eq!(ahead.take_rest(), [vec![2], vec![3]]);
    assert!(!c.is_waiting());
    c.answer(framed(b"in vain"), &Answered::default());
    assert!(ahead.is_empty());
}

#[test]
fn what_waits_for_a_stream_that_has_ended_is_not_computed() {
    let laned = Laned::<StreamCaller>::new();
    laned.test(async {
        let ahead = Ahead::default();
        let submit = |byte| {
            let message = request(1, byte);
            let decoded = laned.queue.decode(Method::PredictStream, &message).unwrap();
            let caller = ahead.enter(message, decoded.images());
            assert!(laned.queue.submit(decoded, caller, None).is_ok());
        };
        submit(1);
        settle().await;
        assert!(answered(&ahead).is_some());
        submit(2);
        drop(ahead);
        settle().await;
    });
    assert_eq!(laned.runs.images(), [1]);
    assert_eq!(laned.admission.images(), 0);
    let calls = &laned.metrics.calls[Method::PredictStream as usize];
    assert!(calls
        .ended
        .iter()
        .all(|each| each.load(Ordering::Relaxed) == 0));
}

#[test]
fn a_stream_keeps_the_last_batches_that_its_messages_were_in() {
    let kept = |keeps: bool, numbers: &[u64]| {
        let ahead = Ahead::new(keeps);
        for &number in numbers {
            let batch = Batch {
                number,
                ..Batch::default()
            };
            let answered = Answered {
                batch,
                ..Answered::default()
            };
            ahead.enter(Bytes::new(), 1).answer(framed(b""), &answered);
            ahead.leave();
        }
        let runs = ahead.totals().runs;
        runs.iter().map(|each| each.number).collect::<Vec<_>>()
    };
    assert_eq!(kept(true, &[1, 1, 3, 4, 4, 7]), [1, 3, 4, 7]);
    assert!(kept(false, &[1, 2]).is_empty());
    let many: Vec<u64> = (0..1500).collect();
    assert_eq!(kept(true, &many), many[500..]);
}
