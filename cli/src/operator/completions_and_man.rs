//! `completions` and `man`: shell completions and man pages, generated from the command line's definition.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::stdout;
use crate::failure::Failure;
use crate::private_files::allow_public_files;

/// Arguments of `completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages of all commands, created if it does not exist; without it, the main page is printed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn completions(arguments: &CompletionsArgs, mut chat_api: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut chat_api, "chat-api", &mut script);
    if arguments.shell != Shell::Bash {
        return write_to_stdout(&script);
    }
    // Because the program's name has a hyphen, the generated Bash script writes it in two ways: `chat__api` where it
    // recognizes the subcommand on the command line, and `chat__subcmd__api` where it lists the words that may follow
    // that subcommand. The script works only if both are the same (https://github.com/clap-rs/clap/issues/6421).
    write_to_stdout(String::from_utf8_lossy(&script).replace("chat__subcmd__api", "chat__api").as_bytes())
}

pub(super) fn man(arguments: &ManArgs, chat_api: clap::Command) -> ExitCode {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        // Writing to a vector can't fail.
        let _ = clap_mangen::Man::new(chat_api).render(&mut page);
        return write_to_stdout(&page);
    };
    allow_public_files();
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(chat_api, folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Failure::because(format!("the man pages can't be written to {}", folder.display()), &error)
                .report()
        }
    }
}

fn write_to_stdout(bytes: &[u8]) -> ExitCode {
    match stdout::write(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit_code) => exit_code,
    }
}
