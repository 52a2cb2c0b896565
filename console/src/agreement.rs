//! The comparison of the row of an app, a chat or a message with the log.

use chat_domain::Position;
use chat_operations::audit::{Subject, explain};

use crate::console::Console;

/// The result of comparing a row with the log.
pub(crate) enum Agreement {
    /// They agree.
    Agrees {
        /// The position of the read model.
        position: Position,
        /// The number of later events of the stream, which the row does not include yet.
        newer_events: u64,
        /// Discarded events, which the row does not include either.
        discarded: Vec<Position>,
    },
    /// They differ.
    Differs {
        /// The position of the read model.
        position: Position,
        /// The names of the fields that differ.
        fields: String,
    },
    /// The subject's stream or its app's stream is blocked by a dead letter.
    Blocked {
        /// The position of the first dead letter.
        dead_letter: Position,
    },
    /// They were not compared.
    NotCompared {
        /// Why not.
        reason: String,
    },
}

impl Agreement {
    /// Compares the row of a subject with the log. A comparison that fails does not fail the page.
    pub(crate) async fn check(console: &Console, subject: Subject) -> Self {
        let Ok(permit) = console.acquire_scan_permit().await else {
            return Self::NotCompared { reason: "other pages are reading the log".to_owned() };
        };
        let explained = explain(console.log(), &*console.read_model(), subject).await;
        drop(permit);
        let explanation = match explained {
            Ok(explanation) => explanation,
            Err(error) => return Self::NotCompared { reason: chat_ports::error_chain(&error) },
        };
        if let Some(first) = explanation.dead_letters.first() {
            return Self::Blocked { dead_letter: first.position };
        }
        let position = explanation.read_model_position;
        if explanation.agrees {
            let discarded = explanation.discarded.iter().map(|event| event.position).collect();
            return Self::Agrees { position, newer_events: explanation.newer_events, discarded };
        }
        let differing = explanation.fields.iter().filter(|field| field.differs());
        let fields: Vec<&str> = differing.map(|field| field.name).collect();
        Self::Differs { position, fields: fields.join(", ") }
    }
}
