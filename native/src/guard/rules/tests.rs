use super::*;

const MIN_PING: Duration = Duration::from_secs(5);
const MAX_CALLS: u32 = 1024;
const CONTINUATION: u8 = 9;

fn head(kind: u8, flags: u8, length: u32) -> Head {
    Head {
        length,
        kind,
        flags,
        stream: 1,
    }
}

fn rules() -> Rules {
    Rules::new(MIN_PING, MAX_CALLS)
}

/// Read so many of the frame at one time; return how many were allowed and what came then.
fn allowed(rules: &mut Rules, frame: Head, most: u32) -> (u32, Option<&'static str>) {
    for count in 0..most {
        if let Some(text) = rules.read(frame) {
            return (count, Some(text));
        }
    }
    (most, None)
}

#[test]
fn pings_at_the_interval_are_allowed_for_ever() {
    let mut rules = rules();
    for count in 0..1_000 {
        rules.begin(rules.second + MIN_PING * count);
        assert_eq!(rules.read(head(PING, 0, 8)), None);
    }
}

#[test]
fn the_third_ping_that_comes_too_early_is_the_last() {
    let mut rules = rules();
    let ping = head(PING, 0, 8);
    assert_eq!(allowed(&mut rules, ping, 9), (3, Some("too_many_pings")));
}

#[test]
fn strikes_are_counted_over_the_whole_connection() {
    let (mut rules, start) = (rules(), Instant::now());
    let mut found = Vec::new();
    for seconds in [0, 4, 60, 64, 120, 124] {
        rules.begin(start + Duration::from_secs(seconds));
        found.push(rules.read(head(PING, 0, 8)));
    }
    let last = found.pop().unwrap();
    assert_eq!((found, last), (vec![None; 5], Some("too_many_pings")));
}

#[test]
fn what_the_server_sends_forgives_pings() {
    for (kind, is_forgiving) in [
        (DATA, true),
        (HEADERS, true),
        (WINDOW_UPDATE, true),
        (PING, false),
        (SETTINGS, false),
        (RST_STREAM, false),
    ] {
        let mut rules = rules();
        let ping = head(PING, 0, 8);
        assert_eq!(allowed(&mut rules, ping, 3), (3, None));
        rules.wrote(head(kind, 0, 4));
        let more = if is_forgiving { 3 } else { 0 };
        assert_eq!(
            allowed(&mut rules, ping, 9),
            (more, Some("too_many_pings")),
            "{kind}"
        );
    }
}

#[test]
fn each_kind_of_flood_ends_the_connection() {
    let resets = 2 * MAX_CALLS;
    for (frame, most, text) in [
        (head(SETTINGS, 0, 0), MAX_SETTINGS, "too_many_settings"),
        (head(RST_STREAM, 0, 4), resets, "too_many_resets"),
        (head(WINDOW_UPDATE, 0, 4), MAX_IDLE, "too_many_frames"),
        (head(PING, ACK, 8), MAX_IDLE, "too_many_frames"),
        (head(SETTINGS, ACK, 0), MAX_IDLE, "too_many_frames"),
        (head(DATA, 0, 0), MAX_IDLE, "too_many_frames"),
        (head(2, 0, 5), MAX_IDLE, "too_many_frames"),
        (head(CONTINUATION, 0, 0), MAX_IDLE, "too_many_frames"),
        (head(0xfe, 0, 9), MAX_IDLE, "too_many_frames"),
    ] {
        let mut rules = rules();
        for second in 0..5 {
            rules.begin(rules.second + SECOND * second);
            assert_eq!(allowed(&mut rules, frame, most), (most, None), "{frame:?}");
        }
        assert_eq!(rules.read(frame), Some(text), "{frame:?}");
    }
}

#[test]
fn calls_and_their_messages_are_no_flood() {
    let mut rules = rules();
    for frame in [
        head(HEADERS, 4, 30),
        head(DATA, 0, 1),
        head(DATA, END_STREAM, 0),
    ] {
        assert_eq!(allowed(&mut rules, frame, 1_000_000), (1_000_000, None));
    }
}

#[test]
fn answers_allow_more_resets_and_updates() {
    let mut rules = rules();
    for _ in 0..1_000 {
        rules.wrote(head(HEADERS, 4, 10));
        rules.wrote(head(DATA, 0, 10));
    }
    let most = 2 * MAX_CALLS + 1_000;
    let reset = head(RST_STREAM, 0, 4);
    assert_eq!(allowed(&mut rules, reset, 1 << 20).0, most);
    let most = MAX_IDLE + 2 * 1_000 * IDLE_FOR_EACH_SENT;
    let update = head(WINDOW_UPDATE, 0, 4);
    assert_eq!(allowed(&mut rules, update, 1 << 20).0, most);
}

#[test]
fn the_last_call_is_the_one_of_the_highest_stream() {
    let mut rules = rules();
    for stream in [1, 7, 5] {
        rules.read(Head {
            stream,
            ..head(HEADERS, 4, 9)
        });
    }
    rules.read(Head {
        stream: 9,
        ..head(RST_STREAM, 0, 4)
    });
    assert_eq!(rules.last_call(), 7);
}
