//! What the lane tells of its runs, beside the answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::metrics::Method;
use super::sampling::{Sample, INTERVAL};
use super::testing::{request, settle, Got, Laned, Remembering};

/// Submits a request of so many images, all of whose pixels are that byte.
fn submit(laned: &Laned<Remembering>, images: usize, byte: u8) -> Rc<RefCell<Vec<(u8, Got)>>> {
    let got = Rc::default();
    let caller = Remembering {
        name: byte,
        got: Rc::clone(&got),
        is_waiting: true,
    };
    let message = request(images, byte);
    let decoded = laned.queue.decode(Method::Predict, &message).unwrap();
    assert!(laned.queue.submit(decoded, caller, None).is_ok());
    got
}

#[test]
fn the_first_image_of_a_request_is_sampled_while_samples_are_wanted() {
    let laned = Laned::new();
    laned.test(async {
        submit(&laned, 1, 1);
        settle().await;
        laned.wants_samples.store(true, Ordering::Relaxed);
        submit(&laned, 2, 51);
        settle().await;
        submit(&laned, 1, 4); // too early for the next
        settle().await;
    });
    let samples = laned.samples.borrow();
    let [sample] = &samples[..] else {
        panic!("{samples:?}");
    };
    assert_is_of(sample, 51);
}

fn assert_is_of(sample: &Sample, byte: u8) {
    assert_eq!((sample.version, &sample.pixels[..]), (1, &[byte; 2][..]));
    assert!(sample.is_uint8);
    let logit = f32::from(byte) / 255.0;
    assert_eq!(sample.logits, [logit.to_le_bytes(); 2].concat());
}

#[test]
fn a_sample_has_the_logits_of_its_own_image() {
    let laned = Laned::new();
    laned.wants_samples.store(true, Ordering::Relaxed);
    laned.test(async {
        for _ in 0..100 {
            for (images, byte) in [(1, 1), (2, 2), (3, 3)] {
                submit(&laned, images, byte);
            }
            settle().await;
            std::thread::sleep(INTERVAL); // its loop has no timers
        }
    });
    let samples = laned.samples.borrow();
    let mut bytes: Vec<u8> = samples.iter().map(|sample| sample.pixels[0]).collect();
    for (sample, &byte) in samples.iter().zip(&bytes) {
        assert_is_of(sample, byte);
    }
    bytes.sort_unstable();
    bytes.dedup();
    assert_eq!(bytes, [1, 2, 3]);
}

#[test]
fn runs_count_their_requests_and_every_response_its_encoding() {
    let laned = Laned::new();
    laned.test(async {
        let all = [3, 3, 1].map(|images| submit(&laned, images, 0));
        settle().await;
        assert!(all.iter().all(|got| got.borrow().len() == 1));
    });
    // By the bounds 1, 2, 4 and 8.
    assert_eq!(
        laned.metrics.run_requests.totals(),
        (vec![0, 0, 1, 0, 0], 3.0)
    );
    assert_eq!(
        laned.metrics.run_images.totals(),
        (vec![0, 0, 0, 1, 0], 7.0)
    );
    assert_eq!(laned.metrics.encode_seconds.totals().0, [3, 0]);
    assert_eq!(
        laned.metrics.oldest_seconds(tokio::time::Instant::now()),
        0.0
    );
}
