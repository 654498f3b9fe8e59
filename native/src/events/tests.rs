use super::*;

fn call(id: u64) -> Event {
    Event::Call {
        id,
        method: String::new(),
        peer: "".into(),
        metadata: Vec::new(),
        deadline: None,
        message: None,
    }
}

#[test]
fn python_hears_nothing_of_calls_that_came_and_went() {
    let shared = Shared::new().unwrap();
    shared.publish(&mut vec![call(1)]);
    assert_eq!(shared.take_events().len(), 1);
    let message = Bytes::new();
    shared.publish(&mut vec![
        call(2),
        Event::Ended { id: 1 },
        Event::Message { id: 2, message },
        call(3),
        Event::Ended { id: 2 },
        Event::Stopped,
    ]);
    let left: Vec<_> = shared.take_events().iter().map(Event::call).collect();
    assert_eq!(left, vec![Some(1), Some(3), None]);
}
