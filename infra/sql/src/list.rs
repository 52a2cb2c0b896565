//! Queries for lists. One row of each statement is a header with the position and the parents of the list; in the rows
//! of the list the position is NULL.

use chat_domain::{AppToken, ChatNumber, Position, SenderId};

use super::message_window::FetchRange;
use super::query::{Query, limit_param, number_param};
use super::row::{self, SqlRow, Value};
use super::tables::schema_version;
use crate::{app_columns, chat_row_columns, message_row_columns};
use chat_ports::read_model::{AppRow, ChatRow, MessagePage, MessageRow, MessageWindow, Missing, Snapshot};

/// Lists a page of apps.
pub struct ListApps {
    after: Position,
    limit: usize,
    position: Option<Position>,
    apps: Vec<AppRow>,
}

impl ListApps {
    /// Creates the query for the apps that were created after a position.
    pub fn new(after: Position, limit: usize) -> Self {
        Self { after, limit, position: None, apps: Vec::new() }
    }
}

impl Query for ListApps {
    type Output = Snapshot<Vec<AppRow>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM checkpoint k WHERE k.layout = ",
        schema_version!(),
        " UNION ALL
          SELECT NULL, page.* FROM (SELECT ",
        app_columns!("a."),
        " FROM apps a WHERE a.id > $1 ORDER BY a.id LIMIT $2) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![number_param(self.after.get()), limit_param(self.limit)]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.apps.push(row::read_app(row, 1)?);
        } else {
            self.position = Some(row::read_position(row, 0)?);
        }
        Ok(())
    }

    fn into_output(mut self) -> Option<Self::Output> {
        // The rows of a union have no defined order.
        self.apps.sort_unstable_by_key(|app| app.created_position);
        Some(Snapshot { position: self.position?, value: self.apps })
    }
}

/// Lists a page of the chats of an app.
pub struct ListChats {
    token: AppToken,
    after: Option<ChatNumber>,
    limit: usize,
    /// The header row: the position, and which parent is missing, if any.
    header: Option<Snapshot<Result<(), Missing>>>,
    chats: Vec<ChatRow>,
}

impl ListChats {
    /// Creates the query for the chats after a number.
    pub fn new(token: AppToken, after: Option<ChatNumber>, limit: usize) -> Self {
        Self { token, after, limit, header: None, chats: Vec::new() }
    }
}

impl Query for ListChats {
    type Output = Snapshot<Result<Vec<ChatRow>, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k LEFT JOIN apps a ON a.token = $1 WHERE k.layout = ",
        schema_version!(),
        " UNION ALL
          SELECT NULL, NULL, page.* FROM (SELECT ",
        chat_row_columns!("c."),
        " FROM chats c WHERE c.app_id = (SELECT a.id FROM apps a WHERE a.token = $1) AND c.number > $2
          ORDER BY c.number LIMIT $3) AS page"
    );

    fn params(&self) -> Vec<Value<'_>> {
        let after = self.after.map_or(0, ChatNumber::get);
        vec![Value::Text(self.token.expose()), number_param(after), limit_param(self.limit)]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            self.chats.push(row::read_chat(row, 2)?);
        } else {
            let value = if row::is_null(row, 1)? { Err(Missing::App) } else { Ok(()) };
            self.header = Some(Snapshot { position: row::read_position(row, 0)?, value });
        }
        Ok(())
    }

    fn into_output(mut self) -> Option<Self::Output> {
        self.chats.sort_unstable_by_key(|chat| chat.number);
        let Snapshot { position, value } = self.header?;
        Some(Snapshot { position, value: value.map(|()| self.chats) })
    }
}

/// The part of a statement that selects the header of a page of messages.
macro_rules! message_page_header {
    () => {
        concat!(
            "SELECT k.position, a.id, c.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
             FROM checkpoint k
             LEFT JOIN apps a ON a.token = $1
             LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
             WHERE k.layout = ",
            schema_version!()
        )
    };
}

/// The part of a statement that selects one side of a page of messages: the messages below a pivot, or those from the
/// pivot on. `$bounded_and_ordered` is the condition of that side, with `ORDER BY` and `LIMIT`.
macro_rules! message_side {
    ($bounded_and_ordered:literal) => {
        concat!(
            " UNION ALL SELECT NULL, NULL, NULL, side.* FROM (SELECT ",
            message_row_columns!("m."),
            " FROM messages m
              WHERE m.chat_id =
              (SELECT c.id FROM apps a JOIN chats c ON c.app_id = a.id WHERE a.token = $1 AND c.number = $2) AND ",
            $bounded_and_ordered,
            ") AS side"
        )
    };
}

