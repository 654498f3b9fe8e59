//! A session of ONNX Runtime, through its C API: the same answers as the Python package's, by the bit.

mod api;
pub mod library;
mod owned;
mod resident;
mod side;
#[cfg(test)]
mod tests;

use std::ffi::{c_char, c_void, CStr};
use std::ptr::null;

use api::{
    Api, Env, LoadedModel, MemoryInfo, SessionOptions, DEFAULT_MEMORY, DEVICE_ALLOCATOR,
    ERRORS_ONLY,
};
use owned::Owned;
use side::Side;

/// The options of a session that are named by text, as export/runtimes/onnx.py sets them.
const ENTRIES: [(&CStr, &CStr); 2] = [
    (c"session.intra_op.allow_spinning", c"0"),
    // A model from bytes may name files with its tensors. No file can exist below this path.
    (
        c"session.model_external_initializers_file_folder_path",
        c"/dev/null",
    ),
];

/// A model, ready to run on the CPU. Fields are released in this order.
pub struct Session {
    input: Side,
    output: Side,
    memory: Owned<MemoryInfo>,
    model: Owned<LoadedModel>,
    _env: Owned<Env>,
    api: &'static Api,
}

// SAFETY: the library's things may be used and released by any thread, by one at a time, which `&mut
// self` sees to. The addresses in `Tensor` are only compared until a caller lends the same memory again.
unsafe impl Send for Session {}

impl Session {
    /// Load a model of one input and one output, float32, whose first dimension is free, and run it once.
    pub fn open(
        api: &'static Api,
        model: &[u8],
        threads: usize,
        input: &str,
        output: &str,
    ) -> Result<Self, String> {
        // SAFETY (all calls of this function): the arguments are of the header's types and live
        // during the call; what is created is written only where the call succeeds.
        let env = Owned::new(api, api.release_env, |out| unsafe {
            (api.create_env)(ERRORS_ONLY, c"forward".as_ptr(), out)
        })?;
        let options = session_options(api, threads)?;
        let model = Owned::new(api, api.release_session, |out| unsafe {
            let (data, size) = (model.as_ptr().cast(), model.len());
            (api.create_session_from_array)(env.get(), data, size, options.get(), out)
        })?;
        let memory = Owned::new(api, api.release_memory_info, |out| unsafe {
            (api.create_cpu_memory_info)(DEVICE_ALLOCATOR, DEFAULT_MEMORY, out)
        })?;
        let (inputs, outputs) = unsafe {
            let (mut inputs, mut outputs) = (0, 0);
            api.check((api.session_get_input_count)(model.get(), &mut inputs))?;
            api.check((api.session_get_output_count)(model.get(), &mut outputs))?;
            (inputs, outputs)
        };
        if (inputs, outputs) != (1, 1) {
            return Err(format!(
                "the model has {inputs} inputs and {outputs} outputs; expected one of each"
            ));
        }
        let input = Side::new(api, input, |out| unsafe {
            (api.session_get_input_type_info)(model.get(), 0, out)
        })?;
        let output = Side::new(api, output, |out| unsafe {
            (api.session_get_output_type_info)(model.get(), 0, out)
        })?;
        let mut session = Self {
            input,
            output,
            memory,
            model,
            _env: env,
            api,
        };
        session.try_once()?;
        resident::release_pages(api.run as *const c_void);
        Ok(session)
    }

    /// Return how many numbers an image has.
    pub fn image_len(&self) -> usize {
        self.input.each
    }

    /// Return how many numbers the answer to an image has.
    pub fn answer_len(&self) -> usize {
        self.output.each
    }

    /// Compute the answers to some images, in place: neither side is copied.
    pub fn run(&mut self, pixels: &[f32], images: usize, logits: &mut [f32]) -> Result<(), String> {
        let (api, memory) = (self.api, &self.memory);
        self.input.expect(pixels.len(), images)?;
        self.output.expect(logits.len(), images)?;
        // The library reads the input only; its C API has no tensor over memory that may not change.
        let input = self
            .input
            .tensor(api, memory, pixels.as_ptr().cast_mut(), images)?;
        let output = self
            .output
            .tensor(api, memory, logits.as_mut_ptr(), images)?;
        let (inputs, mut outputs) = ([input.cast_const()], [output]);
        let input_names: [*const c_char; 1] = [self.input.name.as_ptr()];
        let output_names: [*const c_char; 1] = [self.output.name.as_ptr()];
        // SAFETY: one name and one value on each side; the values lie over memory that is borrowed for
        // this call and as large as their shapes say. An output that is given is not replaced.
        api.check(unsafe {
            (api.run)(
                self.model.get(),
                null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                1,
                output_names.as_ptr(),
                1,
                outputs.as_mut_ptr(),
            )
        })
    }

    /// Show at once whether the names are the model's and the output is written where it should be.
    fn try_once(&mut self) -> Result<(), String> {
        let pixels = vec![0.0; self.image_len()];
        let mut logits = vec![f32::NAN; self.answer_len()];
        self.run(&pixels, 1, &mut logits)?;
        (self.input.last, self.output.last) = (None, None); // their memory ends here
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err("the model leaves NaN in the answer to an image of zeros".into());
        }
        Ok(())
    }
}

fn session_options(api: &Api, threads: usize) -> Result<Owned<SessionOptions>, String> {
    let threads = i32::try_from(threads.max(1)).map_err(|error| error.to_string())?;
    // SAFETY (all calls of this function): the arguments are of the header's types and live.
    let options = Owned::new(api, api.release_session_options, |out| unsafe {
        (api.create_session_options)(out)
    })?;
    let pointer = options.get();
    unsafe {
        api.check((api.set_intra_op_num_threads)(pointer, threads))?;
        api.check((api.set_inter_op_num_threads)(pointer, 1))?;
        api.check((api.set_session_log_severity_level)(pointer, ERRORS_ONLY))?;
        for (key, value) in ENTRIES {
            let (key, value) = (key.as_ptr(), value.as_ptr());
            api.check((api.add_session_config_entry)(pointer, key, value))?;
        }
    }
    Ok(options)
}
