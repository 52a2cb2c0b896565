//! The things that an operator action concerns, as text and links, and the titles of jobs, generations and projections.

use std::borrow::Borrow;

use chat_domain::metadata::EventId;
use chat_domain::operator_action::{JobEnded, JobStarted};
use chat_domain::projection::{ProjectionGeneration, ProjectionName};
use chat_domain::{OperatorAction, Position};
use chat_operations::jobs::JobId;

use crate::console::Console;
use crate::event_view::StreamView;
use crate::page::{ConsoleError, Section};
use crate::text;

/// A thing that an operator action concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// Text without a link.
    Text(String),
    /// Text with a link.
    Link { text: String, path: String },
    /// An app or a chat.
    Stream(StreamView),
}

impl Concern {
    fn link(text: impl Into<String>, path: impl Into<String>) -> Self {
        Self::Link { text: text.into(), path: path.into() }
    }

    fn projection(name: ProjectionName) -> Self {
        Self::Text(projection_title(name).to_owned())
    }

    fn dead_letter(position: Position) -> Self {
        let text = format!("event {}", text::number(position.get()));
        Self::link(text, format!("/console/dead-letters/{position}"))
    }

    /// The things that the action of an event concerns.
    pub(crate) async fn load_all(
        console: &Console,
        event: EventId,
        action: &OperatorAction,
    ) -> Result<Vec<Self>, ConsoleError> {
        let concerns = match action {
            OperatorAction::RebuildStarted(action) => generations(&action.generations),
            OperatorAction::ProjectionsPromoted(action) => generations(&action.generations),
            OperatorAction::ProjectionsRolledBack(action) => generations(&action.generations),
            OperatorAction::ProjectionsDropped(action) => generations(&action.generations),
            OperatorAction::DeadLettersRetried(action) => vec![
                Self::projection(action.projection),
                Self::Stream(StreamView::load(console, &action.stream).await?),
            ],
            OperatorAction::DeadLetterDiscarded(action) => {
                vec![Self::projection(action.projection), Self::dead_letter(action.position)]
            }
            OperatorAction::DiscardAcknowledged(action) => {
                vec![Self::projection(action.projection), Self::dead_letter(action.position)]
            }
            OperatorAction::JobRequested(action) => {
                vec![Self::link(job_title(&action.kind), job_path(&JobId::from_request(event).to_string()))]
            }
            OperatorAction::JobStarted(JobStarted { job, .. })
            | OperatorAction::JobEnded(JobEnded { job, .. }) => {
                vec![Self::link("job", job_path(job))]
            }
            OperatorAction::LogIncarnationBegan(action) => {
                let kept = text::number(action.kept_up_to.get());
                vec![Self::Text(format!("the log, kept up to position {kept}"))]
            }
            OperatorAction::SigningKeyUsed(action) => {
                let text = format!("checkpoint of {}", text::counted(action.events, "event"));
                vec![Self::link(text, "/console/proofs"), Self::Text(action.key.clone())]
            }
        };
        Ok(concerns)
    }
}

/// The path of a job's page.
pub(crate) fn job_path(id: &str) -> String {
    format!("/console/jobs/{id}")
}

/// A kind of job in words.
pub(crate) fn job_title(kind: &str) -> &str {
    match kind {
        "projections.rebuild" => "Rebuild",
        "projections.promote" => "Promotion",
        "projections.rollback" => "Rollback",
        "projections.drop" => "Removal of generations",
        "dead_letters.retry" => "Retry of dead letters",
        "dead_letters.discard" => "Discard of a dead letter",
        "dead_letters.acknowledge" => "Acknowledgement of discards",
        "audit.checkpoint" => "Checkpoint of the log",
        "audit.verify" => "Verification of the log",
        kind => kind,
    }
}

/// The console section that a kind of job belongs to, with its path and title.
pub(crate) fn job_section(job_kind: &str) -> (Section, &'static str, &'static str) {
    match job_kind.split('.').next() {
        Some("projections") => (Section::Projections, "/console/projections", "Projections"),
        Some("dead_letters") => (Section::DeadLetters, "/console/dead-letters", "Dead letters"),
        _ => (Section::Proofs, "/console/proofs", "Proofs"),
    }
}

fn generations(generations: &[ProjectionGeneration]) -> Vec<Concern> {
    let named = generations.iter().copied().map(generation_name);
    named.map(|name| Concern::link(name, "/console/projections")).collect()
}

/// The name of a generation on a page: `Read model 3`.
pub(crate) fn generation_name(id: ProjectionGeneration) -> String {
    format!("{} {}", projection_title(id.projection), id.generation.0)
}

/// The name of a projection on a page.
pub(crate) fn projection_title(name: impl Borrow<ProjectionName>) -> &'static str {
    match name.borrow() {
        ProjectionName::ReadModel => "Read model",
        ProjectionName::SearchIndex => "Search index",
    }
}
