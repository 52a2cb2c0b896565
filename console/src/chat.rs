//! A chat: its messages as a reader sees them, and where messages were deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use chat_domain::{Event, MessageNumber, Position, Revision, SenderId, StreamId};
use chat_operations::audit::Subject;
use chat_ports::dead_letter::DeadLetter;
use chat_ports::event_store::{
    EventStoreError, EventTypeFilter, ReadStart, RecordedEvent, StreamRead, creation_lookup,
};
use chat_ports::read_model::{ChatRow, MessagePage, MessageRow, MessageWindow, Missing};

use crate::agreement::Agreement;
use crate::console::Console;
use crate::event_view::shorten_lines;
use crate::field_problem::FieldProblem;
use crate::form::{Form, Query};
use crate::lost_subject::show_lost;
use crate::message_item::{DeletedEntry, MessageEntry, MessageItem, PAGE_MESSAGES, SHOWN_CHARS, sender_view};
use crate::origin::Origin;
use crate::page::{ConsoleError, Page, PageResult, Section, render_form};
use crate::past_state;
use crate::session::Session;
use crate::shown_value::to_parsable;
use crate::stream_dead_letters::{StreamDeadLetter, dead_letters_of};
use crate::subject_address::SubjectAddress;
use crate::text::{self, Time};

/// The longest run of missing messages whose deletions are looked up and listed one by one.
const MAX_LISTED_RUN: u64 = 20;

/// The approximate maximum of deletions that one page reads.
const MAX_READ_DELETIONS: usize = 2_000;

/// The number of creation events that are read at once in search of one that can be decoded.
const READ_CREATIONS: usize = 256;

/// The number of deletions that are read at once.
const BATCH_DELETIONS: usize = 256;

/// A chat's row is compared with the log only if the chat has at most this many edits and deletions.
const MAX_COMPARED_CHANGES: u64 = 20_000;

#[derive(Template)]
#[template(path = "chat.html")]
struct ChatPage {
    page: Page,
    /// The query parameters.
    form: Form,
    address: SubjectAddress,
    /// `None` if the read model does not have the chat.
    row: Option<ChatRow>,
    created: Time,
    created_position: Position,
    /// The number of the message created last.
    last_message: u64,
    /// The number of messages whose creation was discarded.
    discarded: u64,
    agreement: Agreement,
    sender: Option<String>,
    items: Vec<MessageItem>,
    older: Option<String>,
    newer: Option<String>,
    is_newest: bool,
}

