//! `projections verify`

use chat_operations::projections::verify::{VerificationReport, full, sample};
use clap::Args;

use super::progress::Display;
use super::shown::explained;
use super::{Name, cancel, failure, open};
use crate::failure::Failure;
use crate::operator::Common;
use crate::operator::answer::Answer;

/// Chats that a sample looks at unless told otherwise.
const CHATS: usize = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Which projection
    name: Name,
    /// Look at so many random chats [default: 20]
    #[arg(long, value_name = "CHATS", conflicts_with = "full")]
    sample: Option<usize>,
    /// Fold the whole log again, and compare everything; needs as much disk as the projection
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(options: &Options) -> Result<Answer, Failure> {
    let projections = open(&options.common).await?;
    let cancel = cancel()?;
    let name = options.name.into();
    let display = Display::start();
    let verified = if options.full {
        full(&projections, name, &display.progress, &cancel).await
    } else {
        sample(&projections, name, options.sample.unwrap_or(CHATS), &cancel).await
    };
    drop(display);
    let verified = verified.map_err(failure)?;
    Ok(Answer::new(&verified, text(&verified))?.finding(verified.drifted > 0))
}

fn text(verified: &VerificationReport) -> String {
    let VerificationReport { name, generation, position, compared, drifted, shown } = verified;
    let found = match drifted {
        0 => "all are what follows from the log".to_owned(),
        1 => "1 is not what follows from the log".to_owned(),
        many => format!("{many} are not what follows from the log"),
    };
    let (name, generation) = (name.as_str(), generation.0);
    format!("{name} {generation}: {compared} rows compared at position {position}; {found}\n")
        + &explained(shown, *drifted)
}
