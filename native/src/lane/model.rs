//! What the lane knows of the served version: made by Python of its manifest and settings.

use super::images::FLOAT32_BYTES;
use crate::wire::{Reader, LENGTH_DELIMITED, VARINT};

/// A served version, as far as requests and responses need it.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneModel {
    pub name: String,
    pub version: i64,
    /// The version as Open Inference has it: a decimal number.
    pub version_text: String,
    /// `forward.v1.ModelIdentity`, serialized.
    pub identity: Vec<u8>,
    /// Shape of one image, for example [28, 28].
    pub input_shape: Vec<u64>,
    pub classes: usize,
    /// The most images that a request may have.
    pub max_batch_images: usize,
    /// Bits of the largest float32 that a pixel may be; the smallest is 0. `None`: the range is
    /// another, and the lane takes no FLOAT32.
    pub max_float_bits: Option<u32>,
    /// Names of Open Inference that list the logits alone.
    pub logits_names: Vec<String>,
    /// Those that list every stage: a request must name `logits`.
    pub stages_names: Vec<String>,
}

impl LaneModel {
    /// Pixels of one image.
    pub fn image_pixels(&self) -> usize {
        self.input_shape.iter().product::<u64>() as usize
    }

    /// Returns how many images a request of so many bytes has, by its begin: the shape, in a tensor,
    /// each the field of that tag. If it does not tell, as many as the request has at least.
    pub(super) fn announced(&self, begin: &[u8], bytes: usize, tensor: u8, shape: u8) -> usize {
        let mut reader = Reader::new(begin);
        let told = skip_to(&mut reader, tensor)
            .and_then(|()| reader.varint())
            .and_then(|_| skip_to(&mut reader, shape))
            .and_then(|()| self.count(reader.bytes()?));
        let pixels = self.image_pixels();
        told.map_or(bytes / (pixels * FLOAT32_BYTES), |told| {
            told.min(bytes / pixels)
        })
    }

    /// Returns how many images have that shape, if it is one image's, or a batch's within the limit.
    pub(super) fn count(&self, shape: &[u8]) -> Option<usize> {
        if is_shape(shape, &self.input_shape) {
            return Some(1);
        }
        self.batch_count(shape)
    }

    /// Returns how many images have that shape, if it is a batch's within the limit.
    pub(super) fn batch_count(&self, shape: &[u8]) -> Option<usize> {
        let mut reader = Reader::new(shape);
        let count = usize::try_from(reader.varint()?).ok()?;
        let fits = (1..=self.max_batch_images).contains(&count)
            && is_shape(reader.rest(), &self.input_shape);
        fits.then_some(count)
    }
}

/// Reads up to the content of the first field of that tag.
fn skip_to(reader: &mut Reader<'_>, wanted: u8) -> Option<()> {
    loop {
        let tag = reader.tag()?;
        if tag == wanted {
            return Some(());
        }
        match (tag & 0x80, tag & 7) {
            (0, VARINT) => drop(reader.varint()?),
            (0, LENGTH_DELIMITED) => drop(reader.bytes()?),
            _ => return None,
        }
    }
}

/// Tells whether a packed list of int64 is that shape.
fn is_shape(packed: &[u8], expected: &[u64]) -> bool {
    let mut reader = Reader::new(packed);
    let are_equal = expected.iter().all(|&each| reader.varint() == Some(each));
    are_equal && reader.is_empty()
}
