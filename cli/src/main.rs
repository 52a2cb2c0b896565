//! `chat-api`: the chat API's one binary.
//!
//! Without a subcommand it is the whole system in one process. Some subcommands are one role of it each; the others are
//! for operators ([`operator`]).

mod args;
mod banner;
mod engines;
mod failure;
mod logs;
mod operator;
mod process;
mod readiness;
mod search_folder;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Task};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.task() {
        Task::Run(role, options) => match process::run(role, &options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        },
        Task::Operate(command) => operator::run(*command),
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
