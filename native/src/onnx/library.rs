//! The library itself: loaded once, and kept until the process ends.

use std::error::Error;
use std::ffi::CStr;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::api::{Api, ApiBase, API_VERSION};

/// Load the library, or find it loaded, and return its functions.
pub fn open(path: &Path) -> Result<&'static Api, String> {
    let shown = path.display();
    // SAFETY: the path names ONNX Runtime's library, whose initialisers are fit to run in any thread.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        // The loader's own words are one level down.
        let reason = error
            .source()
            .map_or(String::new(), |reason| format!(": {reason}"));
        format!("{shown} can't be loaded: {error}{reason}")
    })?;
    // SAFETY: the header's type of this function.
    let base = unsafe {
        let entry = library
            .get::<unsafe extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0")
            .map_err(|error| format!("{shown} is not ONNX Runtime: {error}"))?;
        entry().as_ref()
    };
    let base = base.ok_or_else(|| format!("{shown} has no C API"))?;
    // SAFETY: both functions take any version and give null or a table that is never freed.
    let (api, version) = unsafe {
        let api = (base.get_api)(API_VERSION).as_ref();
        (api, CStr::from_ptr((base.get_version_string)()))
    };
    let api = api.ok_or_else(|| {
        let version = version.to_string_lossy();
        format!("{shown}, ONNX Runtime {version}, has no version {API_VERSION} of the C API")
    })?;
    // It has data of each thread that ran it, which must outlive the threads: it is never unloaded.
    // To load it again gives the same one, so there is one for each path.
    std::mem::forget(library);
    Ok(api)
}
