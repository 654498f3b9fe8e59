use std::rc::Rc;
use std::sync::atomic::Ordering;

use tokio::task::spawn_local;
use tokio::time::{advance, Instant};

use super::*;
use crate::grpc;
use crate::methods::Methods;
use crate::observer::{Audience, Ends};

fn observation() -> Observation {
    let ends = Ends {
        method: "/a/B".to_owned(),
        peer: "".into(),
        request_id: String::new(),
        traceparent: None,
        began: Instant::now(),
        code: grpc::OK,
        audience: Audience::All,
    };
    ends.unanswered(0)
}

/// Run an outbox and what publishes its events.
fn run<F: std::future::Future<Output = ()>>(test: impl FnOnce(Rc<Outbox>, Arc<Shared>) -> F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_time()
        .start_paused(true)
        .build_local(Default::default());
    runtime.unwrap().block_on(async {
        let shared = Arc::new(Shared::new(Methods::new([])).unwrap());
        let outbox = Rc::new(Outbox::new(Arc::clone(&shared)));
        let (events, observed) = (Rc::clone(&outbox), Rc::clone(&outbox));
        spawn_local(async move { events.keep_publishing().await });
        spawn_local(async move { observed.keep_publishing_observed().await });
        test(outbox, shared).await;
    });
}

/// Let the tasks go on until all of them wait.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[test]
fn python_is_told_of_calls_that_ended_together_after_a_moment() {
    run(|outbox, shared| async move {
        for _ in 0..3 {
            outbox.observe(observation());
            settle().await;
        }
        assert_eq!(shared.take_events().len(), 0);
        advance(OBSERVED_DELAY * 2).await;
        settle().await;
        assert_eq!(shared.take_events().len(), 3);
    });
}

#[test]
fn python_is_told_of_many_at_once() {
    run(|outbox, shared| async move {
        for turn in 0..3 {
            for _ in 0..MANY_OBSERVED {
                assert_eq!(shared.take_events().len(), 0, "{turn}");
                outbox.observe(observation());
            }
            outbox.observe(observation());
            settle().await;
            assert_eq!(
                shared.take_events().len(),
                MANY_OBSERVED + 1,
                "those of one turn"
            );
        }
    });
}

#[test]
fn calls_wait_for_each_other_and_nothing_else_for_them() {
    run(|outbox, shared| async move {
        outbox.observe(observation());
        outbox.log("info", String::new());
        settle().await;
        assert!(matches!(shared.take_events()[..], [Event::Log { .. }]));
    });
}

#[test]
fn of_more_than_may_wait_the_rest_is_dropped_while_they_wait() {
    run(|outbox, shared| async move {
        for _ in 0..2000 {
            outbox.observe(observation());
        }
        settle().await;
        assert_eq!(shared.take_events().len(), 1024);
        assert_eq!(shared.observations.dropped.load(Ordering::Relaxed), 976);
    });
}