/// `GET /console/apps/{app}/chats/{chat}`: a page of messages, oldest first. It has the newest messages, or those
/// `before`, `after` or `around` a number, and only those of `sender` if it is given. With `at`, shows the chat's state
/// at a point in the log.
pub(crate) async fn show(
    session: Session,
    State(console): State<Console>,
    Path((app, chat)): Path<(String, String)>,
    Query(form): Query,
) -> PageResult {
    let address = SubjectAddress::resolve(&console, &[&app, &chat]).await?;
    let Subject::Chat(token, number) = address.subject else {
        return Err(ConsoleError::not_found("No chat has this address."));
    };
    let problem = match past_state::given_point(&form, "at") {
        Ok(Some(point)) => return past_state::show_state(&session, &console, address, point).await,
        Ok(None) => None,
        Err(problem) => Some(problem),
    };
    let around = given_number(&form, "around").map_err(|message| FieldProblem::new("around", message));
    let sender = form.given("sender").map(SenderId::parse).transpose();
    let sender = sender.map_err(|error| FieldProblem::new("sender", text::sentence(&error.to_string())));
    // Fields that can't be used are ignored. The page shows the first of their problems.
    let problem = around.as_ref().err().or(sender.as_ref().err()).cloned().or(problem);
    let (around, sender) = (around.unwrap_or_default(), sender.unwrap_or_default());
    let window = parse_window(&form, around)?;
    let unavailable = |error: EventStoreError| ConsoleError::unavailable(&error);
    let created = creation_lookup::find_chat_created(console.log(), token, number).await;
    let created = created.map_err(unavailable)?;
    let Some(created) = created else {
        let missing = ConsoleError::not_found(format!("The app has no chat {number}."));
        return show_lost(&session, &console, address, missing).await;
    };
    let read_model = console.read_model();
    let row = read_model.chat(token, number).await;
    let row = row.map_err(|error| ConsoleError::unavailable(&error))?.value.ok();
    let messages = match sender.clone() {
        None => read_model.messages(token, number, window, PAGE_MESSAGES).await,
        Some(sender) => read_model.messages_of_sender(token, number, sender, window, PAGE_MESSAGES).await,
    };
    let messages = messages.map_err(|error| ConsoleError::unavailable(&error))?;
    // If the read model does not have the chat, it has no messages of the chat either.
    let messages = messages.value.unwrap_or_else(|_: Missing| MessagePage::default());
    let last_message = find_last_message(&console, address.subject).await.map_err(unavailable)?;
    let numbers: Vec<u64> = messages.messages.iter().map(|message| message.number.get()).collect();
    let sender = sender.map(SenderId::into_string);
    let link = |name: &str, number: u64| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair(name, &number.to_string());
        if let Some(sender) = &sender {
            query.append_pair("sender", sender);
        }
        format!("{}?{}", address.path(), query.finish())
    };
    let (first, last) = shown_range(&messages, window, last_message);
    let older = messages.has_older.then(|| link("before", numbers.first().copied().unwrap_or(first)));
    let newer = messages.has_newer.then(|| link("after", numbers.last().copied().unwrap_or(last)));
    // With a filter by sender, the messages of other senders would look like gaps.
    let range = if sender.is_some() { None } else { Some((first, last)) };
    let permit = console.acquire_scan_permit().await?;
    let mut items = list_items(&console, &address, messages.messages, range).await.map_err(unavailable)?;
    let discarded = discarded_messages(&console, address.subject).await?;
    drop(permit);
    mark_discarded(&mut items, &address, &discarded);
    // Each event of the stream that is not a creation is an edit or a deletion.
    let changes = row.as_ref().map_or(0, |row| row.version.get().saturating_sub(last_message));
    let agreement = if changes > MAX_COMPARED_CHANGES {
        Agreement::NotCompared { reason: "the chat has many edits and deletions".to_owned() }
    } else {
        Agreement::check(&console, address.subject).await
    };
    let template = ChatPage {
        page: Page::new(Section::Apps, address.title(), &session).with_problem(problem.clone()),
        form,
        row,
        created: Time(created.recorded_at),
        created_position: created.position,
        last_message,
        discarded: discarded.len() as u64,
        agreement,
        sender,
        items,
        older,
        newer,
        is_newest: window == MessageWindow::Newest,
        address,
    };
    render_form(&template, problem.as_ref())
}

/// Reads a field that contains the number of a message; `None` if the field is not set.
fn given_number(form: &Form, name: &str) -> Result<Option<MessageNumber>, &'static str> {
    let number = form.given(name).map(|number| MessageNumber::parse(&to_parsable(&number))).transpose();
    number.map_err(|_| "This must be the number of a message.")
}

fn parse_window(form: &Form, around: Option<MessageNumber>) -> Result<MessageWindow, ConsoleError> {
    let number = |name: &str| {
        given_number(form, name)
            .map_err(|_| ConsoleError::bad_request(format!("`{name}` must be the number of a message.")))
    };
    Ok(match (number("before")?, number("after")?, around) {
        (None, None, None) => MessageWindow::Newest,
        (Some(before), None, None) => MessageWindow::Before(before),
        (None, Some(after), None) => MessageWindow::After(after),
        (None, None, Some(around)) => MessageWindow::Around(around),
        _ => {
            return Err(ConsoleError::bad_request(
                "Only one of `before`, `after` and `around` selects a page.",
            ));
        }
    })
}

/// The first and the last number that a page covers. Not every number has a message.
fn shown_range(page: &MessagePage, window: MessageWindow, last_message: u64) -> (u64, u64) {
    let numbers = || page.messages.iter().map(|message| message.number.get());
    let first = match window {
        _ if !page.has_older => 1,
        MessageWindow::After(after) => after.get().saturating_add(1),
        _ => numbers().next().unwrap_or(1),
    };
    let last = match window {
        MessageWindow::Before(before) => before.get() - 1,
        _ if !page.has_newer => last_message,
        _ => numbers().next_back().unwrap_or(last_message),
    };
    (first, last.min(last_message))
}

