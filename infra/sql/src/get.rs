//! Queries for the position, the checkpoint, or one app, chat or message. Each query returns one row. The row of an
//! app, chat or message holds the position, the ids of the parents, and the columns of the entity. The row of a message
//! also holds the id of its tombstone, before the message's columns. The columns of a missing parent, tombstone or
//! entity are NULL.

use chat_domain::{AppToken, ChatNumber, MessageNumber, Position};

use super::load::CHECKPOINT;
use super::query::{Query, number_param};
use super::row::{self, SqlRow, Value};
use super::tables::schema_version;
use crate::{app_columns, chat_row_columns, message_row_columns};
use chat_ports::projection_checkpoint::ProjectionCheckpoint;
use chat_ports::read_model::{AppRow, ChatRow, MessageRow, Missing, Snapshot};

/// The result of a query for one entity; `None` until the row has been read.
type EntitySnapshot<T> = Option<Snapshot<Result<T, Missing>>>;

/// Gets the position of the read model.
#[derive(Default)]
pub struct GetPosition {
    position: Option<Position>,
}

impl Query for GetPosition {
    type Output = Position;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str =
        concat!("SELECT k.position FROM checkpoint k WHERE k.layout = ", schema_version!());

    fn params(&self) -> Vec<Value<'_>> {
        Vec::new()
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        self.position = Some(row::read_position(row, 0)?);
        Ok(())
    }

    fn into_output(self) -> Option<Position> {
        self.position
    }
}

/// Gets the checkpoint of the read model.
#[derive(Default)]
pub struct GetCheckpoint {
    checkpoint: Option<ProjectionCheckpoint>,
}

impl Query for GetCheckpoint {
    type Output = ProjectionCheckpoint;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = CHECKPOINT;

    fn params(&self) -> Vec<Value<'_>> {
        Vec::new()
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        self.checkpoint = Some(row::read_checkpoint(row)?);
        Ok(())
    }

    fn into_output(self) -> Option<ProjectionCheckpoint> {
        self.checkpoint
    }
}

/// Gets an app.
pub struct GetApp {
    token: AppToken,
    result: EntitySnapshot<AppRow>,
}

impl GetApp {
    /// Creates the query for one app.
    pub fn new(token: AppToken) -> Self {
        Self { token, result: None }
    }
}

impl Query for GetApp {
    type Output = Snapshot<Result<AppRow, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, ",
        app_columns!("a."),
        " FROM checkpoint k LEFT JOIN apps a ON a.token = $1 WHERE k.layout = ",
        schema_version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![Value::Text(self.token.expose())]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? { Err(Missing::App) } else { Ok(row::read_app(row, 1)?) };
        self.result = Some(Snapshot { position: row::read_position(row, 0)?, value });
        Ok(())
    }

    fn into_output(self) -> Option<Self::Output> {
        self.result
    }
}

/// Gets a chat.
pub struct GetChat {
    token: AppToken,
    chat: ChatNumber,
    result: EntitySnapshot<ChatRow>,
}

impl GetChat {
    /// Creates the query for one chat.
    pub fn new(token: AppToken, chat: ChatNumber) -> Self {
        Self { token, chat, result: None }
    }
}

impl Query for GetChat {
    type Output = Snapshot<Result<ChatRow, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, ",
        chat_row_columns!("c."),
        " FROM checkpoint k
          LEFT JOIN apps a ON a.token = $1
          LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
          WHERE k.layout = ",
        schema_version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![Value::Text(self.token.expose()), number_param(self.chat.get())]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? {
            Err(Missing::App)
        } else if row::is_null(row, 2)? {
            Err(Missing::Chat)
        } else {
            Ok(row::read_chat(row, 2)?)
        };
        self.result = Some(Snapshot { position: row::read_position(row, 0)?, value });
        Ok(())
    }

    fn into_output(self) -> Option<Self::Output> {
        self.result
    }
}

/// Gets a message.
pub struct GetMessage {
    token: AppToken,
    chat: ChatNumber,
    message: MessageNumber,
    result: EntitySnapshot<MessageRow>,
}

impl GetMessage {
    /// Creates the query for one message.
    pub fn new(token: AppToken, chat: ChatNumber, message: MessageNumber) -> Self {
        Self { token, chat, message, result: None }
    }
}

impl Query for GetMessage {
    type Output = Snapshot<Result<MessageRow, Missing>>;

    const READS_FEW_ROWS: bool = true;

    const SQL: &'static str = concat!(
        "SELECT k.position, a.id, c.id, d.id, ",
        message_row_columns!("m."),
        " FROM checkpoint k
          LEFT JOIN apps a ON a.token = $1
          LEFT JOIN chats c ON c.app_id = a.id AND c.number = $2
          LEFT JOIN messages m ON m.chat_id = c.id AND m.number = $3
          LEFT JOIN deleted_messages d ON m.id IS NULL AND d.chat_id = c.id AND d.number = $3
          WHERE k.layout = ",
        schema_version!()
    );

    fn params(&self) -> Vec<Value<'_>> {
        vec![
            Value::Text(self.token.expose()),
            number_param(self.chat.get()),
            number_param(self.message.get()),
        ]
    }

    fn read<R: SqlRow>(&mut self, row: &R) -> Result<(), R::Error> {
        let value = if row::is_null(row, 1)? {
            Err(Missing::App)
        } else if row::is_null(row, 2)? {
            Err(Missing::Chat)
        } else if !row::is_null(row, 4)? {
            Ok(row::read_message(row, 4)?)
        } else if row::is_null(row, 3)? {
            Err(Missing::Message)
        } else {
            Err(Missing::Deleted)
        };
        self.result = Some(Snapshot { position: row::read_position(row, 0)?, value });
        Ok(())
    }

    fn into_output(self) -> Option<Self::Output> {
        self.result
    }
}
