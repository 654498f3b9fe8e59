//! The codec against what the Python services answered; tests/support/native_messages.py made the file.

use std::str::SplitWhitespace;

use bytes::BytesMut;
use proptest::prelude::*;

use super::images::{Images, Pixels};
use super::model::LaneModel;
use super::{infer, predict};

const FILE: &str = include_str!("../../tests/messages.txt");

struct Case {
    model: LaneModel,
    method: String,
    is_taken: bool,
    request: Vec<u8>,
    pixels: Vec<u8>,
    logits: Vec<f32>,
    response: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    match text {
        "-" => Vec::new(),
        _ => (0..text.len()).step_by(2).map(byte).collect(),
    }
}

fn model(mut words: SplitWhitespace) -> LaneModel {
    let mut word = || words.next().unwrap();
    let (name, version_text) = (word().to_owned(), word().to_owned());
    LaneModel {
        version: version_text.parse().unwrap(),
        version_text,
        input_shape: word()
            .split(',')
            .map(|each| each.parse().unwrap())
            .collect(),
        classes: word().parse().unwrap(),
        max_batch_images: word().parse().unwrap(),
        identity: unhex(word()),
        max_float_bits: Some(1.0f32.to_bits()),
        logits_names: vec![name.clone()],
        stages_names: vec![format!("{name}_trace")],
        name,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut current = None;
    for line in FILE.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let method = words.next().unwrap();
        if method == "model" {
            current = Some(model(words));
            continue;
        }
        let mut word = || words.next().unwrap();
        let is_taken = word() == "lane";
        let (request, pixels, logits, response) = (word(), word(), word(), word());
        cases.push(Case {
            model: current.clone().unwrap(),
            method: method.to_owned(),
            is_taken,
            request: unhex(request),
            pixels: unhex(pixels),
            logits: unhex(logits)
                .as_chunks()
                .0
                .iter()
                .map(|four| f32::from_le_bytes(*four))
                .collect(),
            response: unhex(response),
        });
    }
    cases
}

fn decode<'a>(case: &Case, message: &'a [u8]) -> Option<(Images<'a>, &'a [u8], &'a [u8])> {
    if case.method == "ModelInfer" {
        let request = infer::decode(message, &case.model)?;
        return Some((request.images, request.model_name, request.id));
    }
    Some((predict::decode(message, &case.model)?, b"", b""))
}

fn pixels(case: &Case, images: &Images) -> Vec<u8> {
    let mut pixels = vec![f32::NAN; images.count * case.model.image_pixels()];
    images.write_pixels(&mut pixels);
    pixels.iter().flat_map(|each| each.to_le_bytes()).collect()
}

#[test]
fn what_the_lane_takes_it_answers_as_python_does() {
    let mut taken = 0;
    for case in cases().iter().filter(|case| case.is_taken) {
        let (images, name, id) = decode(case, &case.request).expect(&case.method);
        assert_eq!(pixels(case, &images), case.pixels);
        let (model, logits, count) = (&case.model, &case.logits[..], images.count);
        let mut out = BytesMut::new();
        let length = if case.method == "ModelInfer" {
            infer::encode(model, name, id, logits, count, &mut out);
            infer::response_len(model, name, id, count)
        } else {
            predict::encode(model, logits, count, &mut out);
            predict::response_len(model, count)
        };
        assert_eq!(out[..], case.response[..], "{}", case.method);
        assert_eq!(out.len(), length);
        taken += 1;
    }
    assert!(taken > 30);
}

#[test]
fn what_is_not_certain_is_left_to_python() {
    let mut left = 0;
    for case in cases().iter().filter(|case| !case.is_taken) {
        assert_eq!(
            decode(case, &case.request),
            None,
            "{} {:x?}",
            case.method,
            case.request
        );
        left += 1;
    }
    assert!(left > 200);
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::*;
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Set(at, byte)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Insert(at, byte)),
        any::<usize>().prop_map(Remove),
        any::<usize>().prop_map(Cut),
        (any::<usize>(), any::<usize>()).prop_map(|(start, end)| Repeat(start, end)),
    ]
}

fn mutate(message: &mut Vec<u8>, mutation: &Mutation) {
    let length = message.len().max(1);
    match *mutation {
        _ if message.is_empty() => {}
        Mutation::Set(at, byte) => message[at % length] = byte,
        Mutation::Insert(at, byte) => message.insert(at % length, byte),
        Mutation::Remove(at) => drop(message.remove(at % length)),
        Mutation::Cut(at) => message.truncate(at % length),
        Mutation::Repeat(start, end) => {
            let (start, end) = (start % length, end % length);
            message.extend_from_within(start.min(end)..start.max(end));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_requests_are_left_or_have_images_of_their_size(
        at in any::<prop::sample::Index>(), mutations in prop::collection::vec(mutation(), 0..4)
    ) {
        let cases = CASES.with(|cases| cases.clone());
        let case = &cases[at.index(cases.len())];
        let mut message = case.request.clone();
        mutations.iter().for_each(|each| mutate(&mut message, each));
        if let Some((images, name, _)) = decode(case, &message) {
            let (data, size) = match images.pixels {
                Pixels::Uint8(data) => (data, 1),
                Pixels::Float32(data) => (data, 4),
            };
            prop_assert!((1..=case.model.max_batch_images).contains(&images.count));
            prop_assert_eq!(data.len(), images.count * case.model.image_pixels() * size);
            prop_assert!(message.as_ptr_range().contains(&data.as_ptr()));
            prop_assert!(name.is_empty() || name.starts_with(case.model.name.as_bytes()));
            let floats = pixels(case, &images);
            for four in floats.as_chunks().0 {
                let pixel = f32::from_le_bytes(*four);
                prop_assert!((0.0..=1.0).contains(&pixel) && !pixel.is_sign_negative());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
        let cases = CASES.with(|cases| cases.clone());
        for case in [&cases[0], &cases[cases.len() - 1]] {
            let _ = predict::decode(&message, &case.model);
            let _ = infer::decode(&message, &case.model);
        }
    }
}

thread_local! {
    static CASES: std::rc::Rc<Vec<Case>> = std::rc::Rc::new(cases());
}
