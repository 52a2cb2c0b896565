//! The actions that run as jobs, with their options.

use chat_domain::projection::{Generation, ProjectionName};
use chat_domain::{Position, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use utoipa::ToSchema;

use crate::audit::LogPoint;
use crate::dead_letters::resolve::DeadLetterSelection;
use crate::projections::rebuild::{RebuildEnd, RebuildOptions};
use crate::proof::checkpoint::Checkpoint;
use crate::proof::key::VerifyingKey;

/// The longest checkpoint and the longest public key that a verification takes, in bytes.
const MAX_NOTE_BYTES: usize = 16 * 1024;

/// An action that runs as a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "options")]
pub enum JobAction {
    /// Build new generations, compare them with the live ones, and promote them.
    #[serde(rename = "projections.rebuild")]
    Rebuild(RebuildRequest),
    /// Make built or left-over generations live.
    #[serde(rename = "projections.promote")]
    Promote(SwitchOverRequest),
    /// Make the previous generations live again.
    #[serde(rename = "projections.rollback")]
    RollBack(SwitchOverRequest),
    /// Remove generations that are not live.
    #[serde(rename = "projections.drop")]
    Drop(DropRequest),
    /// Apply dead letters again.
    #[serde(rename = "dead_letters.retry")]
    RetryDeadLetters(RetryRequest),
    /// Exclude an event from the projections.
    #[serde(rename = "dead_letters.discard")]
    DiscardDeadLetter(DiscardRequest),
    /// Confirm that events were discarded.
    #[serde(rename = "dead_letters.acknowledge")]
    AcknowledgeDiscards(AcknowledgeRequest),
    /// Sign the log.
    #[serde(rename = "audit.checkpoint")]
    MakeCheckpoint(CheckpointRequest),
    /// Check the log, by itself or against a checkpoint.
    #[serde(rename = "audit.verify")]
    VerifyLog(VerifyRequest),
}

/// Options of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RebuildRequest {
    /// The projections, `read_model` and `search_index`; all of them by default, promoted together.
    #[schema(value_type = Vec<String>)]
    pub projections: ProjectionList,
    /// Discard an unfinished rebuild instead of resuming it.
    pub from_scratch: bool,
    /// Promote even if rows differ from those of the live generation, or the live generation can't be read.
    pub accept_differences: bool,
    /// Stop at a position, or at a time (RFC 3339). The new generations are then not promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Options of a promotion or a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchOverRequest {
    /// The projections, `read_model` and `search_index`. By default, a promotion takes those that are being built, or
    /// else those that the last rollback changed; a rollback takes those that the last promotion changed.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projections: Option<ProjectionList>,
}

impl SwitchOverRequest {
    /// A request that names the projections.
    pub(super) fn for_projections(names: Vec<ProjectionName>) -> Self {
        Self { projections: Some(ProjectionList(names)) }
    }

    /// Returns the names of the projections; `None` for the default.
    pub(super) fn names(&self) -> Option<&[ProjectionName]> {
        self.projections.as_ref().map(ProjectionList::names)
    }
}

/// The generations to drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DropRequest {
    /// The projections, `read_model` and `search_index`; all of them by default.
    #[schema(value_type = Vec<String>)]
    pub projections: ProjectionList,
    /// The number of the generation to drop. It is dropped even if a rollback needs it or it is being built. By
    /// default, all left-over generations are dropped.
    #[schema(value_type = Option<u32>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// The dead letters to retry: exactly one of `position`, `stream` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRequest {
    /// The projections, `read_model` and `search_index`; all of them by default.
    #[schema(value_type = Vec<String>)]
    pub projections: ProjectionList,
    /// The dead letters of the stream of the event at this position; for an app's stream, also those of its chats.
    #[schema(value_type = Option<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The dead letters of this stream; for an app's stream, also those of its chats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// All dead letters.
    pub all: bool,
}

/// The dead letter to discard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardRequest {
    /// The projections, `read_model` and `search_index`; all of them by default.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    pub projections: ProjectionList,
    /// The event's position.
    #[schema(value_type = u64)]
    pub position: Position,
}

/// The discarded events to acknowledge: exactly one of `position` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// The projections, `read_model` and `search_index`; all of them by default.
    #[schema(value_type = Vec<String>)]
    pub projections: ProjectionList,
    /// The event's position.
    #[schema(value_type = Option<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// All discarded events that are not acknowledged.
    pub all: bool,
}

/// Options of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRequest {
    /// The last event of the checkpoint: the event at a position, or the last one recorded at a time or before it; the
    /// last event of the log by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The checkpoint to verify the log against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyRequest {
    /// The text of a checkpoint; without it, only the consistency of the log is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The public key to check the checkpoint's signature with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

