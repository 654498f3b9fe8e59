//! One call of grpc.health.v1.Health/Check over HTTP/2.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client;
use h2::RecvStream;
use http::{HeaderMap, Request, Uri};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::settings::{Place, Settings};
use super::trust::{client_config, read};

const PATH: &str = "/grpc.health.v1.Health/Check";
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const MAX_RESPONSE_BYTES: usize = 64;
const PREFIX_BYTES: usize = 5; // one that says whether the message is compressed, and its length

/// Return the server's health by its name in the protocol.
pub fn check(settings: &Settings) -> Result<&'static str, String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let called = runtime.block_on(async { timeout(settings.timeout, connect(settings)).await });
    called.unwrap_or_else(|_| {
        let (place, seconds) = (shown(&settings.place), settings.timeout.as_secs_f64());
        Err(format!("no response from {place} within {seconds} s"))
    })
}

fn shown(place: &Place) -> String {
    match place {
        Place::Socket(path) => format!("unix:{}", path.display()),
        Place::Port(hosts, port) => {
            let host = &hosts[0];
            format!(
                "{}:{port}",
                if host == "127.0.0.1" {
                    "localhost"
                } else {
                    host
                }
            )
        }
    }
}

async fn connect(settings: &Settings) -> Result<&'static str, String> {
    let no_server = |error| format!("no server answers at {}: {error}", shown(&settings.place));
    match &settings.place {
        Place::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(no_server)?;
            secure(settings, stream).await
        }
        Place::Port(hosts, port) => {
            let mut failure = None;
            for host in hosts {
                match TcpStream::connect((host.as_str(), *port)).await {
                    Ok(stream) => return secure(settings, stream).await,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            Err(no_server(failure.expect("a host at least")))
        }
    }
}

async fn secure<S>(settings: &Settings, stream: S) -> Result<&'static str, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = &settings.tls else {
        return ask(settings, stream, "http").await;
    };
    let name = ServerName::try_from(tls.server_name.clone())
        .map_err(|_| format!("expected a server name, got {:?}", tls.server_name))?;
    let connector = TlsConnector::from(Arc::new(client_config(tls)?));
    let stream = connector.connect(name, stream).await.map_err(|error| {
        format!(
            "no TLS with {}, as a server of {}: {error}",
            shown(&settings.place),
            tls.ca.display()
        )
    })?;
    ask(settings, stream, "https").await
}

async fn ask<S>(settings: &Settings, stream: S, scheme: &str) -> Result<&'static str, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: h2::Error| format!("no answer in HTTP/2: {error}");
    let request = request(settings, scheme)?;
    let (mut sender, connection) = client::handshake(stream).await.map_err(failed)?;
    let call = async {
        let (response, mut body) = sender.send_request(request, false).map_err(failed)?;
        body.send_data(message(&settings.service), true)
            .map_err(failed)?;
        let (head, body) = response.await.map_err(failed)?.into_parts();
        if !head.status.is_success() {
            return Err(format!("the server answers HTTP {}", head.status));
        }
        status(&head.headers, body).await
    };
    tokio::select! {
        answered = call => answered,
        ended = connection => Err(match ended {
            Err(error) => failed(error),
            Ok(()) => "the server closed the connection".into(),
        }),
    }
}

fn request(settings: &Settings, scheme: &str) -> Result<Request<()>, String> {
    let authority = match &settings.place {
        Place::Port(hosts, port) if hosts[0].contains(':') => format!("[{}]:{port}", hosts[0]),
        Place::Port(hosts, port) => format!("{}:{port}", hosts[0]),
        Place::Socket(_) => "localhost".into(),
    };
    let uri = Uri::builder().scheme(scheme).authority(authority);
    let uri = uri
        .path_and_query(PATH)
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(
            "user-agent",
            concat!("forward-health/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(path) = &settings.token_file {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let token = text.lines().map(str::trim).find(|line| !line.is_empty());
        let token = token.ok_or_else(|| format!("{}: has no token", path.display()))?;
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).map_err(|error| error.to_string())
}

/// Return the request's message: the service's name is field 1.
fn message(service: &str) -> Bytes {
    let mut inner = BytesMut::new();
    if !service.is_empty() {
        inner.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            inner.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        inner.put_u8(length as u8);
        inner.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0); // not compressed
    framed.put_u32(inner.len() as u32); // an argument has at most some megabytes
    framed.put(inner);
    framed.freeze()
}

/// Return the status that a response has.
async fn status(head: &HeaderMap, mut body: RecvStream) -> Result<&'static str, String> {
    let failed = |error: h2::Error| format!("the answer broke off: {error}");
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        body.flow_control()
            .release_capacity(data.len())
            .map_err(failed)?;
        received.put(data);
        if received.len() > MAX_RESPONSE_BYTES {
            return Err("the answer is none of a health check".into());
        }
    }
    let trailers = body.trailers().await.map_err(failed)?;
    let trailers = trailers.as_ref().unwrap_or(head); // without a message they are the head
    let field = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    match field("grpc-status") {
        Some("0") => Ok(decoded(&received)?),
        Some("5") => Err("the server has no service of this name (NOT_FOUND)".into()),
        Some(code) => {
            let text = field("grpc-message").unwrap_or("it gave no reason");
            Err(format!(
                "the server refuses, with gRPC's status {code}: {text}"
            ))
        }
        None => Err("the answer is not gRPC's".into()),
    }
}

fn decoded(received: &[u8]) -> Result<&'static str, String> {
    match received.get(PREFIX_BYTES..) {
        Some([]) => Ok(STATUSES[0]), // the default is not sent
        Some([0x08, number]) => Ok(STATUSES.get(usize::from(*number)).unwrap_or(&STATUSES[0])),
        _ => Err("the answer is none of a health check".into()),
    }
}
