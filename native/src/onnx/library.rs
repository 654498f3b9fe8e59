//! ONNX Runtime's functions, as the Python package's own module has them.
//!
//! That module exports no name. But it gives the table of its functions to every library of custom
//! operators that it registers: the extension is registered as one, has no operator, and keeps the table.
//! So one copy of ONNX Runtime is in the process; libonnxruntime.so, the package's second, is not needed.

use std::ffi::CStr;
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::api::{Api, ApiBase, SessionOptions, StatusPointer, API_VERSION};

/// The table of the module that registered this library; null: none has.
static REGISTERED: AtomicPtr<ApiBase> = AtomicPtr::new(null_mut());

/// Take the table; called by ONNX Runtime, by this name. Null: no error.
///
/// # Safety
/// The base must be ONNX Runtime's, which is never freed: Python unloads no module.
#[no_mangle]
pub unsafe extern "C" fn RegisterCustomOps(
    _options: *mut SessionOptions,
    base: *const ApiBase,
) -> StatusPointer {
    REGISTERED.store(base.cast_mut(), Ordering::Release);
    null_mut()
}

/// Return the functions of the ONNX Runtime that registered this library.
pub fn registered() -> Result<&'static Api, String> {
    let base = NonNull::new(REGISTERED.load(Ordering::Acquire));
    let base = base.ok_or("no ONNX Runtime has registered this library")?;
    // SAFETY: RegisterCustomOps had it of ONNX Runtime.
    functions(unsafe { base.as_ref() })
}

/// Return the functions that a table leads to.
pub fn functions(base: &ApiBase) -> Result<&'static Api, String> {
    // SAFETY: both functions take any version and give null or a table that is never freed.
    let (api, version) = unsafe {
        let api = (base.get_api)(API_VERSION).as_ref();
        (api, CStr::from_ptr((base.get_version_string)()))
    };
    api.ok_or_else(|| {
        let version = version.to_string_lossy();
        format!("ONNX Runtime {version} has no version {API_VERSION} of the C API")
    })
}