impl VerifyRequest {
    /// Returns the name of the first field that is malformed.
    pub fn malformed_field(&self) -> Option<&'static str> {
        if self.checkpoint.as_deref().is_some_and(|note| Checkpoint::parse_note(note).is_err()) {
            return Some("checkpoint");
        }
        self.public_key.as_deref().filter(|key| VerifyingKey::parse(key).is_err()).map(|_| "public_key")
    }
}

/// The projections of an action, each once, and at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ProjectionName>")]
pub struct ProjectionList(Vec<ProjectionName>);

impl ProjectionList {
    /// Returns the names.
    pub fn names(&self) -> &[ProjectionName] {
        &self.0
    }
}

impl Default for ProjectionList {
    fn default() -> Self {
        Self(ProjectionName::ALL.to_vec())
    }
}

/// A list without a projection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected at least one projection; leave the field out for all of them")]
pub struct NoProjection;

impl TryFrom<Vec<ProjectionName>> for ProjectionList {
    type Error = NoProjection;

    fn try_from(names: Vec<ProjectionName>) -> Result<Self, NoProjection> {
        if names.is_empty() {
            return Err(NoProjection);
        }
        // In the order in which projections are listed everywhere.
        Ok(Self(ProjectionName::ALL.into_iter().filter(|name| names.contains(name)).collect()))
    }
}

impl From<ProjectionName> for ProjectionList {
    fn from(name: ProjectionName) -> Self {
        Self(vec![name])
    }
}

/// Why the options of an action are invalid.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("`{field}`: {expected}")]
pub struct InvalidOptions {
    /// The field.
    pub field: &'static str,
    /// The values that it takes.
    pub expected: &'static str,
}

const EXPECTED_POINT: &str = "a position, or a time such as `2026-11-24T12:00:00Z`";

impl JobAction {
    /// Reads an action of a recorded job; `None` if this program does not know its kind or options.
    pub(super) fn from_recorded(kind: &str, options: &Value) -> Option<Self> {
        serde_json::from_value(serde_json::json!({ "kind": kind, "options": options })).ok()
    }

    /// Returns the action's kind and its options as they are recorded.
    pub(super) fn to_recorded(&self) -> (String, Value) {
        // Strings, numbers and lists always serialize.
        let mut recorded = serde_json::to_value(self).unwrap_or_default();
        let kind = recorded["kind"].as_str().unwrap_or_default().to_owned();
        (kind, recorded["options"].take())
    }

    /// Checks the options.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        match self {
            Self::Rebuild(request) => request.end().map(drop),
            Self::RetryDeadLetters(request) => request.selection().map(drop),
            Self::AcknowledgeDiscards(AcknowledgeRequest { position, all, .. }) => {
                if position.is_some() == *all {
                    let expected = "either this or `all`";
                    return Err(InvalidOptions { field: "position", expected });
                }
                Ok(())
            }
            Self::MakeCheckpoint(request) => request.point().map(drop),
            Self::VerifyLog(VerifyRequest { checkpoint, public_key }) => {
                if public_key.is_some() && checkpoint.is_none() {
                    let expected = "only with a `checkpoint`, whose signature it checks";
                    return Err(InvalidOptions { field: "public_key", expected });
                }
                for (field, text) in [("checkpoint", checkpoint), ("public_key", public_key)] {
                    if text.as_ref().is_some_and(|text| text.len() > MAX_NOTE_BYTES) {
                        return Err(InvalidOptions { field, expected: "at most 16,384 bytes" });
                    }
                }
                Ok(())
            }
            Self::Promote(_) | Self::RollBack(_) | Self::Drop(_) | Self::DiscardDeadLetter(_) => Ok(()),
        }
    }

    /// Whether the action is a switch-over that takes the default projections.
    pub(super) fn takes_default_projections(&self) -> bool {
        matches!(self, Self::Promote(request) | Self::RollBack(request) if request.projections.is_none())
    }

    /// The projections for which the action builds a generation, or changes which generation is live.
    pub(super) fn switched_projections(&self) -> &[ProjectionName] {
        match self {
            Self::Rebuild(request) => request.projections.names(),
            // The default depends on what other jobs do.
            Self::Promote(request) | Self::RollBack(request) => {
                request.names().unwrap_or(&ProjectionName::ALL)
            }
            Self::Drop(_)
            | Self::RetryDeadLetters(_)
            | Self::DiscardDeadLetter(_)
            | Self::AcknowledgeDiscards(_)
            | Self::MakeCheckpoint(_)
            | Self::VerifyLog(_) => &[],
        }
    }
}

impl RebuildRequest {
    fn end(&self) -> Result<Option<RebuildEnd>, InvalidOptions> {
        let parse = |text: &String| {
            let position = Position::parse(text).ok().map(RebuildEnd::Position);
            position.or_else(|| Timestamp::parse_rfc3339(text).map(RebuildEnd::Time))
        };
        match &self.until {
            None => Ok(None),
            Some(text) => {
                parse(text).map(Some).ok_or(InvalidOptions { field: "until", expected: EXPECTED_POINT })
            }
        }
    }

