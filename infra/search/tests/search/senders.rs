//! Tests of senders and data of messages.

use std::fs;
use std::path::Path;

use chat_domain::{AppToken, ChatNumber, MessageData, Sender, SenderId, SenderName, Version};
use chat_ports::search_index::{Document, IndexChanges, MessageKey, Scope, SearchError, SearchRequest, Sort};
use chat_search::{TantivyIndex, TantivyIndexWriter};

use crate::fixture::*;

fn sender_id(id: &str) -> SenderId {
    SenderId::parse(id.to_owned()).unwrap()
}

fn sender(id: &str, name: Option<&str>) -> Sender {
    Sender { id: sender_id(id), name: name.map(|name| SenderName::parse(name.to_owned()).unwrap()) }
}

fn data(json: &str) -> MessageData {
    json.parse().unwrap()
}

fn message_by(number: u64, text: &str, id: &str) -> Document {
    Document { sender: Some(sender(id, None)), ..message(number, text) }
}

/// The numbers of the messages that a search finds, of one sender or of all, the newest first.
fn numbers(index: &TantivyIndex, scope: Scope, sender: Option<&str>, query: &str) -> Vec<u64> {
    let request =
        SearchRequest { scope, sender: sender.map(sender_id), sort: Sort::Newest, ..request(query) };
    let page = index.search(&request).unwrap();
    assert_eq!(page.total.count(), page.hits.len() as u64);
    let by_relevance = index.search(&SearchRequest { sort: Sort::Relevance, ..request }).unwrap();
    assert_eq!(by_relevance.total.count(), page.total.count());
    page.hits.iter().map(|hit| hit.document.key.message.get()).collect()
}

#[test]
fn finds_the_messages_of_one_sender() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = TantivyIndexWriter::open(folder.path()).unwrap();
    let (second_chat, other_app) =
        (ChatNumber::try_from(2).unwrap(), AppToken::parse(&"m".repeat(36)).unwrap());
    let in_second_chat =
        |document: Document| Document { key: MessageKey { chat: second_chat, ..document.key }, ..document };
    let in_other_app =
        |document: Document| Document { key: MessageKey { app: other_app, ..document.key }, ..document };
    let add = vec![
        message(1, "a fox"),
        message_by(2, "a fox of one", "one"),
        message_by(3, "a fox of two", "two"),
        in_second_chat(message_by(4, "a fox elsewhere", "one")),
        in_other_app(message_by(5, "a fox of another app", "one")),
        message_by(6, "one says nothing", "two"),
    ];
    writer.commit(IndexChanges { add, ..empty_changes(0, 6) }).unwrap();
    let index = writer.reader();
    let first_chat = Scope::Chat(app(), ChatNumber::FIRST);
    for (scope, sender, expected) in [
        (first_chat, None, vec![3, 2, 1]),
        (first_chat, Some("one"), vec![2]),
        (first_chat, Some("two"), vec![3]),
        (Scope::App(app()), None, vec![4, 3, 2, 1]),
        (Scope::App(app()), Some("one"), vec![4, 2]),
        (Scope::App(other_app), Some("one"), vec![5]),
        (Scope::App(other_app), Some("two"), vec![]),
        // An id is not normalized, and matches as a whole.
        (Scope::App(app()), Some("One"), vec![]),
        (Scope::App(app()), Some("on"), vec![]),
    ] {
        assert_eq!(numbers(&index, scope, sender, "fox"), expected, "{scope:?} {sender:?}");
    }
    assert_eq!(
        numbers(&index, first_chat, None, "two"),
        [3],
        "a search of the text found a message by its sender's id"
    );
}

#[test]
fn hits_have_the_sender_and_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = TantivyIndexWriter::open(folder.path()).unwrap();
    let first = Document {
        sender: Some(sender("u-17", Some("Nadia \u{1f98a}"))),
        data: Some(data(r#"{"b":1.50,"a":[12345678901234567890,"\ud83e\udd8a"]}"#)),
        ..message(1, "fox one")
    };
    let second = Document { data: Some(data("{}")), ..message(2, "fox two") };
    let add = vec![first.clone(), second.clone(), message(3, "fox three")];
    writer.commit(IndexChanges { add, ..empty_changes(0, 3) }).unwrap();
    let index = writer.reader();
    let page = index.search(&SearchRequest { sort: Sort::Oldest, ..request("fox") }).unwrap();
    let found: Vec<_> = page.hits.into_iter().map(|hit| hit.document).collect();
    assert_eq!(found, [first.clone(), second, message(3, "fox three")]);
    assert_eq!(index.documents(&[first.key]).unwrap()[&first.key], first);
}

#[test]
fn the_digest_covers_senders_and_data() {
    let digest = |document: Document| {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _) = TantivyIndexWriter::open(folder.path()).unwrap();
        writer.commit(IndexChanges { add: vec![document], ..empty_changes(0, 1) }).unwrap();
        writer.reader().digest().unwrap().1
    };
    let variants = [
        message(1, "fox"),
        message_by(1, "fox", "a"),
        Document { sender: Some(sender("a", Some(""))), ..message(1, "fox") },
        Document { sender: Some(sender("a", Some("a"))), ..message(1, "fox") },
        Document { data: Some(data("{}")), ..message_by(1, "fox", "a") },
        Document { data: Some(data("{}")), ..message(1, "fox") },
    ];
    let digests: Vec<_> = variants.into_iter().map(digest).collect();
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "variant {index} has the digest of an earlier one");
    }
}

/// Copies an index that was written before messages had senders and data: messages 1 and 3, the deleted message 2,
/// and a dead letter at position 4.
fn copy_index_before_senders(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/search/index_before_senders");
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn an_index_from_before_senders_is_extended_in_place() {
    let folder = tempfile::tempdir().unwrap();
    copy_index_before_senders(folder.path());
    let early = TantivyIndex::open(folder.path());
    assert!(matches!(early, Err(SearchError::Unavailable(_))), "{early:?}");

    let (mut writer, _) = TantivyIndexWriter::open(folder.path()).unwrap();
    let index = writer.reader();
    let (position, digest) = index.digest().unwrap();
    assert_eq!(position.get(), 4);
    // The program that wrote the index printed this digest.
    assert_eq!(
        digest.to_string(),
        "3:741d853986b0bce120fe99a4f702691742726c16b01a3d57f9398a760f02a7d0",
        "the extension changed the content"
    );
    let chat = Scope::Chat(app(), ChatNumber::FIRST);
    assert_eq!(numbers(&index, chat, None, "fox"), [3, 1]);
    assert_eq!(numbers(&index, chat, Some("one"), "fox"), Vec::<u64>::new());
    assert_eq!(index.dead_letters(10).unwrap().1, 1);

    // Commits until the old segments are merged with new ones.
    for number in 5..40 {
        let add = vec![message_by(number, "a new fox", "one")];
        writer.commit(IndexChanges { add, ..empty_changes(number - 1, number) }).unwrap();
    }
    let edited = Document { version: Version::new(2), ..message_by(1, "an edited fox", "one") };
    writer.commit(IndexChanges { upsert: vec![edited], ..empty_changes(39, 40) }).unwrap();
    drop(writer);
    let (writer, _) = open_when_free(folder.path());
    let index = writer.reader();
    let expected: Vec<u64> = (5..40).rev().chain([1]).collect();
    assert_eq!(numbers(&index, chat, Some("one"), "fox"), expected);
    assert_eq!(numbers(&index, chat, None, "another"), [3]);
}
