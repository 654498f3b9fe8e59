//! The sockets that listen, and the connections that they accept.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout_at, Instant};

use crate::connection::{self, Stop};
use crate::connections::Refused;
use crate::io::Io;

const ACCEPT_RETRY: Duration = Duration::from_millis(50); // no descriptor is free, say

/// A socket that listens, made by Python.
pub enum Listener {
    Tcp(OwnedFd),
    Unix(OwnedFd),
}

impl Listener {
    /// Take over a descriptor that nobody else uses from now on.
    pub fn adopt(fd: i32, is_unix: bool) -> Self {
        // SAFETY: Python has detached it from its socket object and hands it over once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if is_unix {
            Self::Unix(fd)
        } else {
            Self::Tcp(fd)
        }
    }
}

/// Accept connections until the server stops.
pub fn listen(io: &Rc<Io>, listener: Listener, stop: &Stop) -> io::Result<()> {
    let (io, stop) = (Rc::clone(io), stop.clone());
    match listener {
        Listener::Tcp(fd) => {
            let listener = TcpListener::from_std(std::net::TcpListener::from(fd))?;
            spawn_local(accept(io, listener, stop));
        }
        Listener::Unix(fd) => {
            use std::os::unix::net::UnixListener as StdListener;
            let listener = UnixListener::from_std(StdListener::from(fd))?;
            spawn_local(accept(io, listener, stop));
        }
    }
    Ok(())
}

/// What accepts connections of one kind.
trait Accepts {
    type Socket: AsyncRead + AsyncWrite + Unpin + 'static;
    /// Return the next connection, with its client as gRPC writes it.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Socket, Arc<str>)>>;
}

impl Accepts for TcpListener {
    type Socket = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Arc<str>)> {
        let (socket, address) = self.accept().await?;
        let _ = socket.set_nodelay(true); // else it is only slower
        let peer = match address {
            SocketAddr::V4(v4) => format!("ipv4:{v4}"),
            SocketAddr::V6(v6) => format!("ipv6:%5B{}%5D:{}", v6.ip(), v6.port()),
        };
        Ok((socket, peer.into()))
    }
}

impl Accepts for UnixListener {
    type Socket = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Arc<str>)> {
        let (socket, _) = self.accept().await?;
        Ok((socket, "unix:".into()))
    }
}

async fn accept(io: Rc<Io>, listener: impl Accepts, mut stop: Stop) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return,
            accepted = listener.next() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => open(&io, socket, peer, &stop),
            Err(error) => complain(&io, &error).await,
        }
    }
}

async fn complain(io: &Io, error: &io::Error) {
    io.outbox.log(
        "warning",
        format!("a connection could not be accepted: {error}"),
    );
    sleep(ACCEPT_RETRY).await;
}

/// Serve a connection in a task of its own; close one too many at once.
fn open<S>(io: &Rc<Io>, socket: S, peer: Arc<str>, stop: &Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connections = &io.shared.connections;
    if connections.open() >= io.options.max_connections as u64 {
        return connections.refuse(Refused::Limit);
    }
    connections.enter();
    let (io, stop) = (Rc::clone(io), stop.clone());
    spawn_local(async move {
        let deadline = Instant::now() + Duration::from_secs_f64(io.options.handshake_seconds);
        let ended = match io.tls.clone() {
            None => connection::serve(&io, socket, peer, stop, deadline).await,
            Some(tls) => match timeout_at(deadline, tls.accept(socket)).await {
                Ok(Ok(secured)) => connection::serve(&io, secured, peer, stop, deadline).await,
                _ => Err(Refused::Tls),
            },
        };
        io.shared.connections.leave(ended);
    });
}
