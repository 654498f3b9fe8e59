//! Bearer tokens: which calls the lane may answer. What it does not allow, Python judges.

use std::hint::black_box;

use http::header::AUTHORIZATION;
use http::HeaderMap;

const SCHEME: &[u8] = b"bearer"; // case does not matter: RFC 9110, 11.1

/// The tokens of which a call needs one.
pub enum Tokens {
    /// Calls need none.
    NotNeeded,
    OneOf(Vec<String>),
}

impl Tokens {
    /// Returns the tokens before any was given: where calls need one, none is right.
    pub fn new(are_needed: bool) -> Self {
        match are_needed {
            true => Self::OneOf(Vec::new()),
            false => Self::NotNeeded,
        }
    }

    pub fn set(&mut self, tokens: Vec<String>) {
        *self = Self::OneOf(tokens);
    }

    /// Tells whether a call with these headers has a right token, as server/security/tokens.py does.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::NotNeeded => true,
            Self::OneOf(tokens) => is_allowed(tokens, headers).unwrap_or(false),
        }
    }
}

fn is_allowed(tokens: &[String], headers: &HeaderMap) -> Option<bool> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else {
        return None;
    };
    let space = value.iter().position(|&byte| byte == b' ')?;
    let (scheme, token) = (&value[..space], value[space..].trim_ascii());
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    // All are compared, each in a time that does not tell how much of it was right.
    let right = tokens.iter().map(|each| is_equal(each.as_bytes(), token));
    Some(right.fold(false, |any, right| any | right))
}

fn is_equal(left: &[u8], right: &[u8]) -> bool {
    let differences = |found, (a, b): (&u8, &u8)| black_box(found | (a ^ b));
    left.len() == right.len() && left.iter().zip(right).fold(0, differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(tokens: &Tokens, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        tokens.allow(&headers)
    }

    #[test]
    fn a_call_needs_one_of_the_tokens_once() {
        let mut tokens = Tokens::new(true);
        assert!(!allowed(&tokens, &["Bearer one"]));
        tokens.set(vec!["one".into(), "two".into()]);
        for right in ["Bearer one", "bearer two", "BEARER  two "] {
            assert!(allowed(&tokens, &[right]), "{right}");
        }
        for wrong in [
            "",
            "one",
            "Bearer",
            "Bearer ",
            "Bearer on",
            "Bearer onee",
            "Basic one",
        ] {
            assert!(!allowed(&tokens, &[wrong]), "{wrong}");
        }
        assert!(!allowed(&tokens, &[]));
        assert!(!allowed(&tokens, &["Bearer one", "Bearer one"]));
        assert!(allowed(&Tokens::new(false), &[]));
    }
}
