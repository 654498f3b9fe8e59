//! What a request costs in the lane's codec: `cargo run --release --example codec_cost`.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use forward_native::lane::model::LaneModel;
use forward_native::lane::predict;
use forward_native::wire::{put_bytes, put_header, put_varint};

const PIXELS: usize = 28 * 28;
const CLASSES: usize = 10;

fn request(count: u64, dtype: u64, data: &[u8]) -> BytesMut {
    let mut tensor = BytesMut::new();
    put_varint(&mut tensor, 1 << 3);
    put_varint(&mut tensor, dtype);
    let mut shape = BytesMut::new();
    [count, 28, 28]
        .iter()
        .for_each(|&each| put_varint(&mut shape, each));
    put_bytes(&mut tensor, 2, &shape);
    put_bytes(&mut tensor, 3, data);
    let mut message = BytesMut::new();
    put_header(&mut message, 1, tensor.len());
    message.extend_from_slice(&tensor);
    message
}

fn main() {
    let model = LaneModel {
        name: "mnist".into(),
        version: 1,
        version_text: "1".into(),
        identity: b"\n\x05mnist\x10\x01\x1a\x04onnx".to_vec(),
        input_shape: vec![28, 28],
        classes: CLASSES,
        max_batch_images: 512,
        max_float_bits: Some(1.0f32.to_bits()),
        logits_names: vec!["mnist".into()],
        stages_names: vec!["mnist_trace".into()],
    };
    println!("images type     decode ns  pixels ns  encode ns  copy ns (of as many floats)");
    for count in [1, 64, 512] {
        for (name, dtype, size) in [("uint8", 2, 1), ("float32", 1, 4)] {
            let data: Vec<u8> = (0..count * PIXELS * size)
                .map(|at| (at % 251) as u8 / size as u8 / 5)
                .collect();
            let message = request(count as u64, dtype, &data);
            let logits = vec![0.5; count * CLASSES];
            let mut pixels = vec![0.0; count * PIXELS];
            let source = vec![0.0f32; count * PIXELS];
            let mut out = BytesMut::new();
            let rounds = 1_000_000 / count;
            let images = predict::decode(&message, &model).unwrap();
            let decode = time(rounds, || {
                black_box(predict::decode(black_box(&message), &model));
            });
            let write = time(rounds / 4, || images.write_pixels(black_box(&mut pixels)));
            let encode = time(rounds, || {
                out.clear();
                predict::encode(&model, black_box(&logits), count, &mut out);
                black_box(&out);
            });
            let copy = time(rounds / 4, || {
                black_box(&mut pixels).copy_from_slice(black_box(&source))
            });
            println!("{count:6} {name:8} {decode:9.0} {write:10.0} {encode:10.0} {copy:8.0}");
        }
    }
}

fn time(rounds: usize, mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let started = Instant::now();
        (0..rounds / 5).for_each(|_| work());
        started.elapsed().as_nanos() as f64 / (rounds / 5) as f64
    };
    (0..5)
        .map(|_| once(&mut work))
        .fold(f64::INFINITY, f64::min)
}