/// Returns the number of the message created last; 0 if there is none. Creation events that can't be decoded count too.
async fn find_last_message(console: &Console, chat: Subject) -> Result<u64, EventStoreError> {
    let stream = chat.stream();
    let (mut start, mut limit, mut undecodable) = (ReadStart::End, 1, 0);
    loop {
        let read = StreamRead::all(Arc::clone(&stream), start, limit)
            .filtered(EventTypeFilter::Only("MessageCreated"));
        let events = console.log().read_stream(read).await?;
        for event in &events {
            // Number n belongs to the nth creation event of the stream.
            match event.decode() {
                Ok(Event::MessageCreated(created)) => return Ok(created.message_number.get() + undecodable),
                _ => undecodable += 1,
            }
        }
        let before = events.last().and_then(|event| event.revision.get().checked_sub(1));
        let Some(before) = before else { return Ok(undecodable) };
        (start, limit) = (ReadStart::Backwards(Revision::new(before)), READ_CREATIONS);
    }
}

/// Returns the items of a page: its messages, and the gaps between them. `range` is the first and the last number that
/// the page covers. Without a range, the gaps are left out.
async fn list_items(
    console: &Console,
    address: &SubjectAddress,
    messages: Vec<MessageRow>,
    range: Option<(u64, u64)>,
) -> Result<Vec<MessageItem>, EventStoreError> {
    let gaps = range.map_or_else(Vec::new, |range| find_gaps(&messages, range));
    let listed = gaps.iter().filter(|(first, last)| last - first < MAX_LISTED_RUN);
    let wanted: Vec<u64> = listed.flat_map(|(first, last)| *first..=*last).collect();
    let deletions = find_deletions(console, address.subject, &wanted).await?;
    let mut items: BTreeMap<u64, MessageItem> = BTreeMap::new();
    for message in messages {
        items.insert(message.number.get(), MessageItem::Message(message_entry(address, message)));
    }
    for (first, last) in gaps {
        if last - first >= MAX_LISTED_RUN {
            items.insert(first, MessageItem::Missing { first, last });
            continue;
        }
        for number in first..=last {
            let item = match deletions.get(&number) {
                Some(event) => MessageItem::Deleted(DeletedEntry {
                    number,
                    path: format!("{}/messages/{number}", address.path()),
                    position: event.position,
                    deleted: Time(event.recorded_at),
                    origin: Origin::from_event(event),
                }),
                None => MessageItem::Missing { first: number, last: number },
            };
            items.insert(number, item);
        }
    }
    Ok(items.into_values().collect())
}

/// Returns the discarded creations of messages in a chat, by message number.
async fn discarded_messages(
    console: &Console,
    chat: Subject,
) -> Result<BTreeMap<u64, StreamDeadLetter>, ConsoleError> {
    let is_discarded_creation = |dead_letter: &DeadLetter| {
        dead_letter.discarded.is_some() && dead_letter.event_type == "MessageCreated"
    };
    let discarded = dead_letters_of(console, &chat.stream(), "message_number", is_discarded_creation).await?;
    Ok(discarded.into_iter().filter_map(|dead_letter| Some((dead_letter.number?, dead_letter))).collect())
}

/// Of the missing messages that are listed one by one, marks those whose creation was discarded.
fn mark_discarded(
    items: &mut [MessageItem],
    chat: &SubjectAddress,
    discarded: &BTreeMap<u64, StreamDeadLetter>,
) {
    for item in items {
        let MessageItem::Missing { first, last } = *item else { continue };
        let Some(dead_letter) = discarded.get(&first).filter(|_| first == last) else { continue };
        if let Some(discard) = dead_letter.discard.clone() {
            let path = format!("{}/messages/{first}", chat.path());
            *item = MessageItem::Discarded { number: first, path, event: dead_letter.position, discard };
        }
    }
}

