//! The images of a request: where they are in its bytes, and as the pixels of a run.

use super::model::LaneModel;

pub const FLOAT32_BYTES: usize = 4;

/// 1 / 255 in two parts: the first 16 bits, and what is missing to the precision of their product.
const HIGH: f32 = f32::from_bits((1.0f32 / 255.0).to_bits() & !0xff);
const LOW: f32 = (1.0f64 / 255.0 - HIGH as f64) as f32;

/// The images of one request, where they came; they are in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Images<'a> {
    pub count: usize,
    pub pixels: Pixels<'a>,
}

/// Row-major pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pixels<'a> {
    /// 0 to 255, which stand for 0 to 1.
    Uint8(&'a [u8]),
    /// Little-endian, at any address.
    Float32(&'a [u8]),
}

impl<'a> Images<'a> {
    /// Returns so many images of 8 bits a pixel, if that is what the data are.
    pub(super) fn uint8(model: &LaneModel, count: usize, data: &'a [u8]) -> Option<Self> {
        let has_its_size = data.len() == count * model.image_pixels();
        let pixels = Pixels::Uint8(data);
        has_its_size.then_some(Self { count, pixels })
    }

    /// Returns so many images of floats, if that is what the data are and each is in range.
    pub(super) fn float32(model: &LaneModel, count: usize, data: &'a [u8]) -> Option<Self> {
        let max_bits = model.max_float_bits?;
        let has_its_size = data.len() == count * model.image_pixels() * FLOAT32_BYTES;
        let pixels = Pixels::Float32(data);
        (has_its_size && are_in_range(data, max_bits)).then_some(Self { count, pixels })
    }

    /// Writes the pixels of a run: as many as these images have, and not one more.
    ///
    /// UINT8 is divided by 255, as the Python server does it, to the bit.
    pub fn write_pixels(&self, out: &mut [f32]) {
        match self.pixels {
            Pixels::Uint8(bytes) => {
                assert_eq!(out.len(), bytes.len());
                for (pixel, &byte) in out.iter_mut().zip(bytes) {
                    *pixel = pixel_of(byte);
                }
            }
            Pixels::Float32(bytes) => {
                assert_eq!(out.len() * FLOAT32_BYTES, bytes.len());
                for (pixel, four) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *pixel = f32::from_le_bytes(*four);
                }
            }
        }
    }
}

/// Returns the correctly rounded quotient of a byte and 255, without a division, which takes longer.
///
/// The first product is exact, as a byte has 8 bits; the second is so small that its rounding does
/// not show in the sum. A test has all 256.
fn pixel_of(byte: u8) -> f32 {
    let byte = f32::from(byte);
    byte * HIGH + byte * LOW
}

/// Tells whether every float is from 0 to the one of those bits.
///
/// Floats from +0 on are in the order of their bits as integers; the sign bit is set in all others,
/// -0 too, or, for NaN and what is larger, in the difference. So one bit of all tells, without a
/// comparison of unsigned integers, which the x86-64 that everyone has lacks.
fn are_in_range(data: &[u8], max_bits: u32) -> bool {
    let outside = |bits: u32| bits | max_bits.wrapping_sub(bits);
    let floats = data.as_chunks().0.iter();
    let signs = floats.fold(0, |signs, four| signs | outside(u32::from_le_bytes(*four)));
    signs >> 31 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: u32 = 1.0f32.to_bits();

    #[test]
    fn every_byte_becomes_its_quotient_by_255() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut out = vec![f32::NAN; bytes.len()];
        let pixels = Pixels::Uint8(&bytes);
        Images { count: 1, pixels }.write_pixels(&mut out);
        for (byte, pixel) in (0u8..=255).zip(out) {
            // A quotient in double precision, rounded, is never at a tie here.
            let expected = (f64::from(byte) / 255.0) as f32;
            assert_eq!(pixel.to_bits(), expected.to_bits(), "{byte}");
        }
    }

    #[test]
    fn one_float_outside_of_the_range_is_seen_at_every_place() {
        let values = [
            -0.0,
            1.0f32.next_up(),
            f32::NAN,
            -f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -1e-45,
            255.0,
        ];
        for length in [1, 3, 15, 16, 17, 33, 784] {
            for at in 0..length {
                let mut floats = vec![1.0f32; length];
                assert!(are_in_range(&bytes_of(&floats), ONE));
                for value in values {
                    floats[at] = value;
                    assert!(!are_in_range(&bytes_of(&floats), ONE), "{value} at {at}");
                }
            }
        }
    }

    fn bytes_of(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|each| each.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn the_range_is_that_of_the_bits(
            bits in prop::collection::vec(prop_oneof![any::<u32>(), ONE - 2..ONE + 2], 0..40)
        ) {
            let data: Vec<u8> = bits.iter().flat_map(|each| each.to_le_bytes()).collect();
            prop_assert_eq!(are_in_range(&data, ONE), bits.iter().all(|&each| each <= ONE));
        }

        #[test]
        fn floats_are_copied_from_any_address(
            floats in prop::collection::vec(0.0f32..=1.0, 1..40), offset in 0usize..4
        ) {
            let mut data = vec![0; offset];
            data.extend(bytes_of(&floats));
            let mut out = vec![f32::NAN; floats.len()];
            let pixels = Pixels::Float32(&data[offset..]);
            Images { count: 1, pixels }.write_pixels(&mut out);
            prop_assert_eq!(out, floats);
        }
    }
}
