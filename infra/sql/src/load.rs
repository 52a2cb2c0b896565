//! Statements of the projector for rows, dead letters and the checkpoint.

use super::tables::schema_version;
use crate::dead_letter_columns;

/// Selects the checkpoint, for [`super::row::read_checkpoint`].
pub const CHECKPOINT: &str =
    concat!("SELECT k.log, k.position FROM checkpoint k WHERE k.layout = ", schema_version!());

/// Moves the checkpoint to position `$2` of the log `$1`, if the checkpoint is at position `$3` of this log. A
/// checkpoint at position 0 may have no log yet.
pub const MOVE_CHECKPOINT: &str = concat!(
    "UPDATE checkpoint SET log = $1, position = $2 WHERE position = $3
     AND (log = $1 OR (log IS NULL AND position = 0)) AND layout = ",
    schema_version!()
);

/// Replaces the log `$2` of the checkpoint with `$1`, if the checkpoint is at position `$3`.
pub const ADOPT_LOG: &str = concat!(
    "UPDATE checkpoint SET log = $1 WHERE log IS NOT DISTINCT FROM $2 AND position = $3 AND layout = ",
    schema_version!()
);

/// Selects the blocked streams.
pub const BLOCKED_STREAMS: &str = "SELECT DISTINCT stream FROM dead_letters WHERE discarded = 0";

/// The columns with the numbers of pending and of unacknowledged discarded dead letters, for
/// [`super::row::read_dead_letter_counts`].
macro_rules! dead_letter_counts {
    () => {
        "(SELECT count(*) FROM dead_letters WHERE discarded = 0),
         (SELECT count(*) FROM dead_letters WHERE discarded <> 0 AND acknowledged = 0)"
    };
}

/// Counts the pending and the unacknowledged discarded dead letters.
pub const DEAD_LETTER_COUNTS: &str = concat!("SELECT ", dead_letter_counts!());

/// Selects the dead letter at position `$1`.
pub const DEAD_LETTER: &str =
    concat!("SELECT ", dead_letter_columns!(), " FROM dead_letters WHERE position = $1");

/// Selects the first `$2` pending dead letters of the stream `$1`.
pub const DEAD_LETTERS_OF_STREAM: &str = concat!(
    "SELECT ",
    dead_letter_columns!(),
    " FROM dead_letters WHERE stream = $1 AND discarded = 0 ORDER BY position LIMIT $2"
);

/// Updates the reason and the state of the dead letter at position `$6`.
pub const UPDATE_DEAD_LETTER: &str = "UPDATE dead_letters SET reason = $1, discarded = $2, discarded_at = $3,
                               discard_reason = $4, acknowledged = $5 WHERE position = $6";

/// Selects apps, for [`super::row::read_app`]. `$keys` is a table expression named `k` with the column `token`.
#[macro_export]
macro_rules! load_apps {
    ($keys:literal) => {
        concat!("SELECT ", $crate::app_columns!("a."), " FROM ", $keys, " JOIN apps a ON a.token = k.token")
    };
}

/// Selects chats, for [`super::row::read_stored_chat`]. `$keys` is a table expression named `k` with the columns
/// `token` and `number`.
#[macro_export]
macro_rules! load_chats {
    ($keys:literal) => {
        concat!(
            "SELECT ",
            $crate::chat_columns!("c."),
            ", a.token FROM ",
            $keys,
            " JOIN apps a ON a.token = k.token JOIN chats c ON c.app_id = a.id AND c.number = k.number"
        )
    };
}

/// Selects messages and tombstones, for [`super::row::read_stored_message`]. `$keys` is a table expression named `k`
/// with the columns `chat_id` and `number`.
#[macro_export]
macro_rules! load_messages {
    ($keys:literal) => {
        concat!(
            "SELECT k.chat_id, k.number, m.id, m.version, m.created_at, d.id FROM ",
            $keys,
            " LEFT JOIN messages m ON m.chat_id = k.chat_id AND m.number = k.number
             LEFT JOIN deleted_messages d ON m.id IS NULL AND d.chat_id = k.chat_id AND d.number = k.number"
        )
    };
}

pub(crate) use dead_letter_counts;
