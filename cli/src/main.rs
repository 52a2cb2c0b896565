//! `chat-api`: the chat API's one binary.
//!
//! Without a subcommand it is the whole system in one process; each subcommand but `serve` is one role of it.

mod args;
mod banner;
mod engines;
mod failure;
mod logs;
mod process;
mod readiness;
mod search_folder;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (role, options) = arguments.role();
    match process::run(role, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        crate::args::Arguments::command().debug_assert();
    }
}
