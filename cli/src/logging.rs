//! Logging: to standard error, as text or JSON, through a queue.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::UtcTime;

use crate::failure::Failure;
use crate::serve_options::{LogFormat, ServeOptions};
use crate::stderr;

/// Log levels of libraries. `--log` can set other ones. tantivy logs whole structures at each commit.
const LIBRARY_LEVELS: &str = "tantivy=warn";

/// Starts logging, which never blocks.
pub(crate) fn init(options: &ServeOptions) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{LIBRARY_LEVELS},{}", options.log)).map_err(|error| {
        Failure::because(format!("--log (RUST_LOG) can't be read: {:?}", options.log), &error)
    })?;
    let queue = stderr::start_queue()
        .map_err(|error| Failure::because("the thread that writes the log could not be started", &error))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The subscriber would print its own errors to standard error, and printing panics if standard error is closed.
        .log_internal_errors(false)
        .with_writer(move || queue.clone());
    match options.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Pretty => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            subscriber.with_ansi(colours).with_timer(UtcTime::rfc_3339()).init();
        }
    }
    // The default hook writes to standard error itself, and blocks if that is not read.
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    tracing::error!(thread = thread.name(), backtrace, "{panic}");
}
