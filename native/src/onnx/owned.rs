//! Things of the library, each released once.

use std::ptr::{null_mut, NonNull};

use super::api::{Api, StatusPointer};

/// A thing of the library with the function that releases it.
pub struct Owned<T> {
    pointer: NonNull<T>,
    release: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Return what `create` writes through its argument.
    ///
    /// `release` must be the function that the library has for things of this type.
    pub fn new(
        api: &Api,
        release: unsafe extern "C" fn(*mut T),
        create: impl FnOnce(*mut *mut T) -> StatusPointer,
    ) -> Result<Self, String> {
        let mut pointer = null_mut();
        api.check(create(&mut pointer))?;
        let pointer = NonNull::new(pointer).ok_or("ONNX Runtime gave nothing and no error")?;
        Ok(Self { pointer, release })
    }

    pub fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the library made it, and nothing else releases it.
        unsafe { (self.release)(self.pointer.as_ptr()) };
    }
}
