//! `ModelInfer` of the Open Inference Protocol, of raw images and for the logits alone.

use bytes::BytesMut;

use super::images::{Images, FLOAT32_BYTES};
use super::model::LaneModel;
use super::predict::{put_floats, put_shape, shape_len};
use crate::wire::{
    field_len, put_bytes, put_header, put_once, put_string, string_len, tag, Reader,
    LENGTH_DELIMITED,
};

// Fields of ModelInferRequest. The lane takes no parameters (4).
const MODEL_NAME: u8 = tag(1, LENGTH_DELIMITED);
const MODEL_VERSION: u8 = tag(2, LENGTH_DELIMITED);
const ID: u8 = tag(3, LENGTH_DELIMITED);
const INPUTS: u8 = tag(5, LENGTH_DELIMITED);
const OUTPUTS: u8 = tag(6, LENGTH_DELIMITED);
const RAW_INPUT_CONTENTS: u8 = tag(7, LENGTH_DELIMITED);
// Fields of InferInputTensor; no parameters (4), no typed contents (5). A requested output has a
// name as its first field as well.
const NAME: u8 = tag(1, LENGTH_DELIMITED);
const DATATYPE: u8 = tag(2, LENGTH_DELIMITED);
const SHAPE: u8 = tag(3, LENGTH_DELIMITED);
// Fields of ModelInferResponse and of its InferOutputTensor.
const MODEL_NAME_FIELD: u8 = 1;
const MODEL_VERSION_FIELD: u8 = 2;
const ID_FIELD: u8 = 3;
const OUTPUTS_FIELD: u8 = 5;
const RAW_OUTPUT_CONTENTS_FIELD: u8 = 6;
const NAME_FIELD: u8 = 1;
const DATATYPE_FIELD: u8 = 2;
const SHAPE_FIELD: u8 = 3;

const INPUT_NAME: &[u8] = b"images";
const OUTPUT_NAME: &str = "logits";
const FP32: &str = "FP32";
const UINT8: &[u8] = b"UINT8";

/// A request, with what its response repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InferRequest<'a> {
    pub images: Images<'a>,
    pub model_name: &'a [u8],
    pub id: &'a [u8],
}

#[derive(Default)]
struct Fields<'a> {
    model_name: Option<&'a [u8]>,
    model_version: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    input: Option<&'a [u8]>,
    output: Option<&'a [u8]>,
    raw: Option<&'a [u8]>,
}

/// Returns a request to that model for the logits alone, or `None` if Python is to read it.
pub fn decode<'a>(message: &'a [u8], model: &LaneModel) -> Option<InferRequest<'a>> {
    let fields = read(message)?;
    let model_name = fields.model_name?;
    let version = fields.model_version.unwrap_or_default();
    if !version.is_empty() && version != model.version_text.as_bytes() {
        return None;
    }
    let lists_logits = match fields.output {
        Some(output) => {
            is_logits(output)?;
            model
                .stages_names
                .iter()
                .any(|each| each.as_bytes() == model_name)
        }
        None => false,
    };
    if !lists_logits
        && !model
            .logits_names
            .iter()
            .any(|each| each.as_bytes() == model_name)
    {
        return None;
    }
    let images = decode_input(fields.input?, fields.raw?, model)?;
    let id = fields.id.unwrap_or_default();
    std::str::from_utf8(id).ok()?; // protobuf refuses what is no text
    Some(InferRequest {
        images,
        model_name,
        id,
    })
}

/// Returns how many images a request of so many bytes has, by its begin.
pub fn announced(begin: &[u8], bytes: usize, model: &LaneModel) -> usize {
    model.announced(begin, bytes, INPUTS, SHAPE)
}

fn read(message: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Fields::default();
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let slot = match reader.tag()? {
            MODEL_NAME => &mut fields.model_name,
            MODEL_VERSION => &mut fields.model_version,
            ID => &mut fields.id,
            INPUTS => &mut fields.input,
            OUTPUTS => &mut fields.output,
            RAW_INPUT_CONTENTS => &mut fields.raw,
            _ => return None,
        };
        put_once(slot, reader.bytes()?)?;
    }
    Some(fields)
}

fn is_logits(output: &[u8]) -> Option<()> {
    let mut reader = Reader::new(output);
    let is_name = reader.tag()? == NAME && reader.bytes()? == OUTPUT_NAME.as_bytes();
    (is_name && reader.is_empty()).then_some(())
}

fn decode_input<'a>(input: &[u8], raw: &'a [u8], model: &LaneModel) -> Option<Images<'a>> {
    let (mut name, mut datatype, mut shape) = (None, None, None);
    let mut reader = Reader::new(input);
    while !reader.is_empty() {
        let slot = match reader.tag()? {
            NAME => &mut name,
            DATATYPE => &mut datatype,
            SHAPE => &mut shape,
            _ => return None,
        };
        put_once(slot, reader.bytes()?)?;
    }
    if name? != INPUT_NAME {
        return None;
    }
    let count = model.batch_count(shape?)?;
    match datatype? {
        UINT8 => Images::uint8(model, count, raw),
        datatype if datatype == FP32.as_bytes() => Images::float32(model, count, raw),
        _ => None,
    }
}

/// Returns how many bytes `encode` appends.
pub fn response_len(model: &LaneModel, model_name: &[u8], id: &[u8], count: usize) -> usize {
    string_len(model_name)
        + string_len(model.version_text.as_bytes())
        + string_len(id)
        + field_len(output_len(model, count))
        + field_len(count * model.classes * FLOAT32_BYTES)
}

/// Appends the response to a request of that model name and id.
pub fn encode(
    model: &LaneModel,
    model_name: &[u8],
    id: &[u8],
    logits: &[f32],
    count: usize,
    out: &mut BytesMut,
) {
    debug_assert_eq!(logits.len(), count * model.classes);
    put_string(out, MODEL_NAME_FIELD, model_name);
    put_string(out, MODEL_VERSION_FIELD, model.version_text.as_bytes());
    put_string(out, ID_FIELD, id);
    put_header(out, OUTPUTS_FIELD, output_len(model, count));
    put_bytes(out, NAME_FIELD, OUTPUT_NAME.as_bytes());
    put_bytes(out, DATATYPE_FIELD, FP32.as_bytes());
    put_shape(out, SHAPE_FIELD, count, model.classes);
    put_floats(out, RAW_OUTPUT_CONTENTS_FIELD, logits);
}

fn output_len(model: &LaneModel, count: usize) -> usize {
    field_len(OUTPUT_NAME.len())
        + field_len(FP32.len())
        + field_len(shape_len(count, model.classes))
}
