//! The part of ONNX Runtime's C API that a session needs, declared by hand.
//!
//! `struct OrtApi` of onnxruntime_c_api.h is a table of function pointers. Their order is the ABI: it never
//! changes, new ones are added at the end. What is not called here is a gap.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem::{offset_of, size_of};

/// The version of the table that is asked for; a library gives every version up to its own.
pub const API_VERSION: u32 = 17;

// Values of the header's enumerations.
pub const ERRORS_ONLY: c_int = 3; // ORT_LOGGING_LEVEL_ERROR
pub const DEVICE_ALLOCATOR: c_int = 0; // OrtDeviceAllocator: memory that the caller owns
pub const DEFAULT_MEMORY: c_int = 0; // OrtMemTypeDefault
pub const FLOAT32: c_int = 1; // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT

/// A type of the library of which only pointers are known here.
macro_rules! opaque {
    ($($name:ident)*) => { $(
        #[repr(C)]
        pub struct $name {
            _private: [u8; 0],
        }
    )* };
}
opaque!(Env Status MemoryInfo LoadedModel Value RunOptions TypeInfo TensorInfo SessionOptions);

/// Null where the call succeeded.
pub type StatusPointer = *mut Status;
type Unused = *const c_void;
type Release<T> = unsafe extern "C" fn(*mut T);
type Count = unsafe extern "C" fn(*const LoadedModel, *mut usize) -> StatusPointer;
type TypeOf = unsafe extern "C" fn(*const LoadedModel, usize, *mut *mut TypeInfo) -> StatusPointer;
type SetNumber = unsafe extern "C" fn(*mut SessionOptions, c_int) -> StatusPointer;

/// `struct OrtApiBase`.
#[repr(C)]
pub struct ApiBase {
    pub get_api: unsafe extern "C" fn(u32) -> *const Api,
    pub get_version_string: unsafe extern "C" fn() -> *const c_char,
}

/// `struct OrtApi`, up to the last function that is called.
#[repr(C)]
pub struct Api {
    _0: [Unused; 2],
    pub get_error_message: unsafe extern "C" fn(*const Status) -> *const c_char,
    pub create_env: unsafe extern "C" fn(c_int, *const c_char, *mut *mut Env) -> StatusPointer,
    _4: [Unused; 4],
    pub create_session_from_array: unsafe extern "C" fn(
        *const Env,
        *const c_void,
        usize,
        *const SessionOptions,
        *mut *mut LoadedModel,
    ) -> StatusPointer,
    pub run: unsafe extern "C" fn(
        *mut LoadedModel,
        *const RunOptions,
        *const *const c_char,
        *const *const Value,
        usize,
        *const *const c_char,
        usize,
        *mut *mut Value,
    ) -> StatusPointer,
    pub create_session_options: unsafe extern "C" fn(*mut *mut SessionOptions) -> StatusPointer,
    _11: [Unused; 11],
    pub set_session_log_severity_level: SetNumber,
    _23: [Unused; 1],
    pub set_intra_op_num_threads: SetNumber,
    pub set_inter_op_num_threads: SetNumber,
    _26: [Unused; 4],
    pub session_get_input_count: Count,
    pub session_get_output_count: Count,
    _32: [Unused; 1],
    pub session_get_input_type_info: TypeOf,
    pub session_get_output_type_info: TypeOf,
    _35: [Unused; 14],
    pub create_tensor_with_data_as_ort_value: unsafe extern "C" fn(
        *const MemoryInfo,
        *mut c_void,
        usize,
        *const i64,
        usize,
        c_int,
        *mut *mut Value,
    ) -> StatusPointer,
    _50: [Unused; 5],
    pub cast_type_info_to_tensor_info:
        unsafe extern "C" fn(*const TypeInfo, *mut *const TensorInfo) -> StatusPointer,
    _56: [Unused; 4],
    pub get_tensor_element_type:
        unsafe extern "C" fn(*const TensorInfo, *mut c_int) -> StatusPointer,
    pub get_dimensions_count: unsafe extern "C" fn(*const TensorInfo, *mut usize) -> StatusPointer,
    pub get_dimensions: unsafe extern "C" fn(*const TensorInfo, *mut i64, usize) -> StatusPointer,
    _63: [Unused; 6],
    pub create_cpu_memory_info:
        unsafe extern "C" fn(c_int, c_int, *mut *mut MemoryInfo) -> StatusPointer,
    _70: [Unused; 22],
    pub release_env: Release<Env>,
    pub release_status: Release<Status>,
    pub release_memory_info: Release<MemoryInfo>,
    pub release_session: Release<LoadedModel>,
    pub release_value: Release<Value>,
    _97: [Unused; 1],
    pub release_type_info: Release<TypeInfo>,
    _99: [Unused; 1],
    pub release_session_options: Release<SessionOptions>,
    _101: [Unused; 29],
    pub add_session_config_entry:
        unsafe extern "C" fn(*mut SessionOptions, *const c_char, *const c_char) -> StatusPointer,
}

/// Fails the build where a function is not at the place that it has in the header.
macro_rules! at {
    ($($place:literal $name:ident)*) => {
        $( const _: () = assert!(offset_of!(Api, $name) == $place * size_of::<Unused>()); )*
    };
}
at! {
    2 get_error_message
    3 create_env
    8 create_session_from_array
    9 run
    10 create_session_options
    22 set_session_log_severity_level
    24 set_intra_op_num_threads
    25 set_inter_op_num_threads
    30 session_get_input_count
    31 session_get_output_count
    33 session_get_input_type_info
    34 session_get_output_type_info
    49 create_tensor_with_data_as_ort_value
    55 cast_type_info_to_tensor_info
    60 get_tensor_element_type
    61 get_dimensions_count
    62 get_dimensions
    69 create_cpu_memory_info
    92 release_env
    93 release_status
    94 release_memory_info
    95 release_session
    96 release_value
    98 release_type_info
    100 release_session_options
    130 add_session_config_entry
}

impl Api {
    /// Return the error of a call, if it is one, as text.
    pub fn check(&self, status: StatusPointer) -> Result<(), String> {
        if status.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not null is one of the library's; it is read, then released once.
        let text = unsafe {
            let message = CStr::from_ptr((self.get_error_message)(status));
            let text = message.to_string_lossy().into_owned();
            (self.release_status)(status);
            text
        };
        Err(text)
    }
}