/// Lists a page of the messages of a chat.
pub struct ListMessages {
    token: AppToken,
    chat: ChatNumber,
    window: MessageWindow,
    limit: usize,
    fetch_range: FetchRange,
    /// The header row: the position, and which parent is missing, if any.
    header: Option<Snapshot<Result<(), Missing>>>,
    older: Vec<MessageRow>,
    newer: Vec<MessageRow>,
}

impl ListMessages {
    /// Fetches as few messages as usually suffice. The page is `None` if they don't suffice; use
    /// [`ListMessages::exhaustive`] then.
    pub fn optimistic(token: AppToken, chat: ChatNumber, window: MessageWindow, limit: usize) -> Self {
        Self::with_fetch_range(FetchRange::optimistic(window, limit), token, chat, window, limit)
    }

    /// Fetches as many messages as always suffice.
    pub fn exhaustive(token: AppToken, chat: ChatNumber, window: MessageWindow, limit: usize) -> Self {
        Self::with_fetch_range(FetchRange::exhaustive(window, limit), token, chat, window, limit)
    }

    /// Restricts the list to the messages of one sender.
    pub fn of_sender(self, sender: SenderId) -> ListMessagesOfSender {
        ListMessagesOfSender { list: self, sender }
    }

    fn with_fetch_range(
        fetch_range: FetchRange,
        token: AppToken,
        chat: ChatNumber,
        window: MessageWindow,
        limit: usize,
    ) -> Self {
        Self { token, chat, window, limit, fetch_range, header: None, older: Vec::new(), newer: Vec::new() }
    }
}

impl Query for ListMessages {
    type Output = Snapshot<Result<Option<MessagePage>, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        message_page_header!(),
        message_side!("m.number < $3 ORDER BY m.number DESC LIMIT $4"),
        message_side!("m.number >= $3 ORDER BY m.number LIMIT $5")
    );

    fn params(&self) -> Vec<Value<'_>> {
        let FetchRange { pivot, older_limit, newer_limit } = self.fetch_range;
        let token = Value::Text(self.token.expose());
        let chat = number_param(self.chat.get());
        vec![token, chat, Value::Int(pivot), limit_param(older_limit), limit_param(newer_limit)]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        if row::is_null(row, 0)? {
            let message = row::read_message(row, 3)?;
            let is_older = row::to_sql_int(message.number.get()) < self.fetch_range.pivot;
            if is_older {
                self.older.push(message);
            } else {
                self.newer.push(message);
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
        self.header = Some(Snapshot { position: row::read_position(row, 0)?, value });
        Ok(())
    }

    fn into_output(self) -> Option<Self::Output> {
        let Self { mut older, mut newer, .. } = self;
        older.sort_unstable_by_key(|message| std::cmp::Reverse(message.number));
        newer.sort_unstable_by_key(|message| message.number);
        let Snapshot { position, value } = self.header?;
        Some(Snapshot {
            position,
            value: value.map(|()| self.fetch_range.cut_page(older, newer, self.window, self.limit)),
        })
    }
}

/// Lists a page of one sender's messages in a chat, through the index of senders.
pub struct ListMessagesOfSender {
    list: ListMessages,
    sender: SenderId,
}

impl Query for ListMessagesOfSender {
    type Output = Snapshot<Result<Option<MessagePage>, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        message_page_header!(),
        message_side!("m.sender_id = $3 AND m.number < $4 ORDER BY m.number DESC LIMIT $5"),
        message_side!("m.sender_id = $3 AND m.number >= $4 ORDER BY m.number LIMIT $6")
    );

    fn params(&self) -> Vec<Value<'_>> {
        let mut params = self.list.params();
        // The sender is `$3`, so the later parameters have higher numbers than in the statement of `ListMessages`.
        params.insert(2, Value::Text(self.sender.as_str()));
        params
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        self.list.read(row)
    }

    fn into_output(self) -> Option<Self::Output> {
        self.list.into_output()
    }
}
