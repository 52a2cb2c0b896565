//! `chat-api`: the chat API's one binary.
//!
//! Without a subcommand it runs the whole system in one process. Some subcommands run one role each; the others are for
//! operators ([`operator`]).

mod args;
mod banner;
mod clock_check;
mod command_line;
mod data_access;
mod data_owner;
mod engines;
mod failure;
mod listen_address;
mod listeners;
mod log_guard;
mod log_queue;
mod logging;
mod metrics;
mod open_files;
mod operator;
mod operator_access;
mod private_files;
mod process;
mod projection_name;
mod query_side;
mod readiness;
mod serve_options;
mod shutdown;
mod signals;
mod start_checks;
mod start_progress;
mod stderr;

use std::process::ExitCode;

use crate::args::Task;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    private_files::restrict_new_files();
    data_owner::restore_process_name();
    // The provider of cryptography for TLS. Installing it fails only if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command_line::parse() {
        Ok(Task::Run(role, options)) => {
            let code = match clock_check::check().and_then(|()| process::run(role, &options)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(),
            };
            stderr::flush();
            code
        }
        Ok(Task::Operator(command)) => operator::run(*command, command_line::definition()),
        Err(code) => code,
    }
}
