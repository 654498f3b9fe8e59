//! They run where FORWARD_TEST_ONNXRUNTIME names the library, say the onnxruntime package's.

use std::ffi::c_char;
use std::path::Path;
use std::time::Instant;

use libloading::os::unix::Library;

use super::api::{Api, ApiBase};
use super::library::{functions, registered, RegisterCustomOps};
use super::Session;

const IMAGE: usize = 28 * 28;
const CLASSES: usize = 10;

/// Return the library's functions, or say why the test is skipped.
fn library() -> Option<&'static Api> {
    let Some(path) = std::env::var_os("FORWARD_TEST_ONNXRUNTIME") else {
        eprintln!("skipped: set FORWARD_TEST_ONNXRUNTIME to the path of libonnxruntime.so");
        return None;
    };
    // SAFETY: it is ONNX Runtime's library, and its header's type of this function.
    let base = unsafe {
        let library = Library::new(path).expect("the library");
        let entry = library.get::<unsafe extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0");
        let base = entry.expect("the library's entry")();
        std::mem::forget(library); // its functions are kept
        base.as_ref().expect("a table")
    };
    Some(functions(base).expect("the functions"))
}

fn model() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mnist/1/model.onnx");
    std::fs::read(path).expect("the bundled model")
}

fn open(library: &'static Api, threads: usize) -> Session {
    Session::open(library, &model(), threads, "images", "logits").expect("a session")
}

fn pixels(images: usize) -> Vec<f32> {
    let number = |index: usize| (index * 7919 % 256) as f32 / 255.0;
    (0..images * IMAGE).map(number).collect()
}

fn run(session: &mut Session, pixels: &[f32]) -> Vec<u32> {
    let images = pixels.len() / IMAGE;
    let mut logits = vec![f32::NAN; images * CLASSES];
    session.run(pixels, images, &mut logits).expect("logits");
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn error(session: Result<Session, String>) -> String {
    session.err().expect("an error")
}

#[test]
fn an_image_gets_the_same_bits_in_every_batch() {
    let Some(library) = library() else { return };
    for threads in [1, 2] {
        let mut session = open(library, threads);
        assert_eq!(session.image_len(), IMAGE);
        assert_eq!(session.answer_len(), CLASSES);
        let pixels = pixels(70);
        let together = run(&mut session, &pixels);
        let alone = pixels.chunks(IMAGE);
        let alone: Vec<u32> = alone.flat_map(|image| run(&mut session, image)).collect();
        assert_eq!(together, alone);
    }
}

#[test]
fn a_tensor_follows_the_callers_memory_and_its_size() {
    let Some(library) = library() else { return };
    let mut session = open(library, 1);
    let (mut pixels, mut logits) = (pixels(3), vec![0.0; 3 * CLASSES]);
    let mut answers = |pixels: &[f32], images: usize| {
        let (pixels, logits) = (&pixels[..images * IMAGE], &mut logits[..images * CLASSES]);
        session.run(pixels, images, logits).expect("logits");
        logits.to_vec()
    };
    let three = answers(&pixels, 3);
    assert_eq!(answers(&pixels, 1), three[..CLASSES]);
    assert_eq!(answers(&pixels, 3), three);
    pixels.rotate_left(IMAGE);
    assert_eq!(answers(&pixels, 3)[..CLASSES], three[CLASSES..2 * CLASSES]);
}

#[test]
fn a_session_moves_to_another_thread() {
    let Some(library) = library() else { return };
    let mut session = open(library, 2);
    let pixels = pixels(2);
    let here = run(&mut session, &pixels);
    let there = std::thread::spawn(move || run(&mut session, &pixels));
    assert_eq!(there.join().expect("no panic"), here);
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let Some(library) = library() else { return };
    let mut session = open(library, 1);
    for (given, images, room) in [(1, 2, 2), (2, 1, 1), (1, 1, 2), (0, 0, 0)] {
        let mut logits = vec![0.0; room * CLASSES];
        let result = session.run(&pixels(given), images, &mut logits);
        assert!(result.expect_err("an error").contains("for each"));
    }
}

#[test]
fn errors_have_the_librarys_text() {
    let Some(library) = library() else { return };
    let broken = error(Session::open(library, b"\x08\x08 no model", 1, "a", "b"));
    assert!(broken.to_lowercase().contains("protobuf"), "{broken}");
    let name = error(Session::open(library, &model(), 1, "pictures", "logits"));
    assert!(name.contains("pictures"), "{name}");
    let name = error(Session::open(library, &model(), 1, "images", "scores"));
    assert!(name.contains("scores"), "{name}");
    let name = error(Session::open(library, &model(), 1, "a\0b", "logits"));
    assert!(name.contains("zero byte"), "{name}");
}

unsafe extern "C" fn no_functions(_version: u32) -> *const Api {
    std::ptr::null()
}

unsafe extern "C" fn old() -> *const c_char {
    c"1.2.3".as_ptr()
}

#[test]
fn a_library_that_is_too_old_is_named_with_its_version() {
    assert!(registered()
        .err()
        .expect("an error")
        .contains("no ONNX Runtime"));
    let base = ApiBase {
        get_api: no_functions,
        get_version_string: old,
    };
    // SAFETY: it takes the address alone; the table lives until the test's end.
    let status = unsafe { RegisterCustomOps(std::ptr::null_mut(), &base) };
    assert!(status.is_null());
    let reason = registered().err().expect("an error");
    assert_eq!(reason, "ONNX Runtime 1.2.3 has no version 17 of the C API");
}

/// This process's memory that is no file's.
fn anonymous_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn sessions_that_end_leave_no_memory() {
    let Some(library) = library() else { return };
    let hundred_cycles = || {
        let before = anonymous_kib();
        for _ in 0..100 {
            let mut session = open(library, 1);
            run(&mut session, &pixels(64));
            drop(Session::open(library, b"broken", 1, "images", "logits"));
        }
        anonymous_kib() - before
    };
    // Other tests of this process take and give back memory too; a leak shows in every hundred.
    assert!((0..5).any(|_| hundred_cycles() < 1024));
}

/// For a person: `cargo test --release -- --ignored --nocapture time_of_a_run`.
#[test]
#[ignore = "prints figures"]
fn time_of_a_run() {
    let Some(library) = library() else { return };
    for threads in [1, 2] {
        let mut session = open(library, threads);
        for (images, runs) in [(1, 20_000), (8, 10_000), (64, 2_000), (512, 300)] {
            let (pixels, mut logits) = (pixels(images), vec![0.0; images * CLASSES]);
            let mut measure = || {
                let start = Instant::now();
                (0..runs).for_each(|_| {
                    session.run(&pixels, images, &mut logits).expect("logits");
                });
                start.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
            };
            let best = (0..7).map(|_| measure()).fold(f64::INFINITY, f64::min);
            eprintln!("{threads} threads, {images} images: {best:.2} us");
        }
    }
}
