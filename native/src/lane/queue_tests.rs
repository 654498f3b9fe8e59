//! The rules of the queue, with a runner that copies pixels.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::metrics::{End, Method};
use super::queue::Begun;
use super::served::Served;
use super::testing::{byte_of, model, request, settle, Got, Laned, Remembering, Runs};

struct Test {
    laned: Laned<Remembering>,
    got: Rc<RefCell<Vec<(u8, Got)>>>,
}

impl Test {
    fn new() -> Self {
        Self {
            laned: Laned::new(),
            got: Rc::default(),
        }
    }

    fn submit(&self, name: u8, images: usize) -> bool {
        self.submit_with(name, images, true, None)
    }

    fn submit_with(
        &self,
        name: u8,
        images: usize,
        is_waiting: bool,
        deadline: Option<Instant>,
    ) -> bool {
        let caller = Remembering {
            name,
            got: Rc::clone(&self.got),
            is_waiting,
        };
        let queue = &self.laned.queue;
        let decoded = queue
            .decode(Method::Predict, &request(images, name))
            .unwrap();
        queue.submit(decoded, caller, deadline).is_ok()
    }

    /// Those that were answered or handed back.
    fn names(&self) -> Vec<u8> {
        let got = self.got.borrow();
        let left = got.iter().filter(|(_, got)| !matches!(got, Got::Lost(_)));
        left.map(|(name, _)| *name).collect()
    }

    fn runs(&self) -> Vec<usize> {
        self.laned.runs.images()
    }

    fn ended(&self, end: End) -> u64 {
        let calls = &self.laned.metrics.calls[Method::Predict as usize];
        calls.ended[end as usize].load(Ordering::Relaxed)
    }
}

#[test]
fn requests_of_one_turn_share_a_run() {
    let test = Test::new();
    test.laned.test(async {
        (1..=4).for_each(|name| assert!(test.submit(name, 1)));
        settle().await;
    });
    assert_eq!(test.runs(), [4]);
    for (name, got) in &*test.got.borrow() {
        let Got::Answer(response) = got else {
            panic!("{name} has no answer")
        };
        assert_eq!(byte_of(response), *name);
    }
    assert_eq!(test.names(), [1, 2, 3, 4]);
    assert_eq!(test.laned.admission.images(), 0);
    assert_eq!(test.ended(End::Ok), 4);
    assert_eq!(test.laned.metrics.images.load(Ordering::Relaxed), 4);
    assert_eq!(
        test.laned.metrics.run_images.totals(),
        (vec![0, 0, 1, 0, 0], 4.0)
    );
    assert_eq!(test.laned.metrics.queue_seconds.totals().0, [4, 0]);
}

#[test]
fn requests_that_others_read_in_the_same_turn_share_the_run() {
    let test = Rc::new(Test::new());
    let other = Rc::clone(&test);
    test.laned.test(async {
        test.submit(1, 1);
        tokio::task::spawn_local(async move { other.submit(2, 1) });
        settle().await;
    });
    assert_eq!(test.runs(), [2]);
}

#[test]
fn a_run_has_at_most_the_images_of_a_batch_and_no_request_is_split() {
    let test = Test::new();
    test.laned.test(async {
        assert!(test.submit(1, 5) && test.submit(2, 3) && test.submit(3, 2));
        settle().await;
        assert!(test.submit(4, 5) && test.submit(5, 4));
        settle().await;
    });
    assert_eq!(test.runs(), [8, 2, 5, 4]);
    assert_eq!(test.names(), [1, 2, 3, 4, 5]);
}

#[test]
fn no_room_refuses_at_once_and_admits_again_after_the_run() {
    let test = Test::new();
    test.laned.test(async {
        assert!(test.submit(1, 8) && test.submit(2, 4));
        assert!(!test.submit(3, 1));
        settle().await;
        assert!(test.submit(4, 8));
        settle().await;
    });
    assert_eq!(test.names(), [1, 2, 4]);
}

#[test]
fn who_waits_no_more_is_not_computed_and_counts_as_cancelled() {
    let test = Test::new();
    test.laned.test(async {
        test.submit(1, 2);
        test.submit_with(2, 2, false, None);
        test.submit(3, 2);
        settle().await;
    });
    assert_eq!((test.runs(), test.names()), (vec![4], vec![1, 3]));
    assert_eq!(test.got.borrow()[0], (2, Got::Lost(End::Cancelled)));
    assert_eq!((test.ended(End::Ok), test.ended(End::Cancelled)), (2, 1));
    assert_eq!(test.laned.admission.images(), 0);
}

#[test]
fn a_late_request_is_handed_back_without_being_computed() {
    let test = Test::new();
    test.laned.test(async {
        let now = Instant::now();
        test.submit_with(1, 1, true, Some(now));
        test.submit_with(2, 1, true, Some(now + Duration::from_secs(60)));
        settle().await;
    });
    assert_eq!(test.runs(), [1]);
    assert_eq!(test.got.borrow()[0], (1, Got::HandedBack));
    assert_eq!((test.names(), test.ended(End::Ok)), (vec![1, 2], 1));
}

