//! The images of requests that arrive in parts: the queue keeps room for them.
//!
//! Else all that an overload offers would be read, most of it to be refused, which costs more than the
//! runs. The room is kept for a moment only and is a part of the queue only, so those who announce much
//! and send little do not keep others out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// How long room is kept for a request.
const KEPT: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Arrivals {
    /// The oldest first; the images of those that have arrived are 0.
    kept: RefCell<VecDeque<(Instant, Rc<Cell<usize>>)>>,
    images: Rc<Cell<usize>>,
}

/// Room that is kept for a request until it is dropped.
pub struct Arrival {
    own: Rc<Cell<usize>>,
    all: Rc<Cell<usize>>,
}

impl Arrivals {
    /// Returns for how many images room is kept.
    pub fn images(&self, now: Instant) -> usize {
        let mut kept = self.kept.borrow_mut();
        while kept
            .front()
            .is_some_and(|(since, own)| own.get() == 0 || now - *since >= KEPT)
        {
            let (_, own) = kept.pop_front().expect("it is there");
            self.images.set(self.images.get() - own.take());
        }
        self.images.get()
    }

    /// Keeps room for a request.
    pub fn keep(&self, images: usize, now: Instant) -> Arrival {
        let own = Rc::new(Cell::new(images));
        self.kept.borrow_mut().push_back((now, Rc::clone(&own)));
        self.images.set(self.images.get() + images);
        Arrival {
            own,
            all: Rc::clone(&self.images),
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.own.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_until_a_request_has_arrived_and_not_for_long() {
        let (arrivals, now) = (Arrivals::default(), Instant::now());
        let first = arrivals.keep(3, now);
        let second = arrivals.keep(4, now + KEPT / 2);
        assert_eq!(arrivals.images(now + KEPT / 2), 7);
        assert_eq!(arrivals.images(now + KEPT), 4);
        drop(first);
        assert_eq!(arrivals.images(now + KEPT), 4);
        drop(second);
        assert_eq!(arrivals.images(now), 0);
        assert!(arrivals.kept.borrow().is_empty());
    }
}