fn message_entry(chat: &SubjectAddress, message: MessageRow) -> MessageEntry {
    let MessageRow { number, body, sender, data, version, created_at, updated_at: _ } = message;
    let (text, is_shortened) = shorten_lines(body, SHOWN_CHARS);
    MessageEntry {
        number: number.get(),
        path: format!("{}/messages/{number}", chat.path()),
        sender: sender.map(|sender| sender_view(&chat.path(), &sender)),
        created: Time(created_at),
        versions: version.get(),
        text,
        is_shortened,
        data: data.map(|data| data.as_str().to_owned()),
    }
}

/// The runs of numbers in a range that have no message.
fn find_gaps(messages: &[MessageRow], (first, last): (u64, u64)) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut expected = first;
    for number in messages.iter().map(|message| message.number.get()) {
        if number > expected {
            gaps.push((expected, number - 1));
        }
        expected = number + 1;
    }
    if expected <= last {
        gaps.push((expected, last));
    }
    gaps
}

/// Finds the deletions of the messages with the numbers `wanted`, which must be sorted.
async fn find_deletions(
    console: &Console,
    chat: Subject,
    wanted: &[u64],
) -> Result<BTreeMap<u64, RecordedEvent>, EventStoreError> {
    let mut found = BTreeMap::new();
    let (Subject::Chat(app, number), Some(first)) = (chat, wanted.first()) else { return Ok(found) };
    let Ok(first) = MessageNumber::try_from(*first) else { return Ok(found) };
    let created = creation_lookup::find_message_created(console.log(), app, number, first).await?;
    // The creation of message n may be an event that can't be decoded. Its revision is not lower than n - 1.
    let mut from = created.map_or_else(|| Revision::new(first.get() - 1), |event| event.revision);
    let stream: Arc<str> = StreamId::Chat(app, number).to_string().into();
    let mut read = 0;
    while read < MAX_READ_DELETIONS && found.len() < wanted.len() {
        let deletions = StreamRead::all(Arc::clone(&stream), ReadStart::Forwards(from), BATCH_DELETIONS)
            .filtered(EventTypeFilter::Only("MessageDeleted"));
        let events = console.log().read_stream(deletions).await?;
        let Some(last) = events.last() else { break };
        from = last.revision.next();
        read += events.len();
        for event in events {
            if let Ok(Event::MessageDeleted(deleted)) = event.decode()
                && wanted.binary_search(&deleted.message_number.get()).is_ok()
            {
                found.insert(deleted.message_number.get(), event);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use chat_domain::{Timestamp, Version};

    use super::*;

    fn row(number: u64) -> MessageRow {
        MessageRow {
            number: MessageNumber::try_from(number).unwrap(),
            body: String::new(),
            sender: None,
            data: None,
            version: Version::new(1),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    fn number(number: u64) -> MessageNumber {
        MessageNumber::try_from(number).unwrap()
    }

    #[test]
    fn gaps_are_the_numbers_without_a_message() {
        let rows = [row(3), row(4), row(7)];
        assert_eq!(find_gaps(&rows, (1, 9)), [(1, 2), (5, 6), (8, 9)]);
        assert_eq!(find_gaps(&rows[..2], (3, 4)), []);
        assert_eq!(find_gaps(&[], (1, 0)), []);
    }

    #[test]
    fn neighbouring_pages_leave_no_number_out() {
        let page = |numbers: &[u64], has_older, has_newer| MessagePage {
            messages: numbers.iter().map(|number| row(*number)).collect(),
            has_older,
            has_newer,
        };
        let newest = page(&[8, 9], true, false);
        assert_eq!(shown_range(&newest, MessageWindow::Newest, 10), (8, 10));
        let before = page(&[3, 4], true, true);
        assert_eq!(shown_range(&before, MessageWindow::Before(number(8)), 10), (3, 7));
        let first = page(&[2], false, true);
        assert_eq!(shown_range(&first, MessageWindow::Before(number(3)), 10), (1, 2));
        let after = page(&[8, 9], true, false);
        assert_eq!(shown_range(&after, MessageWindow::After(number(4)), 10), (5, 10));
        assert_eq!(shown_range(&page(&[], false, false), MessageWindow::Newest, 3), (1, 3));
    }
}
