use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::shared::Shared;

fn call(id: u64, deadline: Option<f64>) -> Event {
    Event::Call {
        id,
        method: "/a/B".to_owned(),
        peer: "".into(),
        metadata: vec![("x-request-id".to_owned(), Value::Text(id.to_string()))],
        deadline,
        began: Instant::now(),
        message: None,
    }
}

fn ended(id: u64) -> Event {
    Event::Ended { id, code: None }
}

fn shared() -> Shared {
    Shared::new(Methods::new([("/a/B".to_owned(), true)])).unwrap()
}

#[test]
fn python_hears_nothing_of_calls_that_came_and_went() {
    let shared = shared();
    shared.publish(&mut vec![call(1, None)]);
    assert_eq!(shared.take_events().len(), 1);
    let message = Bytes::new();
    shared.publish(&mut vec![
        call(2, None),
        ended(1),
        Event::Message { id: 2, message },
        call(3, None),
        ended(2),
        Event::Stopped,
    ]);
    let left: Vec<_> = shared.take_events().iter().map(Event::call).collect();
    assert_eq!(left, vec![Some(1), Some(3), None]);
    assert_eq!(shared.methods.ended(), [("/a/B".to_owned(), CANCELLED, 1)]);
}

#[test]
fn of_those_that_were_late_python_gets_a_record() {
    let shared = shared();
    shared.publish(&mut vec![call(1, Some(monotonic_seconds())), ended(1)]);
    let events = shared.take_events();
    let [Event::Observed(observed)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (&*observed.request_id, observed.code),
        ("1", DEADLINE_EXCEEDED)
    );
    assert_eq!(
        shared.methods.ended(),
        [("/a/B".to_owned(), DEADLINE_EXCEEDED, 1)]
    );
}

#[test]
fn a_code_that_the_client_got_counts_as_it_is() {
    let shared = shared();
    let code = Some(crate::grpc::INTERNAL);
    shared.publish(&mut vec![call(1, None), Event::Ended { id: 1, code }]);
    assert_eq!(shared.take_events().len(), 1);
    let expected = ("/a/B".to_owned(), crate::grpc::INTERNAL, 1);
    assert_eq!(shared.methods.ended(), [expected]);
}
