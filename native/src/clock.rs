//! The clock of Python's `time.monotonic`.

use tokio::time::Instant;

/// Return the seconds of CLOCK_MONOTONIC.
pub fn monotonic_seconds() -> f64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Return an instant of the past in these seconds.
pub fn monotonic_seconds_of(past: Instant) -> f64 {
    monotonic_seconds() - past.elapsed().as_secs_f64()
}
