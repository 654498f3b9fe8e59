//! Admission: how many images may wait or run, over the lane and Python's batchers together.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

/// The images that wait or run; both threads count theirs.
#[derive(Debug)]
pub struct Admission {
    images: AtomicI64,
    max: i64,
}

impl Admission {
    pub fn new(max: i64) -> Arc<Self> {
        let images = AtomicI64::new(0);
        Arc::new(Self { images, max })
    }

    /// Counts images in, if there is room for all of them.
    pub fn acquire(&self, images: i64) -> bool {
        let add = |now: i64| now.checked_add(images).filter(|&sum| sum <= self.max);
        let order = Ordering::Relaxed; // it guards no other memory
        self.images.fetch_update(order, order, add).is_ok()
    }

    pub fn release(&self, images: i64) {
        self.images.fetch_sub(images, Ordering::Relaxed);
    }

    /// Tells whether so many images would be admitted now.
    pub fn has_room(&self, images: usize) -> bool {
        i64::try_from(images).is_ok_and(|images| images <= self.max - self.images())
    }

    pub fn max(&self) -> i64 {
        self.max
    }

    pub fn images(&self) -> i64 {
        self.images.load(Ordering::Relaxed)
    }
}

/// Images that were admitted, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    images: i64,
}

impl Admitted {
    /// Admits images, if there is room for all of them.
    pub fn of(admission: &Arc<Admission>, images: usize) -> Option<Self> {
        let images = i64::try_from(images).ok()?;
        let admission = Arc::clone(admission);
        // Not `then_some`: what it is given is dropped, and would release what was not admitted.
        admission
            .acquire(images)
            .then(|| Self { admission, images })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.release(self.images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_admitted_up_to_the_limit_and_released() {
        let admission = Admission::new(10);
        let six = Admitted::of(&admission, 6).unwrap();
        assert!(Admitted::of(&admission, 5).is_none());
        let four = Admitted::of(&admission, 4).unwrap();
        assert_eq!(admission.images(), 10);
        assert!(!admission.has_room(1));
        drop(six);
        assert!(admission.has_room(6) && !admission.has_room(7));
        drop(four);
        assert_eq!(admission.images(), 0);
        assert!(Admitted::of(&admission, usize::MAX).is_none());
        assert!(!admission.acquire(i64::MAX));
    }
}
