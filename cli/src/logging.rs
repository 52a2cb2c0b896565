//! Logging: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::UtcTime;

use crate::failure::Failure;
use crate::serve_options::{LogFormat, ServeOptions};

pub(crate) fn init(options: &ServeOptions) -> Result<(), Failure> {
    // KurrentDB's client logs each error that it also returns; returned errors are logged where they are handled.
    let filter = EnvFilter::try_new(format!("kurrentdb=off,{}", options.log)).map_err(|error| {
        Failure::because(format!("--log (RUST_LOG) can't be read: {:?}", options.log), &error)
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Pretty => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            subscriber.with_ansi(colours).with_timer(UtcTime::rfc_3339()).init();
        }
    }
    Ok(())
}
