//! Queries for lists. Each statement starts with a row of its own for the position and what the list hangs on; the rows
//! of the list have no position.

use chat_domain::{AppToken, ChatNumber, Position};

use super::query::{Query, limit, number};
use super::row::{self, Row, Value};
use super::tables::version;
use super::window::Reach;
use crate::{apps, chat_row, message_row};
use chat_ports::read_model::{AppRow, ChatRow, MessagePage, MessageRow, Missing, Snapshot, Window};

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

    const FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM checkpoint k WHERE k.layout = ",
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

    const FEW_ROWS: bool = true;

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

/// One side of a page of messages.
macro_rules! side {
    ($bounded_and_ordered:literal) => {
        concat!(
            " UNION ALL SELECT NULL, NULL, NULL, side.* FROM (SELECT ",
            message_row!("m."),
            " FROM messages m
              WHERE m.chat_id =
              (SELECT c.id FROM apps a JOIN chats c ON c.app_id = a.id WHERE a.token = $1 AND c.number = $2) AND ",
            $bounded_and_ordered,
            ") AS side"
        )
    };
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
    /// `None` in the answer: the page goes beyond what is near, and [`ListMessages::whole`] has it.
    pub fn near(token: AppToken, chat: ChatNumber, window: Window, limit: usize) -> Self {
        Self::within(Reach::near(window, limit), token, chat, window, limit)
    }

    pub fn whole(token: AppToken, chat: ChatNumber, window: Window, limit: usize) -> Self {
        Self::within(Reach::whole(window, limit), token, chat, window, limit)
    }

    fn within(reach: Reach, token: AppToken, chat: ChatNumber, window: Window, limit: usize) -> Self {
        Self { token, chat, window, limit, reach, head: None, older: Vec::new(), newer: Vec::new() }
    }
}

impl Query for ListMessages {
    type Answer = Snapshot<Result<Option<MessagePage>, Missing>>;

    const FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, c.id, NULL, NULL, NULL, NULL, NULL
         FROM checkpoint k
         LEFT JOIN apps a ON a.token = $1
         LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
         WHERE k.layout = ",
        version!(),
        side!("m.number < $3 ORDER BY m.number DESC LIMIT $4"),
        side!("m.number >= $3 ORDER BY m.number LIMIT $5")
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
        self.head = Some(Snapshot { position: row::position(row, 0)?, value });
        Ok(())
    }

    fn answer(self) -> Option<Self::Answer> {
        let Self { mut older, mut newer, .. } = self;
        older.sort_unstable_by_key(|message| std::cmp::Reverse(message.number));
        newer.sort_unstable_by_key(|message| message.number);
        let Snapshot { position, value } = self.head?;
        Some(Snapshot {
            position,
            value: value.map(|()| self.reach.cut(older, newer, self.window, self.limit)),
        })
    }
}
