//! Settings, and calls to a server of h2 in the same thread. With real servers: tests/packaging/test_image.py.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::runtime;

use super::call::check;
use super::settings::{Place, Settings, Tls};

fn read(variables: &[(&str, &str)], arguments: &[&str]) -> Result<Option<Settings>, String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let arguments = arguments.iter().map(|&text| text.to_owned());
    Settings::read(arguments, |name| variables.get(name).map(|&v| v.to_owned()))
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    read(variables, &[]).expect("no error").expect("no help")
}

fn port(variables: &[(&str, &str)]) -> u16 {
    match settings(variables).place {
        Place::Port(_, port) => port,
        Place::Socket(path) => panic!("{path:?}"),
    }
}

#[test]
fn without_variables_it_asks_the_loopback_addresses() {
    let found = settings(&[("FORWARD_TLS_CERT", ""), ("FORWARD_HOST", "")]);
    let hosts = vec!["127.0.0.1".into(), "::1".into()];
    assert_eq!(found.place, Place::Port(hosts, 8001));
    assert_eq!((found.tls, found.token_file), (None, None));
    assert_eq!(found.timeout, Duration::from_secs(10));
}

#[test]
fn the_port_is_a_number_or_kubernetes_own() {
    assert_eq!(port(&[("FORWARD_GRPC_PORT", "9001")]), 9001);
    assert_eq!(port(&[("FORWARD_GRPC_PORT", "tcp://10.0.0.1:8001")]), 8001);
    assert!(read(&[("FORWARD_GRPC_PORT", "70000")], &[]).is_err());
}

#[test]
fn the_host_is_the_servers() {
    for every in ["0.0.0.0", "::", "[::]", "localhost"] {
        let found = settings(&[("FORWARD_HOST", every)]).place;
        assert_eq!(found, settings(&[]).place, "{every}");
    }
    let found = settings(&[("FORWARD_HOST", "10.1.2.3")]).place;
    assert_eq!(found, Place::Port(vec!["10.1.2.3".into()], 8001));
    for socket in ["unix:/run/a b", "unix:///run/a b"] {
        let found = settings(&[("FORWARD_HOST", socket), ("FORWARD_GRPC_PORT", "0")]).place;
        assert_eq!(found, Place::Socket("/run/a b".into()));
    }
}

#[test]
fn the_clients_variables_win_over_the_servers() {
    let servers = [("FORWARD_TLS_CERT", "/s"), ("FORWARD_TOKEN_FILE", "/t")];
    let found = settings(&servers);
    let tls = |ca: &str, name: &str, own| Tls {
        ca: ca.into(),
        server_name: name.into(),
        own,
    };
    assert_eq!(found.tls, Some(tls("/s", "localhost", None)));
    assert_eq!(found.token_file, Some(PathBuf::from("/t")));
    let clients = [
        ("FORWARD_CLIENT_TLS_CA", "/ca"),
        ("FORWARD_CLIENT_TLS_SERVER_NAME", "a.example"),
        ("FORWARD_CLIENT_TLS_CERT", "/c"),
        ("FORWARD_CLIENT_TLS_KEY", "/k"),
        ("FORWARD_CLIENT_TOKEN_FILE", "/u"),
        ("FORWARD_CLIENT_TIMEOUT", "0.5"),
    ];
    let found = settings(&[&servers[..], &clients[..]].concat());
    let own = Some(("/c".into(), "/k".into()));
    assert_eq!(found.tls, Some(tls("/ca", "a.example", own)));
    assert_eq!(found.token_file, Some(PathBuf::from("/u")));
    assert_eq!(found.timeout, Duration::from_millis(500));
}

#[test]
fn wrong_settings_are_named() {
    for (variables, named) in [
        (
            &[("FORWARD_CLIENT_TIMEOUT", "0")][..],
            "FORWARD_CLIENT_TIMEOUT",
        ),
        (
            &[("FORWARD_CLIENT_TIMEOUT", "NaN")],
            "FORWARD_CLIENT_TIMEOUT",
        ),
        (
            &[("FORWARD_TLS_CERT", "/s"), ("FORWARD_CLIENT_TLS_KEY", "/k")],
            "together",
        ),
    ] {
        assert!(read(variables, &[]).expect_err("an error").contains(named));
    }
    assert!(read(&[], &["--servce"])
        .expect_err("an error")
        .contains("--servce"));
    assert_eq!(read(&[], &["--help"]), Ok(None));
}

/// Serve one call with this answer; return what a check of it says.
fn answered(
    message: &'static [u8],
    trailers: &[(&'static str, &str)],
) -> Result<&'static str, String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let mut ending = HeaderMap::new();
    for (name, value) in trailers {
        ending.insert(*name, value.parse().expect("a value"));
    }
    let serve = async move {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let (stream, _) = listener.accept().await.expect("a client");
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond
                .send_response(Response::new(()), false)
                .expect("a head");
            body.send_data(Bytes::from_static(message), false)
                .expect("data");
            body.send_trailers(ending.clone()).expect("trailers");
        }
    };
    thread::spawn(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(serve);
    });
    check(&settings(&[
        ("FORWARD_HOST", "127.0.0.1"),
        ("FORWARD_GRPC_PORT", &port),
    ]))
}

#[test]
fn every_status_has_its_name() {
    let ok = [("grpc-status", "0")];
    assert_eq!(answered(b"\0\0\0\0\0", &ok), Ok("UNKNOWN"));
    assert_eq!(answered(b"\0\0\0\0\x02\x08\x01", &ok), Ok("SERVING"));
    assert_eq!(answered(b"\0\0\0\0\x02\x08\x02", &ok), Ok("NOT_SERVING"));
    assert_eq!(answered(b"\0\0\0\0\x02\x08\x63", &ok), Ok("UNKNOWN"));
}

#[test]
fn what_is_no_status_is_an_error() {
    let ok = [("grpc-status", "0")];
    for (message, trailers, expected) in [
        (&b"\0\0\0\0\x01\x08"[..], &ok[..], "none of a health check"),
        (b"", &ok, "none of a health check"),
        (&[0; 100], &ok, "none of a health check"),
        (b"", &[], "not gRPC's"),
        (
            b"",
            &[("grpc-status", "16"), ("grpc-message", "no token")],
            "16: no token",
        ),
        (b"", &[("grpc-status", "5")], "NOT_FOUND"),
    ] {
        let error = answered(message, trailers).expect_err("an error");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port().to_string();
    let short = [
        ("FORWARD_GRPC_PORT", port.as_str()),
        ("FORWARD_CLIENT_TIMEOUT", "0.2"),
    ];
    let error = check(&settings(&short)).expect_err("an error");
    assert!(error.contains("within 0.2 s"), "{error}");
    drop(silent);
    let error = check(&settings(&short)).expect_err("an error");
    assert!(error.contains("no server answers at localhost"), "{error}");
}
