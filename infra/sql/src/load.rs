//! What the projection loads before it folds, and how it moves the checkpoint.

use super::tables::version;
use crate::dead_letters;

/// The checkpoint, as [`super::row::checkpoint`] reads it.
pub const CHECKPOINT: &str =
    concat!("SELECT k.log, k.position FROM checkpoint k WHERE k.layout = ", version!());

/// Moves the checkpoint of the log `$1` to `$2`, where it is at `$3`.
pub const MOVE_CHECKPOINT: &str = concat!(
    "UPDATE checkpoint SET log = $1, position = $2 WHERE position = $3
     AND (log = $1 OR (log IS NULL AND position = 0)) AND layout = ",
    version!()
);

/// The streams with a parked event.
pub const BLOCKED_STREAMS: &str = "SELECT DISTINCT stream FROM dead_letters WHERE discarded = 0";

/// How many letters there are, as [`super::row::letter_counts`] reads it.
macro_rules! letter_counts {
    () => {
        "(SELECT count(*) FROM dead_letters WHERE discarded = 0),
         (SELECT count(*) FROM dead_letters WHERE discarded <> 0 AND acknowledged = 0)"
    };
}

/// How many dead letters there are.
pub const DEAD_LETTER_COUNTS: &str = concat!("SELECT ", letter_counts!());

/// The letter at `$1`.
pub const DEAD_LETTER: &str = concat!("SELECT ", dead_letters!(), " FROM dead_letters WHERE position = $1");

/// The first `$2` parked letters of the stream `$1`.
pub const DEAD_LETTERS_OF_STREAM: &str = concat!(
    "SELECT ",
    dead_letters!(),
    " FROM dead_letters WHERE stream = $1 AND discarded = 0 ORDER BY position LIMIT $2"
);

/// Gives the letter at `$6` another reason and state.
pub const UPDATE_DEAD_LETTER: &str = "UPDATE dead_letters SET reason = $1, discarded = $2, discarded_at = $3,
                               discard_reason = $4, acknowledged = $5 WHERE position = $6";

/// The apps whose tokens are in `$keys`, which has the column `token`, as [`super::row::app`] reads them.
#[macro_export]
macro_rules! load_apps {
    ($keys:literal) => {
        concat!("SELECT ", $crate::apps!("a."), " FROM ", $keys, " JOIN apps a ON a.token = k.token")
    };
}

/// The chats named in `$keys`, with the columns `token` and `number`, as [`super::row::stored_chat`] reads them.
#[macro_export]
macro_rules! load_chats {
    ($keys:literal) => {
        concat!(
            "SELECT ",
            $crate::chats!("c."),
            ", a.token FROM ",
            $keys,
            " JOIN apps a ON a.token = k.token JOIN chats c ON c.app_id = a.id AND c.number = k.number"
        )
    };
}

/// The messages and tombstones named in `$keys`, with the columns `chat_id` and `number`, as
/// [`super::row::stored_message`] reads them.
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

pub(crate) use letter_counts;
