//! The io thread: accepts connections, hands Python's answers to their calls, and drains.

use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout, timeout_at, Instant};

use crate::connection::{self, Stop};
use crate::events::{Command, Event, Shared};
use crate::io::{Io, Options};
use crate::tls::Tls;

pub const THREAD_NAME: &str = "forward-io";
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

/// Serve until Python stops the server; the io thread's whole life.
pub fn run(
    shared: Arc<Shared>,
    options: Options,
    listeners: Vec<Listener>,
    tls: Option<Arc<Tls>>,
) -> std::io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let io = Rc::new(Io::new(options, shared, tls));
        let (stop, stopping) = watch::channel(None);
        for listener in listeners {
            listen(&io, listener, &stopping)?;
        }
        let publishing = Rc::clone(&io);
        spawn_local(async move { publishing.outbox.keep_publishing().await });
        let running = Rc::clone(&io);
        spawn_local(async move {
            let log = |text| running.outbox.log("error", text);
            running.lane.keep_running(log).await;
        });
        let grace = commands(&io).await;
        let deadline = Instant::now() + grace;
        stop.send_replace(Some(deadline));
        drop(stopping);
        stopped(&io, &stop, deadline).await;
        io.outbox.push(Event::Stopped);
        io.outbox.publish();
        Ok(())
    })
}

/// Hand commands to their calls, until the one to stop, and those that came together with it.
async fn commands(io: &Io) -> Duration {
    let mut grace = None;
    loop {
        for command in io.shared.take_commands().await {
            match command {
                Command::Stop { grace_seconds } => {
                    grace = Some(Duration::from_secs_f64(grace_seconds));
                }
                Command::Panic => panic!("it was told to"),
                command => io.dispatch(command),
            }
        }
        if let Some(grace) = grace {
            return grace;
        }
    }
}

/// Return when all connections are closed; answers go on until then.
async fn stopped(io: &Io, stop: &watch::Sender<Option<Instant>>, deadline: Instant) {
    let slack = Duration::from_millis(500);
    let left = deadline.saturating_duration_since(Instant::now()) + slack;
    let answering = async {
        loop {
            for command in io.shared.take_commands().await {
                io.dispatch(command);
            }
        }
    };
    tokio::select! {
        _ = timeout(left, stop.closed()) => {}
        () = answering => {}
    }
}

fn listen(io: &Rc<Io>, listener: Listener, stop: &Stop) -> std::io::Result<()> {
    let (io, stop) = (Rc::clone(io), stop.clone());
    match listener {
        Listener::Tcp(fd) => {
            let listener = TcpListener::from_std(std::net::TcpListener::from(fd))?;
            spawn_local(accept_tcp(io, listener, stop));
        }
        Listener::Unix(fd) => {
            use std::os::unix::net::UnixListener as StdListener;
            let listener = UnixListener::from_std(StdListener::from(fd))?;
            spawn_local(accept_unix(io, listener, stop));
        }
    }
    Ok(())
}

async fn accept_tcp(io: Rc<Io>, listener: TcpListener, mut stop: Stop) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                let _ = socket.set_nodelay(true); // else it is only slower
                let peer = match address {
                    std::net::SocketAddr::V4(v4) => format!("ipv4:{v4}"),
                    std::net::SocketAddr::V6(v6) => format!("ipv6:%5B{}%5D:{}", v6.ip(), v6.port()),
                };
                open(&io, socket, peer.into(), &stop);
            }
            Err(error) => complain(&io, &error).await,
        }
    }
}

async fn accept_unix(io: Rc<Io>, listener: UnixListener, mut stop: Stop) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => open(&io, socket, "unix:".into(), &stop),
            Err(error) => complain(&io, &error).await,
        }
    }
}

async fn complain(io: &Io, error: &std::io::Error) {
    io.outbox.log(
        "warning",
        format!("a connection could not be accepted: {error}"),
    );
    sleep(ACCEPT_RETRY).await;
}

/// Serve a connection in a task of its own; close one too many at once.
fn open<S>(io: &Rc<Io>, socket: S, peer: Arc<str>, stop: &Stop)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    if io.connections.get() >= io.options.max_connections {
        return;
    }
    let counted = Counted::new(io);
    let (io, stop) = (Rc::clone(io), stop.clone());
    spawn_local(async move {
        let _counted = counted;
        let deadline = Instant::now() + Duration::from_secs_f64(io.options.handshake_seconds);
        match io.tls.clone() {
            None => connection::serve(io, socket, peer, stop, deadline).await,
            Some(tls) => {
                if let Ok(Ok(secured)) = timeout_at(deadline, tls.accept(socket)).await {
                    connection::serve(io, secured, peer, stop, deadline).await;
                }
            }
        }
    });
}

/// A connection that counts, as long as it lives.
struct Counted(Rc<Io>);

impl Counted {
    fn new(io: &Rc<Io>) -> Self {
        io.connections.set(io.connections.get() + 1);
        Self(Rc::clone(io))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Ending;
    use crate::lane::admission::Admission;
    use crate::lane::metrics::{Bounds, Metrics};

    fn io() -> Io {
        let bounds = Bounds {
            seconds: vec![1.0],
            images: vec![1.0],
        };
        let drained = Ending {
            code: 14,
            text: String::new(),
            trailing: Vec::new(),
        };
        let options = Options {
            unary_methods: Default::default(),
            max_connections: 1,
            max_concurrent_streams: 1,
            max_message_bytes: 1,
            max_metadata_bytes: 1,
            handshake_seconds: 1.0,
            keepalive_seconds: 0.0,
            keepalive_timeout_seconds: 0.0,
            max_age_seconds: 0.0,
            age_grace_seconds: 0.0,
            min_ping_seconds: 0.0,
            needs_token: false,
            drained,
            admission: Admission::new(1),
            metrics: Arc::new(Metrics::new(&bounds)),
        };
        Io::new(options, Arc::new(Shared::new().unwrap()), None)
    }

    #[test]
    fn answers_that_come_with_the_stop_reach_their_calls() {
        let io = io();
        let (id, slot) = io.register();
        let grace_seconds = 30.0;
        io.shared.push_command(Command::Stop { grace_seconds });
        io.shared.push_command(Command::Taken { id });
        io.shared.flush();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let grace = runtime.build().unwrap().block_on(commands(&io));
        assert_eq!(grace, Duration::from_secs(30));
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(slot.poll(cx).is_ready());
    }
}
