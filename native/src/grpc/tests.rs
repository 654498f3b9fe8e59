use super::*;

fn with_timeout(value: &str) -> Result<Option<Duration>, Status> {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", HeaderValue::from_str(value).unwrap());
    timeout(&headers)
}

#[test]
fn timeouts_are_read_as_grpc_reads_them() {
    let hours = 99_999_999 * 3600;
    for (value, expected) in [
        ("250m", Some(Duration::from_millis(250))),
        ("99999999H", Some(Duration::from_secs(hours))),
        (" 10 S ", Some(Duration::from_secs(10))),
        ("123456789S", Some(Duration::from_secs(123_456_789))),
        ("1n", Some(Duration::from_millis(1))),
        ("99999999999999999999m", None),
    ] {
        assert_eq!(with_timeout(value), Ok(expected), "{value}");
    }
    for wrong in ["", "m", "1", "-1S", "1x", "1.5S", "1SS", "1 S x"] {
        let refused = with_timeout(wrong).unwrap_err();
        assert_eq!(
            refused.text, "Error parsing 'grpc-timeout' metadata",
            "{wrong}"
        );
    }
    assert_eq!(timeout(&HeaderMap::new()), Ok(None));
}

#[test]
fn binary_metadata_that_are_not_base64_are_refused() {
    let mut headers = HeaderMap::new();
    headers.insert("x-bin", HeaderValue::from_static("/w==,/w"));
    assert_eq!(check_metadata(&headers), Ok(()));
    headers.insert("x-bin", HeaderValue::from_static("!!!"));
    let refused = check_metadata(&headers).unwrap_err();
    let text = "Error parsing 'x-bin' metadata: illegal base64 encoding";
    assert_eq!(refused, Status::new(INTERNAL, text));
}

#[test]
fn status_text_is_percent_encoded() {
    let trailers = trailers(
        3,
        "50% of é\n",
        &[("x-bin".into(), Value::Binary(vec![0xff]))],
        HeaderValue::from_static("an-id"),
    );
    assert_eq!(trailers["x-request-id"], "an-id");
    assert_eq!(trailers["grpc-message"], "50%25 of %C3%A9%0A");
    assert_eq!(trailers["x-bin"], "/w");
}

#[test]
fn binary_metadata_are_decoded_with_and_without_padding() {
    let mut headers = HeaderMap::new();
    headers.append("x-bin", HeaderValue::from_static("/w==,/w"));
    headers.append("te", HeaderValue::from_static("trailers"));
    let one = ("x-bin".to_owned(), Value::Binary(vec![0xff]));
    let id = ("x-request-id".to_owned(), Value::Text("an-id".into()));
    headers.insert(REQUEST_ID, HeaderValue::from_static("a client's"));
    let found = metadata(&headers, &HeaderValue::from_static("an-id"));
    assert_eq!(found, vec![id, one.clone(), one]);
}
