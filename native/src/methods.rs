//! The methods of the services, and their calls that ended before a service or the lane had them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counts::loaded;

/// Codes of gRPC are below.
const CODES: usize = 17;
const UNKNOWN_CODE: u32 = 2;
/// Stands for every path that is no method's.
pub const UNKNOWN: &str = "unknown";

type Ended = [AtomicU64; CODES];

struct Method {
    is_unary: bool,
    ended: Ended,
}

pub struct Methods {
    by_path: HashMap<String, Method>,
    unknown: Ended,
}

impl Methods {
    /// Each by its path, with whether it is of one request and one response.
    pub fn new(methods: impl IntoIterator<Item = (String, bool)>) -> Self {
        let ended = || std::array::from_fn(|_| AtomicU64::new(0));
        let method = |(path, is_unary)| {
            let ended = ended();
            (path, Method { is_unary, ended })
        };
        Self {
            by_path: methods.into_iter().map(method).collect(),
            unknown: ended(),
        }
    }

    pub fn is_unary(&self, path: &str) -> bool {
        self.by_path.get(path).is_some_and(|method| method.is_unary)
    }

    /// Count a call that ended; either thread may.
    pub fn count(&self, path: &str, code: u32) {
        let method = self.by_path.get(path);
        let ended = method.map_or(&self.unknown, |method| &method.ended);
        let place = if (code as usize) < CODES {
            code
        } else {
            UNKNOWN_CODE
        };
        ended[place as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Return how many calls of which path ended with which code, as far as some did.
    pub fn ended(&self) -> Vec<(String, u32, u64)> {
        let known = self.by_path.iter().map(|(path, of)| (&**path, &of.ended));
        let all = known.chain([(UNKNOWN, &self.unknown)]);
        all.flat_map(|(path, ended)| {
            let counts = (0..).zip(ended.iter().map(loaded));
            let some = counts.filter(|&(_, count)| count > 0);
            some.map(|(code, count)| (path.to_owned(), code, count))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_by_their_method_and_code() {
        let methods = Methods::new([("/a/B".to_owned(), true), ("/a/C".to_owned(), false)]);
        assert!(methods.is_unary("/a/B") && !methods.is_unary("/a/C"));
        for (path, code) in [("/a/B", 13), ("/a/B", 13), ("/x", 4), ("/y", 4), ("/y", 99)] {
            methods.count(path, code);
        }
        let mut ended = methods.ended();
        ended.sort();
        let of = |path: &str, code, count| (path.to_owned(), code, count);
        let expected = [of("/a/B", 13, 2), of("unknown", 2, 1), of("unknown", 4, 2)];
        assert_eq!(ended, expected);
    }
}
