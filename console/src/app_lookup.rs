//! Finds apps by position, token, the beginning of a token, or name.

use chat_domain::{AppToken, Position};
use chat_ports::read_model::AppRow;

use crate::app_address::{app_at, app_path, creation_position};
use crate::console::Console;
use crate::field_problem::FieldProblem;
use crate::form::FormError;
use crate::page::ConsoleError;
use crate::text::{self, Time};

/// The number of apps on a page.
pub(crate) const PAGE_APPS: usize = 50;

/// The number of apps in one read.
const BATCH_APPS: usize = 1_000;

/// The maximum number of apps that a lookup reads. Later ones are not found by name or by the beginning of a token.
const MAX_READ_APPS: usize = 100_000;

/// The minimum number of characters that a text needs to find apps whose token begins with it.
const MIN_TOKEN_CHARS: usize = 3;

/// An app in a list.
pub(crate) struct AppEntry {
    pub(crate) position: Position,
    pub(crate) name: String,
    /// The beginning of its token.
    pub(crate) token: String,
    pub(crate) path: String,
    pub(crate) chats: u64,
    pub(crate) created: Time,
    pub(crate) updated: Time,
}

impl AppEntry {
    /// Creates the entry of a row, and caches the app's position, which its address contains.
    pub(crate) fn from_row(console: &Console, row: &AppRow) -> Self {
        console.remember_position(row.token, row.created_position);
        Self {
            position: row.created_position,
            name: row.name.as_str().to_owned(),
            token: text::short_token(&row.token),
            path: app_path(row.created_position),
            chats: row.chat_count,
            created: Time(row.created_at),
            updated: Time(row.updated_at),
        }
    }
}

/// The apps that match a text.
pub(crate) enum FoundApps {
    /// None.
    None,
    /// One, by the position of its creation.
    One(Position),
    /// Several: the first of them, in the order of their creation.
    Several(Vec<AppEntry>),
}

/// Finds the apps that match a text: by position, token, name or the beginning of a token, or else by a part of the
/// name. Case does not matter in names.
pub(crate) async fn find_apps(console: &Console, text: &str) -> Result<FoundApps, ConsoleError> {
    if let Ok(position) = Position::parse(text) {
        match app_at(console, position).await {
            Ok(_) => return Ok(FoundApps::One(position)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if let Ok(token) = AppToken::parse(text) {
        let position =
            creation_position(console, token).await.map_err(|error| ConsoleError::unavailable(&error))?;
        if let Some(position) = position {
            return Ok(FoundApps::One(position));
        }
    }
    let (mut by_name_or_token, mut by_name_part) = (Vec::new(), Vec::new());
    let (lowercase, token_start) = (text.to_lowercase(), text.trim_end_matches('…'));
    let fits_token =
        |row: &AppRow| token_start.len() >= MIN_TOKEN_CHARS && row.token.expose().starts_with(token_start);
    let read_model = console.read_model();
    let _permit = console.acquire_scan_permit().await?;
    let (mut after, mut read) = (Position::START, 0);
    while read < MAX_READ_APPS && by_name_or_token.len() < PAGE_APPS {
        let rows = read_model.apps(after, BATCH_APPS).await;
        let rows = rows.map_err(|error| ConsoleError::unavailable(&error))?.value;
        let Some(last) = rows.last() else { break };
        after = last.created_position;
        read += rows.len();
        for row in rows {
            let name = row.name.as_str().to_lowercase();
            if name == lowercase || fits_token(&row) {
                by_name_or_token.push(row);
            } else if by_name_part.len() < PAGE_APPS && name.contains(&lowercase) {
                by_name_part.push(row);
            }
        }
    }
    let mut found = if by_name_or_token.is_empty() { by_name_part } else { by_name_or_token };
    found.truncate(PAGE_APPS);
    let entries: Vec<AppEntry> = found.iter().map(|row| AppEntry::from_row(console, row)).collect();
    Ok(match entries.as_slice() {
        [] => FoundApps::None,
        [entry] => FoundApps::One(entry.position),
        _ => FoundApps::Several(entries),
    })
}

/// Finds the one app that matches the text of the field `app`.
pub(crate) async fn find_one_app(console: &Console, text: &str) -> Result<Position, FormError> {
    let problem = |message| Err(FormError::Field(FieldProblem::new("app", message)));
    match find_apps(console, text).await? {
        FoundApps::One(position) => Ok(position),
        FoundApps::None => {
            problem("No app has this name, position or token, or a token that begins so.".to_owned())
        }
        FoundApps::Several(apps) => {
            let named: Vec<String> = apps
                .iter()
                .take(5)
                .map(|app| format!("{:?} (position {}, token {})", app.name, app.position, app.token))
                .collect();
            problem(format!("Several apps fit: {}. Give the position of one.", named.join(", ")))
        }
    }
}
