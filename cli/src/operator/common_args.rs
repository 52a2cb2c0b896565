//! Arguments that operator commands share.

use chat_operations::jobs::{InvalidReason, Reason};
use chat_operations::operator_actions::Operator;
use clap::{Args, ValueEnum};
use rustix::process::geteuid;

use crate::engines::EngineOptions;
use crate::failure::Failure;

/// Arguments of the commands that use the stored data.
#[derive(Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(super) engines: EngineOptions,
    /// Format of the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: OutputFormat,
    /// Shorten nothing in tables: whole streams and tokens, and lines of any length
    #[arg(id = FULL_TEXT, long = "full")]
    pub(super) full_text: bool,
}

/// The id of the argument `--full` in [`CommonArgs`].
pub(crate) const FULL_TEXT: &str = "full_text";

/// Format of a command's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Table,
    /// One JSON object: `version`, `status`, `data`, `diagnostics`
    Json,
}

/// Arguments of commands that record an action: the operator and the reason.
#[derive(Args)]
pub(super) struct ActionArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Reason to record; required with --execute
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: Option<String>,
}

/// The argument that names the operator who runs a command.
#[derive(Args)]
pub(super) struct OperatorArgs {
    /// Name to record; by default the user and the machine, as in `alice@ops-1`
    #[arg(long, env = "CHAT_OPERATOR", value_name = "NAME")]
    operator: Option<String>,
}

/// Arguments of commands that are dry runs without `--execute`.
#[derive(Args)]
pub(super) struct ExecutionArgs {
    /// Execute the action; without this, only print what would be done
    #[arg(long)]
    pub(super) execute: bool,
    /// Only print what would be done (the default)
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    #[command(flatten)]
    pub(super) action: ActionArgs,
}

impl ActionArgs {
    /// Returns the operator to record.
    pub(super) fn operator(&self) -> Operator {
        self.operator.operator()
    }

    /// Returns the reason to record. Fails if there is none.
    pub(super) fn reason(&self) -> Result<String, Failure> {
        self.reason.clone().ok_or_else(|| {
            Failure::new(
                "--reason is missing: the action is recorded with the operator's name and the reason",
            )
        })
    }
}

impl OperatorArgs {
    /// Returns the operator to record.
    pub(super) fn operator(&self) -> Operator {
        Operator {
            name: self.operator.clone().unwrap_or_else(user_at_host),
            program: concat!("chat-api/", env!("CARGO_PKG_VERSION")).to_owned(),
            job: None,
        }
    }
}

/// Parses a reason to record, by the rules of the admin API.
pub(super) fn parse_reason(text: &str) -> Result<String, InvalidReason> {
    Reason::parse(text).map(|reason| reason.as_str().to_owned())
}

/// Returns the user and the machine, as in `alice@ops-1`, or only the user if `/etc/hostname` is missing.
pub(crate) fn user_at_host() -> String {
    let variable = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(variable);
    // Services and containers often have none of these variables.
    let user = user.unwrap_or_else(|| user_name(geteuid().as_raw()));
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    match host.trim() {
        "" => user,
        host => format!("{user}@{host}"),
    }
}

/// Returns the name of a user, or `uid-…` if `/etc/passwd` has no such account.
pub(crate) fn user_name(id: u32) -> String {
    let id = id.to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|account| {
        // The first fields of a line are the name, the password and the user id.
        let mut fields = account.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid-{id}"))
}