#[test]
fn all_requests_of_a_failed_run_are_handed_back_and_it_is_logged() {
    let test = Test::new();
    test.laned.test(async {
        test.laned.runs.set_failing(true);
        test.submit(1, 1);
        test.submit(2, 1);
        settle().await;
        test.laned.runs.set_failing(false);
        test.submit(3, 1);
        settle().await;
    });
    assert_eq!(
        test.got.borrow()[..2],
        [(1, Got::HandedBack), (2, Got::HandedBack)]
    );
    assert_eq!((test.names(), test.ended(End::Ok)), (vec![1, 2, 3], 1));
    assert_eq!(test.laned.log.borrow().len(), 1);
    assert!(test.laned.log.borrow()[0].contains("no memory"));
    assert_eq!(test.laned.admission.images(), 0);
}

#[test]
fn what_was_decoded_for_a_version_is_run_by_it() {
    let test = Test::new();
    let runs = Runs::default();
    test.laned.test(async {
        test.submit(1, 1);
        test.laned
            .queue
            .serve(Some(Served::new(model(2), Box::new(runs.clone()))));
        test.submit(2, 1);
        settle().await;
    });
    assert_eq!((test.runs(), runs.images()), (vec![1], vec![1]));
    for (name, got) in &*test.got.borrow() {
        let Got::Answer(response) = got else {
            panic!("{name} has no answer")
        };
        assert_eq!(response.last(), Some(name)); // its identity ends with the version
    }
}

#[test]
fn a_version_goes_with_its_last_run_and_a_lane_that_is_off_takes_nothing() {
    let test = Test::new();
    let holders = || test.laned.runs.holders();
    assert_eq!(holders(), 2);
    test.laned.test(async {
        test.submit(1, 1);
        test.laned.queue.serve(None);
        assert!(test
            .laned
            .queue
            .decode(Method::Predict, &request(1, 1))
            .is_none());
        assert_eq!(holders(), 2);
        settle().await;
    });
    assert_eq!((test.names(), holders()), (vec![1], 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_request_ends_once_in_order_with_its_own_answer(
        turns in prop::collection::vec(prop::collection::vec((1usize..=8, any::<bool>()), 0..6), 1..6)
    ) {
        let test = Test::new();
        let mut admitted = Vec::new();
        test.laned.test(async {
            let mut name = 0;
            for turn in turns {
                for (images, is_waiting) in turn {
                    name += 1;
                    if test.submit_with(name, images, is_waiting, None) && is_waiting {
                        admitted.push(name);
                    }
                }
                settle().await;
            }
        });
        prop_assert_eq!(test.names(), admitted);
        prop_assert_eq!(test.laned.admission.images(), 0);
        for (name, got) in &*test.got.borrow() {
            match got {
                Got::Answer(response) => prop_assert_eq!(byte_of(response), *name),
                other => prop_assert_eq!(other, &Got::Lost(End::Cancelled)),
            }
        }
        prop_assert!(test.runs().iter().all(|images| (1..=8).contains(images)));
    }
}

/// What becomes of a request of so many images of which only the begin has come.
fn begun(test: &Test, images: usize, now: Instant) -> Begun {
    let message = request(images, 0);
    let begin = &message[..12];
    test.laned
        .queue
        .begin(Method::Predict, begin, message.len(), now)
}

#[test]
fn a_request_is_refused_by_its_begin_when_there_is_no_room() {
    let (test, now) = (Test::new(), Instant::now());
    assert!(test.submit(0, 5));
    assert!(matches!(begun(&test, 8, now), Begun::Refused(8)));
    let Begun::Awaited(Some(awaited)) = begun(&test, 4, now) else {
        panic!("there is room for it");
    };
    assert!(
        matches!(begun(&test, 4, now), Begun::Refused(4)),
        "room is kept for the other"
    );
    let Begun::Awaited(None) = begun(&test, 3, now) else {
        panic!("room is kept for half of the queue");
    };
    let later = now + Duration::from_millis(100);
    assert!(
        matches!(begun(&test, 4, later), Begun::Awaited(Some(_))),
        "it was kept for long"
    );
    drop(awaited);
}

#[test]
fn a_begin_that_does_not_tell_its_images_is_of_as_few_as_its_bytes_have() {
    let (test, now) = (Test::new(), Instant::now());
    assert!(test.submit(0, 5));
    let begin = |bytes| test.laned.queue.begin(Method::Predict, b"\xff", bytes, now);
    assert!(
        matches!(begin(8 * 7), Begun::Awaited(_)),
        "7 images of floats"
    );
    assert!(matches!(begin(8 * 8), Begun::Refused(8)));
}