    pub(super) fn options(&self) -> Result<RebuildOptions, InvalidOptions> {
        Ok(RebuildOptions {
            names: self.projections.names().to_vec(),
            from_scratch: self.from_scratch,
            until: self.end()?,
            accept_differences: self.accept_differences,
        })
    }
}

impl RetryRequest {
    pub(super) fn selection(&self) -> Result<DeadLetterSelection, InvalidOptions> {
        match (self.position, &self.stream, self.all) {
            (Some(position), None, false) => Ok(DeadLetterSelection::Event(position)),
            (None, Some(stream), false) if !stream.is_empty() => {
                Ok(DeadLetterSelection::Stream(stream.clone()))
            }
            (None, None, true) => Ok(DeadLetterSelection::All),
            _ => {
                Err(InvalidOptions { field: "position", expected: "exactly one of this, `stream` and `all`" })
            }
        }
    }
}

impl CheckpointRequest {
    pub(super) fn point(&self) -> Result<Option<LogPoint>, InvalidOptions> {
        match &self.until {
            None => Ok(None),
            Some(text) => LogPoint::parse(text)
                .map(Some)
                .ok_or(InvalidOptions { field: "until", expected: EXPECTED_POINT }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_recorded_action_is_read_again() {
        let actions = [
            JobAction::Rebuild(RebuildRequest {
                projections: ProjectionName::SearchIndex.into(),
                until: Some("17".to_owned()),
                ..RebuildRequest::default()
            }),
            JobAction::RollBack(SwitchOverRequest::default()),
            JobAction::Drop(DropRequest { generation: Some(Generation(2)), ..DropRequest::default() }),
            JobAction::RetryDeadLetters(RetryRequest { all: true, ..RetryRequest::default() }),
            JobAction::DiscardDeadLetter(DiscardRequest {
                projections: ProjectionList::default(),
                position: Position::new(17),
            }),
            JobAction::MakeCheckpoint(CheckpointRequest::default()),
            JobAction::VerifyLog(VerifyRequest::default()),
        ];
        for action in actions {
            let (kind, options) = action.to_recorded();
            assert_eq!(JobAction::from_recorded(&kind, &options).as_ref(), Some(&action), "{kind} {options}");
            assert!(action.validate().is_ok(), "{kind} {options}");
        }
        assert_eq!(JobAction::from_recorded("projections.melt", &json!({})), None);
    }

    #[test]
    fn an_option_of_a_newer_program_makes_any_kind_of_action_unknown() {
        for (kind, mut options) in [
            ("projections.rebuild", json!({})),
            ("projections.promote", json!({})),
            ("projections.rollback", json!({})),
            ("projections.drop", json!({})),
            ("dead_letters.retry", json!({ "all": true })),
            ("dead_letters.discard", json!({ "position": 17 })),
            ("dead_letters.acknowledge", json!({ "all": true })),
            ("audit.checkpoint", json!({})),
            ("audit.verify", json!({})),
        ] {
            assert!(JobAction::from_recorded(kind, &options).is_some(), "{kind} {options}");
            options["colour"] = "red".into();
            assert_eq!(JobAction::from_recorded(kind, &options), None, "{kind} {options}");
        }
    }

    #[test]
    fn projections_are_listed_once() {
        let parse_projections = |options| match JobAction::from_recorded("projections.promote", &options) {
            Some(JobAction::Promote(request)) => request.names().map(<[_]>::to_vec),
            other => panic!("{other:?}"),
        };
        assert_eq!(parse_projections(json!({})), None);
        let none = json!({ "projections": [] });
        assert_eq!(JobAction::from_recorded("projections.promote", &none), None);
        let twice = json!({ "projections": ["search_index", "search_index"] });
        assert_eq!(parse_projections(twice), Some(vec![ProjectionName::SearchIndex]));
    }

    #[test]
    fn invalid_options_are_refused() {
        for (action, field) in [
            (JobAction::RetryDeadLetters(RetryRequest::default()), "position"),
            (
                JobAction::RetryDeadLetters(RetryRequest {
                    position: Some(Position::new(1)),
                    all: true,
                    ..RetryRequest::default()
                }),
                "position",
            ),
            (JobAction::AcknowledgeDiscards(AcknowledgeRequest::default()), "position"),
            (
                JobAction::Rebuild(RebuildRequest {
                    until: Some("soon".to_owned()),
                    ..RebuildRequest::default()
                }),
                "until",
            ),
            (
                JobAction::VerifyLog(VerifyRequest { checkpoint: None, public_key: Some(String::new()) }),
                "public_key",
            ),
        ] {
            assert_eq!(action.validate().unwrap_err().field, field, "{action:?}");
        }
    }
}
