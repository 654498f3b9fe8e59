//! The io thread: hands Python's answers to their calls, and drains.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout, Instant};

use crate::counts::add;
use crate::events::{Command, Event};
use crate::io::{Io, Options};
use crate::lane::queue::Told;
use crate::listen::{listen, Listener};
use crate::shared::Shared;
use crate::tls::Tls;

pub const THREAD_NAME: &str = "forward-io";
const BEAT: Duration = Duration::from_millis(500);

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
        let observing = Rc::clone(&io);
        spawn_local(async move { observing.outbox.keep_publishing_observed().await });
        let running = Rc::clone(&io);
        spawn_local(async move {
            let tell = |told| match told {
                Told::Failed(error) => {
                    let text = format!("a run failed, Python answers its requests: {error}");
                    running.outbox.log("error", text);
                }
                Told::Sampled(sample) => running.outbox.sample(sample),
            };
            running.lane.keep_running(tell).await;
        });
        spawn_local(beat(Rc::clone(&io)));
        let grace = commands(&io).await;
        let deadline = Instant::now() + grace;
        stop.send_replace(Some(deadline));
        drop(stopping);
        stopped(&io, &stop, deadline).await;
        io.outbox.publish_observed();
        io.outbox.push(Event::Stopped);
        io.outbox.publish();
        Ok(())
    })
}

/// Show that the thread gets on, for ever, and publish what came meanwhile.
async fn beat(io: Rc<Io>) {
    loop {
        add(&io.shared.beats, 1);
        io.outbox.publish_samples();
        sleep(BEAT).await;
    }
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
                Command::Sleep { seconds } => {
                    std::thread::sleep(Duration::from_secs_f64(seconds));
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Ending;
    use crate::lane::admission::Admission;
    use crate::lane::metrics::{Bounds, Metrics};
    use crate::methods::Methods;

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
            access_log: 0.0,
            traces: false,
            trace_share: 0.0,
            admission: Admission::new(1),
            metrics: Arc::new(Metrics::new(&bounds)),
        };
        Io::new(
            options,
            Arc::new(Shared::new(Methods::new([])).unwrap()),
            None,
        )
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
