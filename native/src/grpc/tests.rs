use super::*;

fn with_timeout(value: &str) -> Result<Option<Duration>, ()> {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", HeaderValue::from_str(value).unwrap());
    timeout(&headers)
}

#[test]
fn timeouts_have_digits_and_a_unit() {
    assert_eq!(with_timeout("250m"), Ok(Some(Duration::from_millis(250))));
    assert_eq!(
        with_timeout("99999999H"),
        Ok(Some(Duration::from_secs(99_999_999 * 3600)))
    );
    for wrong in ["", "m", "1", "123456789S", "-1S", "1x", "1.5S"] {
        assert_eq!(with_timeout(wrong), Err(()), "{wrong}");
    }
    assert_eq!(timeout(&HeaderMap::new()), Ok(None));
}

#[test]
fn status_text_is_percent_encoded() {
    let trailers = trailers(
        3,
        "50% of é\n",
        &[("x-bin".into(), Value::Binary(vec![0xff]))],
    );
    assert_eq!(trailers["grpc-message"], "50%25 of %C3%A9%0A");
    assert_eq!(trailers["x-bin"], "/w");
}

#[test]
fn binary_metadata_are_decoded_with_and_without_padding() {
    let mut headers = HeaderMap::new();
    headers.append("x-bin", HeaderValue::from_static("/w==,/w"));
    headers.append("te", HeaderValue::from_static("trailers"));
    let one = ("x-bin".to_owned(), Value::Binary(vec![0xff]));
    assert_eq!(metadata(&headers), vec![one.clone(), one]);
}

#[test]
fn bombs_are_refused_at_the_limit() {
    use flate2::{write::GzEncoder, Compression};
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&[0; 1000]).unwrap();
    let message = encoder.finish().unwrap();
    assert_eq!(
        Encoding::Gzip.decompress(&message, 1000).unwrap().len(),
        1000
    );
    let refused = Encoding::Gzip.decompress(&message, 999).unwrap_err();
    assert_eq!(refused.code, RESOURCE_EXHAUSTED);
}
