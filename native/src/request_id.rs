//! `x-request-id`: as the client sends it, or made; it goes back with every end of a call.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub const NAME: HeaderName = HeaderName::from_static("x-request-id");

const MAX_BYTES: usize = 128;
const HEX_DIGITS: usize = 16; // of 64 bits
/// Odd, so that every number has a product of its own: an id doesn't tell how many came before.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes the ids of one process.
pub struct RequestIds {
    prefix: [u8; HEX_DIGITS],
    next: Cell<u64>,
}

impl RequestIds {
    pub fn new() -> Self {
        let random = |of: u8| RandomState::new().hash_one(of);
        Self {
            prefix: hex(random(0)),
            next: Cell::new(random(1)),
        }
    }

    /// Return the id of a call with these headers.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let mut sent = headers.get_all(NAME).iter().rev();
        let mut id = match sent.find(|value| is_taken(value.as_bytes())) {
            Some(value) => value.clone(),
            None => self.make(),
        };
        // Each is another: it has no place in the connection's table of headers.
        id.set_sensitive(true);
        id
    }

    fn make(&self) -> HeaderValue {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut id = [0; 2 * HEX_DIGITS];
        id[..HEX_DIGITS].copy_from_slice(&self.prefix);
        id[HEX_DIGITS..].copy_from_slice(&hex(number.wrapping_mul(SCATTER)));
        HeaderValue::from_bytes(&id).expect("digits are allowed")
    }
}

/// Tell if an id may be taken, as server/observability/request_id.py does.
fn is_taken(id: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(is_allowed)
}

fn hex(number: u64) -> [u8; HEX_DIGITS] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; HEX_DIGITS];
    for (pair, byte) in out.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id_of(ids: &RequestIds, sent: &str) -> String {
        let headers = HeaderMap::from_iter([(NAME, sent.parse().unwrap())]);
        ids.of(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn an_id_that_may_be_taken_is_taken_and_another_is_made() {
        let ids = RequestIds::new();
        for right in ["a", "Az09._-", &"x".repeat(128)] {
            assert_eq!(id_of(&ids, right), right);
        }
        for wrong in ["", " ", "a b", "a/b", "a\"", &"x".repeat(129)] {
            let made = id_of(&ids, wrong);
            assert_eq!(made.len(), 32, "{wrong:?}");
            assert!(made.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn of_several_ids_the_last_that_may_be_taken_is_taken() {
        let values = ["a", "b", "c d"].map(|value| (NAME, value.parse().unwrap()));
        assert_eq!(RequestIds::new().of(&HeaderMap::from_iter(values)), "b");
    }

    #[test]
    fn no_two_ids_are_alike() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let made = |ids: &RequestIds| ids.of(&HeaderMap::new());
        let all: HashSet<_> = (0..1000).flat_map(|_| [made(&one), made(&other)]).collect();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn numbers_are_written_as_hexadecimal_digits() {
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }
}
