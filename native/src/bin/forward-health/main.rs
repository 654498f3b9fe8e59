//! `forward-health`: asks a Forward server for its health, as container engines do every few seconds.
//!
//! Python takes 250 ms of CPU for that, most of it to start. This takes a few, in one thread. It reads the
//! server's own variables, so that in the server's container it needs no argument. It prints the status
//! and ends with 0 if that is SERVING, else 1.

mod call;
mod settings;
#[cfg(test)]
mod tests;
mod trust;

use std::process::ExitCode;

use settings::Settings;

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            print!("{}", settings::HELP);
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("forward-health: {reason}; --help tells what it takes");
            return ExitCode::from(2);
        }
    };
    match call::check(&settings) {
        Ok(status) => {
            println!("{status}");
            ExitCode::from(u8::from(status != "SERVING"))
        }
        Err(reason) => {
            eprintln!("forward-health: {reason}");
            ExitCode::FAILURE
        }
    }
}
