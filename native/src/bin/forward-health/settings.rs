//! Where the server is and what it wants to see, from the server's variables and the client's.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
usage: forward-health [--service NAME]

Ask the Forward server of this container or machine for its health (grpc.health.v1); print the status; exit
status 0: SERVING, 1: anything else, 2: wrong arguments.

  --service NAME  a service by name; default: the server

Where the server is and what it is shown comes from variables; empty ones do not count:

  FORWARD_HOST, FORWARD_GRPC_PORT  as for the server: unix:/path, or a host (its loopback) and a port (8001)
  FORWARD_CLIENT_TLS_CA            certificates to trust, PEM; default: FORWARD_TLS_CERT; none: no TLS
  FORWARD_CLIENT_TLS_SERVER_NAME   name in a certificate that a CA of these signed (localhost)
  FORWARD_CLIENT_TLS_CERT, FORWARD_CLIENT_TLS_KEY  the certificate to show, PEM
  FORWARD_CLIENT_TOKEN_FILE        its first line is the token to send; default: FORWARD_TOKEN_FILE
  FORWARD_CLIENT_TIMEOUT           seconds (10)
";

const DEFAULT_PORT: u16 = 8001;
const MAX_SECONDS: f64 = 86_400.0; // a day

/// Where the server listens.
#[derive(Debug, PartialEq)]
pub enum Place {
    Socket(PathBuf),
    /// Hosts that are tried one after the other, and the port.
    Port(Vec<String>, u16),
}

#[derive(Debug, PartialEq)]
pub struct Settings {
    pub place: Place,
    pub service: String,
    pub tls: Option<Tls>,
    pub token_file: Option<PathBuf>,
    pub timeout: Duration,
}

#[derive(Debug, PartialEq)]
pub struct Tls {
    pub ca: PathBuf,
    pub server_name: String,
    /// The certificate to show, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Return the settings, None if help is wanted.
    pub fn read(
        mut arguments: impl Iterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let mut service = String::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--service" => service = arguments.next().ok_or("--service needs a name")?,
                other => return Err(format!("unexpected argument {other:?}")),
            }
        }
        let tls = match path("FORWARD_CLIENT_TLS_CA").or_else(|| path("FORWARD_TLS_CERT")) {
            None => None,
            Some(ca) => Some(Tls {
                ca,
                server_name: variable("FORWARD_CLIENT_TLS_SERVER_NAME")
                    .unwrap_or_else(|| "localhost".into()),
                own: pair(
                    path("FORWARD_CLIENT_TLS_CERT"),
                    path("FORWARD_CLIENT_TLS_KEY"),
                )?,
            }),
        };
        Ok(Some(Self {
            place: place(variable("FORWARD_HOST"), variable("FORWARD_GRPC_PORT"))?,
            service,
            tls,
            token_file: path("FORWARD_CLIENT_TOKEN_FILE").or_else(|| path("FORWARD_TOKEN_FILE")),
            timeout: timeout(variable("FORWARD_CLIENT_TIMEOUT"))?,
        }))
    }
}

fn pair(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, String> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        _ => Err(
            "FORWARD_CLIENT_TLS_CERT and FORWARD_CLIENT_TLS_KEY are given together or not at all"
                .into(),
        ),
    }
}

fn place(host: Option<String>, port: Option<String>) -> Result<Place, String> {
    let host = host.unwrap_or_default();
    if let Some(path) = host.strip_prefix("unix:") {
        return Ok(Place::Socket(
            path.strip_prefix("//").unwrap_or(path).into(),
        ));
    }
    let port = match port {
        // Anything else than a number is Kubernetes', for a service named forward-grpc.
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text
            .parse()
            .map_err(|_| format!("FORWARD_GRPC_PORT: expected a port, got {text:?}"))?,
        _ => DEFAULT_PORT,
    };
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let every = plain.is_empty()
        || plain == "localhost"
        || plain.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    let hosts = if every {
        vec!["127.0.0.1".into(), "::1".into()]
    } else {
        vec![plain.into()]
    };
    Ok(Place::Port(hosts, port))
}

fn timeout(text: Option<String>) -> Result<Duration, String> {
    let Some(text) = text else {
        return Ok(Duration::from_secs(10));
    };
    match text.parse() {
        Ok(seconds) if 0.0 < seconds && seconds <= MAX_SECONDS => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "FORWARD_CLIENT_TIMEOUT: expected seconds above 0 and at most {MAX_SECONDS}, got {text:?}"
        )),
    }
}
