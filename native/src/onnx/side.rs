//! One side of a model, and tensors over the caller's memory.

use std::ffi::CString;
use std::ptr::null;

use super::api::{Api, MemoryInfo, StatusPointer, TypeInfo, Value, FLOAT32};
use super::owned::Owned;

/// One side of the model: its name, the shape of one image's part, and the tensor of the last run.
pub struct Side {
    pub name: CString,
    shape: Vec<i64>, // the first dimension is the number of images
    pub each: usize, // numbers for one image
    pub last: Option<Tensor>,
}

/// A tensor over memory that the caller owns. It is used only while that memory is borrowed.
pub struct Tensor {
    value: Owned<Value>,
    data: *mut f32,
    images: usize,
}

impl Side {
    pub fn new(
        api: &Api,
        name: &str,
        type_of: impl FnOnce(*mut *mut TypeInfo) -> StatusPointer,
    ) -> Result<Self, String> {
        let shown = name;
        let name = CString::new(name).map_err(|_| "a value's name holds a zero byte")?;
        let kind = Owned::new(api, api.release_type_info, type_of)?;
        let (mut tensor, mut element, mut count) = (null(), 0, 0);
        // SAFETY: `tensor` belongs to `kind`, which lives; null, for another kind of value, is not read.
        let shape = unsafe {
            api.check((api.cast_type_info_to_tensor_info)(kind.get(), &mut tensor))?;
            if tensor.is_null() {
                return Err(format!("{shown:?} is not a tensor"));
            }
            api.check((api.get_tensor_element_type)(tensor, &mut element))?;
            api.check((api.get_dimensions_count)(tensor, &mut count))?;
            let mut shape = vec![0; count];
            api.check((api.get_dimensions)(tensor, shape.as_mut_ptr(), count))?;
            shape
        };
        let fixed = shape.iter().skip(1).map(|&size| usize::try_from(size));
        let each = fixed.collect::<Result<Vec<_>, _>>().ok();
        let each = each.and_then(|sizes| sizes.iter().try_fold(1_usize, |a, b| a.checked_mul(*b)));
        // A free dimension is -1.
        match (element, shape.first(), each) {
            (FLOAT32, Some(-1), Some(each)) if each > 0 => Ok(Self {
                name,
                shape,
                each,
                last: None,
            }),
            _ => Err(format!(
                "{shown:?} has type {element} and shape {shape:?}; expected float32 (1), with the \
                 first dimension free (-1) and the others fixed"
            )),
        }
    }

    /// Check that a caller's memory is as large as so many images need.
    pub fn expect(&self, length: usize, images: usize) -> Result<(), String> {
        if images == 0 || self.each.checked_mul(images) != Some(length) {
            let (name, each) = (&self.name, self.each);
            return Err(format!(
                "{length} numbers for {images} images; {name:?} has {each} for each"
            ));
        }
        Ok(())
    }

    /// Return a tensor over a caller's memory, the last one if it fits: to make one costs 0.1 us.
    pub fn tensor(
        &mut self,
        api: &Api,
        memory: &Owned<MemoryInfo>,
        data: *mut f32,
        images: usize,
    ) -> Result<*mut Value, String> {
        if let Some(last) = &self.last {
            if last.data == data && last.images == images {
                return Ok(last.value.get());
            }
        }
        self.shape[0] = i64::try_from(images).map_err(|error| error.to_string())?;
        let bytes = self.each * images * size_of::<f32>();
        // SAFETY: the arguments live during the call, and the library only keeps the address of `data`.
        let value = Owned::new(api, api.release_value, |out| unsafe {
            (api.create_tensor_with_data_as_ort_value)(
                memory.get(),
                data.cast(),
                bytes,
                self.shape.as_ptr(),
                self.shape.len(),
                FLOAT32,
                out,
            )
        })?;
        let kept = self.last.insert(Tensor {
            value,
            data,
            images,
        });
        Ok(kept.value.get())
    }
}
