//! The queries. Each is one statement, so that all it answers is of one snapshot, and takes one round trip where the
//! engine is elsewhere. A statement that lists starts with a row of its own for the position and what the rest hangs on;
//! the rows of the list have no position.

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position};

use super::row::{self, Row, Value};
use super::tables::{apps, chat_row, dead_letters, message_row, version};
use super::window::{Reach, cut};
use crate::dead_letter::DeadLetter;
use crate::read_model::{AppRow, ChatRow, MessagePage, MessageRow, Missing, Snapshot, Window};

/// A query and, as its rows come, its answer.
pub trait Query: Send + Sync + 'static {
    /// What it asks for.
    type Answer: Send + 'static;

    /// The statement. Each parameter first stands where its number says, which is how SQLite counts them.
    const SQL: &'static str;

    /// The parameters.
    fn params(&self) -> Vec<Value<'_>>;

    /// Takes the next row.
    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error>;

    /// The answer after the last row; `None` where there was no checkpoint for this version of the tables.
    fn answer(self) -> Option<Self::Answer>;
}

fn number(value: u64) -> Value<'static> {
    Value::Int(row::int(value))
}

fn limit(rows: usize) -> Value<'static> {
    Value::Int(row::limit(rows))
}

/// The position, with what it takes to name something, and what was found there.
type Found<T> = Option<Snapshot<Result<T, Missing>>>;

/// The position.
#[derive(Default)]
pub struct GetPosition {
    found: Option<Position>,
}

impl Query for GetPosition {
    type Answer = Position;

    const SQL: &'static str = concat!("SELECT k.position FROM checkpoint k WHERE k.layout = ", version!());

    fn params(&self) -> Vec<Value<'_>> {
        Vec::new()
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        self.found = Some(row::position(row, 0)?);
        Ok(())
    }

    fn answer(self) -> Option<Position> {
        self.found
    }
}

/// An app.
pub struct GetApp {
    token: AppToken,
    found: Found<AppRow>,
}

impl GetApp {
    pub fn new(token: AppToken) -> Self {
        Self { token, found: None }
    }
}

impl Query for GetApp {
    type Answer = Snapshot<Result<AppRow, Missing>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, ",
        apps!("a."),
        " FROM checkpoint k LEFT JOIN apps a ON a.token = $1 WHERE k.layout = ",
        version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![Value::Text(self.token.expose())]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? { Err(Missing::App) } else { Ok(row::app(row, 1)?) };
        self.found = Some(Snapshot { position: row::position(row, 0)?, value });
        Ok(())
    }

    fn answer(self) -> Option<Self::Answer> {
        self.found
    }
}

/// A chat.
pub struct GetChat {
    token: AppToken,
    chat: ChatNumber,
    found: Found<ChatRow>,
}

impl GetChat {
    pub fn new(token: AppToken, chat: ChatNumber) -> Self {
        Self { token, chat, found: None }
    }
}

impl Query for GetChat {
    type Answer = Snapshot<Result<ChatRow, Missing>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, ",
        chat_row!("c."),
        " FROM checkpoint k
          LEFT JOIN apps a ON a.token = $1
          LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
          WHERE k.layout = ",
        version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![Value::Text(self.token.expose()), number(self.chat.get())]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? {
            Err(Missing::App)
        } else if row::is_null(row, 2)? {
            Err(Missing::Chat)
        } else {
            Ok(row::chat(row, 2)?)
        };
        self.found = Some(Snapshot { position: row::position(row, 0)?, value });
        Ok(())
    }

    fn answer(self) -> Option<Self::Answer> {
        self.found
    }
}

/// A message.
pub struct GetMessage {
    token: AppToken,
    chat: ChatNumber,
    message: MessageNumber,
    found: Found<MessageRow>,
}

impl GetMessage {
    pub fn new(token: AppToken, chat: ChatNumber, message: MessageNumber) -> Self {
        Self { token, chat, message, found: None }
    }
}

impl Query for GetMessage {
    type Answer = Snapshot<Result<MessageRow, Missing>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, c.id, d.id, ",
        message_row!("m."),
        " FROM checkpoint k
          LEFT JOIN apps a ON a.token = $1
          LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
          LEFT JOIN messages m ON m.chat_id = c.id AND m.number = $3
          LEFT JOIN deleted_messages d ON m.id IS NULL AND d.chat_id = c.id AND d.number = $3
          WHERE k.layout = ",
        version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![Value::Text(self.token.expose()), number(self.chat.get()), number(self.message.get())]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? {
            Err(Missing::App)
        } else if row::is_null(row, 2)? {
            Err(Missing::Chat)
        } else if !row::is_null(row, 4)? {
            Ok(row::message(row, 4)?)
        } else if row::is_null(row, 3)? {
            Err(Missing::Message)
        } else {
            Err(Missing::Deleted)
        };
        self.found = Some(Snapshot { position: row::position(row, 0)?, value });
        Ok(())
    }

    fn answer(self) -> Option<Self::Answer> {
        self.found
    }
}

/// A page of apps.
pub struct ListApps {
    after: Position,
    limit: usize,
    position: Option<Position>,
    apps: Vec<AppRow>,
}

impl ListApps {
    pub fn new(after: Position, limit: usize) -> Self {
        Self { after, limit, position: None, apps: Vec::new() }
    }
}

impl Query for ListApps {
    type Answer = Snapshot<Vec<AppRow>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM checkpoint k WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, page.* FROM (SELECT ",
        apps!("a."),
        " FROM apps a WHERE a.id > $1 ORDER BY a.id LIMIT $2) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![number(self.after.get()), limit(self.limit)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.apps.push(row::app(row, 1)?);
        } else {
            self.position = Some(row::position(row, 0)?);
        }
        Ok(())
    }

    fn answer(mut self) -> Option<Self::Answer> {
        // The rows of a union come in whatever order.
        self.apps.sort_unstable_by_key(|app| app.created_position);
        Some(Snapshot { position: self.position?, value: self.apps })
    }
}

