//! Calls that ended before Python heard of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderName;

use crate::clock::monotonic_seconds;
use crate::events::Event;
use crate::grpc::{Value, CANCELLED, DEADLINE_EXCEEDED};
use crate::methods::Methods;
use crate::observer::{is_failure_of_server, Audience, Ends, TRACEPARENT};
use crate::request_id::NAME as REQUEST_ID;

/// The caller's own clock may be a little ahead, as in server/transport/grpc/handlers.py.
const CLOCK_SECONDS: f64 = 0.02;

/// Leave such calls out and count them: a client that resets its calls at once (CVE-2023-44487) makes
/// Python no work.
pub fn drop_unheard(events: &mut Vec<Event>, methods: &Methods) {
    let mut unheard: HashMap<u64, Option<u32>> = events.iter().filter_map(Event::ended).collect();
    if unheard.is_empty() {
        return;
    }
    let begun: HashSet<u64> = events.iter().filter_map(Event::begun).collect();
    unheard.retain(|id, _| begun.contains(id));
    let ended = |event: &Event| event.call().and_then(|id| unheard.get(&id).copied());
    for event in events.iter_mut() {
        if let Some(observed) = ended(event).and_then(|code| counted(event, code, methods)) {
            *event = observed;
        }
    }
    events.retain(|event| ended(event).is_none());
}

/// Count a call that ended, with that code if one was sent, if the event is its begin; return what
/// Python is to know of it.
fn counted(event: &Event, code: Option<u32>, methods: &Methods) -> Option<Event> {
    let Event::Call {
        method,
        peer,
        metadata,
        deadline,
        began,
        message,
        ..
    } = event
    else {
        return None;
    };
    let code = code.unwrap_or_else(|| code_of_lost(*deadline));
    methods.count(method, code);
    if !is_failure_of_server(code) {
        return None;
    }
    let text_of = |name: HeaderName| {
        let found = metadata.iter().find(|(key, _)| name == **key);
        found.and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Binary(_) => None,
        })
    };
    let ends = Ends {
        method: method.clone(),
        peer: Arc::clone(peer),
        request_id: text_of(REQUEST_ID).unwrap_or_default(),
        traceparent: text_of(TRACEPARENT),
        began: *began,
        code,
        audience: Audience::All,
    };
    let bytes = message.as_ref().map_or(0, |message| message.len());
    Some(Event::Observed(Box::new(ends.unanswered(bytes))))
}

fn code_of_lost(deadline: Option<f64>) -> u32 {
    match deadline {
        Some(deadline) if monotonic_seconds() + CLOCK_SECONDS >= deadline => DEADLINE_EXCEEDED,
        _ => CANCELLED,
    }
}

#[cfg(test)]
mod tests;
