//! What is generated from the command line's own description: completions for shells, and man pages.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Arguments;
use crate::failure::Failure;

/// `completions`
#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell's
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// `man`
#[derive(Args)]
pub(crate) struct Man {
    /// Folder for the pages of all commands, created where it does not exist; without it, the main page is printed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn completions(arguments: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "chat-api", &mut script);
    print(&script)
}

pub(super) fn man(arguments: &Man) -> ExitCode {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        // A vector takes everything.
        let _ = clap_mangen::Man::new(Arguments::command()).render(&mut page);
        return print(&page);
    };
    match write_pages(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::because(format!("no man pages in {}", folder.display()), &error).report(),
    }
}

fn write_pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Arguments::command(), folder)
}

fn print(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        // Whoever reads it may have seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::because("it can't be written", &error).report()
        }
        _ => ExitCode::SUCCESS,
    }
}