/// A page of an app's chats.
pub struct ListChats {
    token: AppToken,
    after: Option<ChatNumber>,
    limit: usize,
    head: Option<Snapshot<Result<(), Missing>>>,
    chats: Vec<ChatRow>,
}

impl ListChats {
    pub fn new(token: AppToken, after: Option<ChatNumber>, limit: usize) -> Self {
        Self { token, after, limit, head: None, chats: Vec::new() }
    }
}

impl Query for ListChats {
    type Answer = Snapshot<Result<Vec<ChatRow>, Missing>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k LEFT JOIN apps a ON a.token = $1 WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, NULL, page.* FROM (SELECT ",
        chat_row!("c."),
        " FROM chats c WHERE c.app_id = (SELECT a.id FROM apps a WHERE a.token = $1) AND c.number > $2
          ORDER BY c.number LIMIT $3) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        let after = self.after.map_or(0, ChatNumber::get);
        vec![Value::Text(self.token.expose()), number(after), limit(self.limit)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.chats.push(row::chat(row, 2)?);
        } else {
            let value = if row::is_null(row, 1)? { Err(Missing::App) } else { Ok(()) };
            self.head = Some(Snapshot { position: row::position(row, 0)?, value });
        }
        Ok(())
    }

    fn answer(mut self) -> Option<Self::Answer> {
        self.chats.sort_unstable_by_key(|chat| chat.number);
        let Snapshot { position, value } = self.head?;
        Some(Snapshot { position, value: value.map(|()| self.chats) })
    }
}

/// A page of a chat's messages.
pub struct ListMessages {
    token: AppToken,
    chat: ChatNumber,
    window: Window,
    limit: usize,
    reach: Reach,
    head: Option<Snapshot<Result<(), Missing>>>,
    older: Vec<MessageRow>,
    newer: Vec<MessageRow>,
}

impl ListMessages {
    pub fn new(token: AppToken, chat: ChatNumber, window: Window, limit: usize) -> Self {
        let reach = Reach::of(window, limit);
        Self { token, chat, window, limit, reach, head: None, older: Vec::new(), newer: Vec::new() }
    }
}

impl Query for ListMessages {
    type Answer = Snapshot<Result<MessagePage, Missing>>;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, c.id, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k
         LEFT JOIN apps a ON a.token = $1
         LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
         WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, NULL, NULL, older.* FROM (SELECT ",
        message_row!("m."),
        " FROM messages m
          WHERE m.chat_id = (SELECT c.id FROM apps a JOIN chats c ON c.app_id = a.id WHERE a.token = $1 AND c.number = $2)
          AND m.number < $3 ORDER BY m.number DESC LIMIT $4) AS older
          UNION ALL
          SELECT NULL, NULL, NULL, newer.* FROM (SELECT ",
        message_row!("m."),
        " FROM messages m
          WHERE m.chat_id = (SELECT c.id FROM apps a JOIN chats c ON c.app_id = a.id WHERE a.token = $1 AND c.number = $2)
          AND m.number >= $3 ORDER BY m.number LIMIT $5) AS newer"
    );

    fn params(&self) -> Vec<Value<'_>> {
        let Reach { edge, older, newer } = self.reach;
        let token = Value::Text(self.token.expose());
        vec![token, number(self.chat.get()), Value::Int(edge), limit(older), limit(newer)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            let message = row::message(row, 3)?;
            let older = row::int(message.number.get()) < self.reach.edge;
            if older {
                self.older.push(message)
            } else {
                self.newer.push(message)
            }
            return Ok(());
        }
        let value = if row::is_null(row, 1)? {
            Err(Missing::App)
        } else if row::is_null(row, 2)? {
            Err(Missing::Chat)
        } else {
            Ok(())
        };
        self.head = Some(Snapshot { position: row::position(row, 0)?, value });
        Ok(())
    }

    fn answer(self) -> Option<Self::Answer> {
        let Self { mut older, mut newer, .. } = self;
        older.sort_unstable_by_key(|message| std::cmp::Reverse(message.number));
        newer.sort_unstable_by_key(|message| message.number);
        let Snapshot { position, value } = self.head?;
        Some(Snapshot { position, value: value.map(|()| cut(older, newer, self.window, self.limit)) })
    }
}

/// The first parked events, and how many there are.
pub struct ListDeadLetters {
    limit: usize,
    count: Option<u64>,
    letters: Vec<DeadLetter>,
}

impl ListDeadLetters {
    pub fn new(limit: usize) -> Self {
        Self { limit, count: None, letters: Vec::new() }
    }
}

impl Query for ListDeadLetters {
    type Answer = (Vec<DeadLetter>, u64);

    const SQL: &'static str = concat!(
        "SELECT (SELECT count(*) FROM dead_letters), NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k WHERE k.layout = ",
        version!(),
        " UNION ALL
          SELECT NULL, page.* FROM (SELECT ",
        dead_letters!(),
        " FROM dead_letters ORDER BY position LIMIT $1) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![limit(self.limit)]
    }

    fn read<R: Row>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.letters.push(row::dead_letter(row, 1)?);
        } else {
            self.count = Some(row::uint(row, 0)?);
        }
        Ok(())
    }

    fn answer(mut self) -> Option<Self::Answer> {
        self.letters.sort_unstable_by_key(|letter| letter.position);
        Some((self.letters, self.count?))
    }
}
