//! `Predict` and each message of `PredictStream` of forward.v1: the two have the same fields, by the
//! same numbers, in requests and in responses that carry logits.

use bytes::BytesMut;

use super::images::{Images, FLOAT32_BYTES};
use super::model::LaneModel;
use crate::wire::{
    field_len, put_bytes, put_header, put_once, put_varint, tag, varint_len, Reader,
    LENGTH_DELIMITED, VARINT,
};

// Fields of PredictRequest and PredictStreamRequest.
const IMAGES: u8 = tag(1, LENGTH_DELIMITED);
const MODEL: u8 = tag(2, LENGTH_DELIMITED);
// Fields of Tensor.
const DTYPE_FIELD: u8 = 1;
const SHAPE_FIELD: u8 = 2;
const DATA_FIELD: u8 = 3;
const DTYPE: u8 = tag(DTYPE_FIELD, VARINT);
const SHAPE: u8 = tag(SHAPE_FIELD, LENGTH_DELIMITED);
const DATA: u8 = tag(DATA_FIELD, LENGTH_DELIMITED);
// Fields of ModelSelector.
const NAME: u8 = tag(1, LENGTH_DELIMITED);
const VERSION: u8 = tag(2, VARINT);
// Fields of PredictResponse and PredictStreamResponse.
const LOGITS_FIELD: u8 = 1;
const IDENTITY_FIELD: u8 = 2;
// Values of DataType.
const FLOAT32: u64 = 1;
const UINT8: u64 = 2;

/// Returns the images of a request to that model, or `None` if Python is to read it.
pub fn decode<'a>(message: &'a [u8], model: &LaneModel) -> Option<Images<'a>> {
    let (mut images, mut selector) = (None, None);
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.tag()? {
            IMAGES => put_once(&mut images, reader.bytes()?)?,
            MODEL => put_once(&mut selector, reader.bytes()?)?,
            _ => return None,
        }
    }
    if !selects(selector.unwrap_or_default(), model)? {
        return None;
    }
    decode_tensor(images?, model)
}

/// Returns how many images a request of so many bytes has, by its begin.
pub fn announced(begin: &[u8], bytes: usize, model: &LaneModel) -> usize {
    model.announced(begin, bytes, IMAGES, SHAPE)
}

fn decode_tensor<'a>(tensor: &'a [u8], model: &LaneModel) -> Option<Images<'a>> {
    let (mut dtype, mut shape, mut data) = (None, None, None);
    let mut reader = Reader::new(tensor);
    while !reader.is_empty() {
        match reader.tag()? {
            DTYPE => put_once(&mut dtype, reader.varint()?)?,
            SHAPE => put_once(&mut shape, reader.bytes()?)?,
            DATA => put_once(&mut data, reader.bytes()?)?,
            _ => return None,
        }
    }
    let count = model.count(shape?)?;
    match dtype? {
        UINT8 => Images::uint8(model, count, data?),
        FLOAT32 => Images::float32(model, count, data?),
        _ => None,
    }
}

/// Tells whether a ModelSelector is of that model; an empty name and a version of 0 are of any.
fn selects(selector: &[u8], model: &LaneModel) -> Option<bool> {
    let (mut name, mut version) = (None, None);
    let mut reader = Reader::new(selector);
    while !reader.is_empty() {
        match reader.tag()? {
            NAME => put_once(&mut name, reader.bytes()?)?,
            VERSION => put_once(&mut version, reader.varint()?)?,
            _ => return None,
        }
    }
    let (name, version) = (name.unwrap_or_default(), version.unwrap_or_default());
    let is_name = name.is_empty() || name == model.name.as_bytes();
    Some(is_name && (version == 0 || version == model.version as u64))
}

/// Returns how many bytes `encode` appends.
pub fn response_len(model: &LaneModel, count: usize) -> usize {
    field_len(tensor_len(model, count)) + field_len(model.identity.len())
}

/// Appends the response that carries those logits, `count` rows of one for each class.
pub fn encode(model: &LaneModel, logits: &[f32], count: usize, out: &mut BytesMut) {
    debug_assert_eq!(logits.len(), count * model.classes);
    put_header(out, LOGITS_FIELD, tensor_len(model, count));
    put_varint(out, u64::from(DTYPE));
    put_varint(out, FLOAT32);
    put_shape(out, SHAPE_FIELD, count, model.classes);
    put_floats(out, DATA_FIELD, logits);
    put_bytes(out, IDENTITY_FIELD, &model.identity);
}

fn tensor_len(model: &LaneModel, count: usize) -> usize {
    let dtype = 2;
    let shape = field_len(shape_len(count, model.classes));
    dtype + shape + field_len(count * model.classes * FLOAT32_BYTES)
}

/// Returns how many bytes a shape of two dimensions takes, packed.
pub(super) fn shape_len(count: usize, classes: usize) -> usize {
    varint_len(count as u64) + varint_len(classes as u64)
}

pub(super) fn put_shape(out: &mut BytesMut, field: u8, count: usize, classes: usize) {
    put_header(out, field, shape_len(count, classes));
    put_varint(out, count as u64);
    put_varint(out, classes as u64);
}

/// Writes floats as bytes, little-endian.
pub(super) fn put_floats(out: &mut BytesMut, field: u8, floats: &[f32]) {
    put_header(out, field, floats.len() * FLOAT32_BYTES);
    let start = out.len();
    out.resize(start + floats.len() * FLOAT32_BYTES, 0);
    let places = out[start..].as_chunks_mut().0;
    for (four, float) in places.iter_mut().zip(floats) {
        *four = float.to_le_bytes();
    }
}
