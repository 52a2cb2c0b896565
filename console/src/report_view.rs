//! Reports of actions as pages show them: without tokens, with links.

use chat_domain::projection::ProjectionName;
use chat_domain::{AppToken, Position};
use chat_operations::counted::counted;
use serde_json::Value;

use crate::app_address::{app_path, creation_position};
use crate::console::Console;
use crate::event_view::StreamView;
use crate::operator_action_view::projection_title;
use crate::page::ConsoleError;
use crate::text;

/// The most characters of a field's value that a comparison shows.
const MAX_VALUE_CHARS: usize = 400;

/// A value in a report.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Number(u64),
    Code(String),
    Event(Position),
    DeadLetter(Position),
    Link {
        text: String,
        path: String,
    },
    Stream(StreamView),
    /// The CSS class of a badge, and its text.
    Badge(&'static str, String),
    /// An old value, marked as removed.
    Removed(String),
    /// A new value, marked as added.
    Added(String),
}

/// A table of a report.
#[derive(Debug)]
pub(crate) struct ReportTable {
    pub(crate) title: String,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// A report of a dry run or of a job.
#[derive(Debug, Default)]
pub(crate) struct ReportView {
    /// The headline, which says the result in one sentence, and the detail beside it.
    pub(crate) headline: Option<(String, String)>,
    pub(crate) facts: Vec<(&'static str, Cell)>,
    pub(crate) tables: Vec<ReportTable>,
    /// The text of a signed checkpoint.
    pub(crate) checkpoint: Option<String>,
}

impl ReportView {
    /// The view of a report of this kind of action.
    pub(crate) async fn load(console: &Console, kind: &str, report: &Value) -> Result<Self, ConsoleError> {
        match kind {
            "projections.rebuild" => rebuild(console, report).await,
            "projections.promote" | "projections.rollback" => Ok(switch_over(report)),
            "projections.drop" => Ok(drop_generations(report)),
            "dead_letters.retry" | "dead_letters.discard" => resolution(console, report).await,
            "dead_letters.acknowledge" => acknowledgement(console, report).await,
            "audit.checkpoint" => Ok(checkpoint(report)),
            "audit.verify" => Ok(verification(report)),
            _ => Ok(Self::default()),
        }
    }

    fn with_headline(mut self, headline: impl Into<String>, detail: impl Into<String>) -> Self {
        self.headline = Some((headline.into(), detail.into()));
        self
    }
}

/// The elements of a report's list.
fn items<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().map_or(&[], Vec::as_slice)
}

fn number_cell(report: &Value, name: &str) -> Cell {
    report[name].as_u64().map_or_else(|| Cell::Text("unknown".to_owned()), Cell::Number)
}

/// A report's text, with the tokens in it shortened.
fn string(report: &Value, name: &str) -> String {
    text::shorten_tokens(report[name].as_str().unwrap_or_default())
}

/// A link to the event at the position that a report has in this field.
fn event_cell(report: &Value, name: &str) -> Cell {
    match report[name].as_u64() {
        Some(position) => Cell::Event(Position::new(position)),
        None => Cell::Text(String::new()),
    }
}

/// A size in bytes, with a unit.
fn size_cell(report: &Value, name: &str) -> Cell {
    Cell::Text(report[name].as_u64().map_or_else(|| "unknown".to_owned(), text::bytes))
}

fn projection_name(report: &Value) -> String {
    let name = report["projection"].as_str().unwrap_or_default();
    let known = ProjectionName::ALL.into_iter().find(|known| known.as_str() == name);
    known.map_or_else(|| name.to_owned(), |known| projection_title(known).to_owned())
}

/// The name of a generation: `Read model 3`.
fn generation_name(report: &Value) -> String {
    format!("{} {}", projection_name(report), report["generation"])
}

/// The names of a report's generations, joined by `and`.
fn generation_names(report: &Value, name: &str) -> String {
    items(report, name).iter().map(generation_name).collect::<Vec<_>>().join(" and ")
}

async fn stream_cell(console: &Console, report: &Value) -> Result<Cell, ConsoleError> {
    let stream = report["stream"].as_str().unwrap_or_default();
    Ok(Cell::Stream(StreamView::load(console, stream).await?))
}

async fn rebuild(console: &Console, report: &Value) -> Result<ReportView, ConsoleError> {
    // Only the plan of a dry run has the head of the log.
    if report["head"].is_u64() {
        return Ok(rebuild_plan(report));
    }
    let mut view = ReportView::default();
    for comparison in items(report, "comparisons") {
        view.tables.push(comparison_table(console, comparison).await?);
    }
    let rows = items(report, "comparisons").iter().map(|comparison| {
        let name = projection_name(comparison);
        let result = match (comparison["unreadable"].as_str(), comparison["differing"].as_u64()) {
            (Some(reason), _) => {
                Cell::Badge("warn", format!("not compared: {}", text::shorten_tokens(reason)))
            }
            (None, Some(0)) => Cell::Badge("ok", "the same".to_owned()),
            (None, Some(1)) => Cell::Badge("warn", "1 differs".to_owned()),
            (None, differing) => Cell::Badge("warn", format!("{} differ", differing.unwrap_or_default())),
        };
        let digest = |name: &str| Cell::Code(string(comparison, name).chars().take(12).collect());
        vec![
            Cell::Text(format!("{name} {} and {}", comparison["live"], comparison["other"])),
            result,
            event_cell(comparison, "position"),
            digest("live_digest"),
            digest("other_digest"),
        ]
    });
    let columns = &["Compared", "Result", "At position", "Digest, live", "Digest, new"];
    let comparisons = ReportTable { title: "Comparison".to_owned(), columns, rows: rows.collect() };
    if !comparisons.rows.is_empty() {
        view.tables.insert(0, comparisons);
    }
    view.tables.retain(|table| !table.rows.is_empty());
    let promoted = &report["promoted"];
    if let Some(position) = promoted["position"].as_u64() {
        view.facts.push(("Promoted at", Cell::Event(Position::new(position))));
    }
    let (headline, detail) = rebuild_headline(report);
    Ok(view.with_headline(headline, detail))
}

/// The headline and the detail of an executed rebuild.
fn rebuild_headline(report: &Value) -> (String, String) {
    let built = generation_names(report, "generations");
    let comparisons = items(report, "comparisons");
    let differing: u64 = comparisons.iter().filter_map(|comparison| comparison["differing"].as_u64()).sum();
    let unreadable = comparisons.iter().filter(|comparison| comparison["unreadable"].is_string());
    let unreadable: Vec<String> = unreadable
        .map(|comparison| format!("{} {}", projection_name(comparison), comparison["live"]))
        .collect();
    let (headline, detail) = if report["promoted"]["position"].is_u64() {
        let detail = match differing {
            0 if unreadable.len() == comparisons.len() => String::new(),
            0 => "No row differs.".to_owned(),
            rows => format!("{} differed.", counted(rows, "row")),
        };
        (format!("{built} now live"), detail)
    } else if differing > 0 {
        let differ =
            if differing == 1 { "1 row differs".to_owned() } else { format!("{differing} rows differ") };
        let detail = "If the rebuild was to correct wrong rows, differences are expected. Look at them, then promote the new generation, or drop it.";
        (format!("{differ}, so nothing was promoted"), detail.to_owned())
    } else {
        (format!("{built} built"), "They were not promoted.".to_owned())
    };
    if unreadable.is_empty() {
        return (headline, detail);
    }
    let not_compared = format!("Not compared, because unreadable: {}.", unreadable.join(" and "));
    (headline, format!("{detail} {not_compared}").trim_start().to_owned())
}

fn rebuild_plan(plan: &Value) -> ReportView {
    let rows = items(plan, "generations").iter().map(|planned| {
        let resumes = match planned["resumes_at"].as_u64() {
            Some(position) => format!("position {}", text::number(position)),
            None => "the start".to_owned(),
        };
        vec![
            Cell::Text(generation_name(planned)),
            Cell::Text(resumes),
            number_cell(planned, "events"),
            size_cell(planned, "live_bytes"),
            Cell::Code(string(planned, "place")),
        ]
    });
    let columns = &["New generation", "Begins at", "Events", "Disk, estimated", "Location"];
    let table = ReportTable { title: "What the rebuild would do".to_owned(), columns, rows: rows.collect() };
    let until = text::number(plan["until"].as_u64().unwrap_or_default());
    let time =
        plan["estimated_seconds"].as_u64().map(|seconds| format!(" in about {}", counted(seconds, "second")));
    let headline = format!("The log would be folded up to position {until}{}", time.unwrap_or_default());
    let detail = "The new generations are compared with the live ones, then promoted. If rows differ, they are promoted only if “Promote even if rows differ” is selected. Clients notice nothing.";
    ReportView { tables: vec![table], ..ReportView::default() }.with_headline(headline, detail)
}

/// The rows of a comparison that differ, field by field.
async fn comparison_table(console: &Console, comparison: &Value) -> Result<ReportTable, ConsoleError> {
    let mut rows = Vec::new();
    for difference in items(comparison, "shown") {
        let subject = difference_subject(console, difference).await?;
        // `shown` has two meanings: that of a comparison lists the first differences, and that of a difference has the
        // fields of the live generation. `expected` has the fields that follow from the log.
        let (live, logged) = (difference["shown"].as_object(), difference["expected"].as_object());
        let mut names: Vec<&String> =
            live.into_iter().chain(logged).flat_map(|fields| fields.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let first_event = event_cell(&difference["first_event"], "position");
        for name in names {
            let (live, logged) =
                (&difference["shown"][name.as_str()], &difference["expected"][name.as_str()]);
            if live != logged {
                let row = vec![
                    subject.clone(),
                    Cell::Text(name.clone()),
                    Cell::Removed(field_value(live)),
                    Cell::Added(field_value(logged)),
                    first_event.clone(),
                ];
                rows.push(row);
            }
        }
    }
    let title = format!("{}: first differences", projection_name(comparison));
    let columns = &["Row", "Field", "Live", "From the log", "First event that explains it"];
    Ok(ReportTable { title, columns, rows })
}

async fn difference_subject(console: &Console, difference: &Value) -> Result<Cell, ConsoleError> {
    let app = difference["app_token"].as_str().and_then(|token| AppToken::parse(token).ok());
    let (chat, message) = (difference["chat_number"].as_u64(), difference["message_number"].as_u64());
    let name = match (chat, message) {
        (Some(chat), Some(message)) => format!("message {message} of chat {chat}"),
        (Some(chat), None) => format!("chat {chat}"),
        (None, _) => difference["kind"].as_str().unwrap_or("row").replace('_', " "),
    };
    let Some(app) = app else { return Ok(Cell::Text(name)) };
    let position =
        creation_position(console, app).await.map_err(|error| ConsoleError::unavailable(&error))?;
    let Some(position) = position else { return Ok(Cell::Text(name)) };
    let mut path = app_path(position);
    if let Some(chat) = chat {
        path = format!("{path}/chats/{chat}");
        if let Some(message) = message {
            path = format!("{path}/messages/{message}");
        }
    }
    Ok(Cell::Link { text: name, path })
}

fn field_value(value: &Value) -> String {
    let value = match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    crate::event_view::shorten(&text::shorten_tokens(&value), MAX_VALUE_CHARS)
}

fn switch_over(report: &Value) -> ReportView {
    let to = generation_names(report, "to");
    // Only the plan of a dry run has the generations that are live now.
    if !report["from"].is_array() {
        let view = ReportView {
            facts: vec![("Recorded at", event_cell(report, "position"))],
            ..ReportView::default()
        };
        return view.with_headline(format!("{to} now live"), "Queries are answered from it.");
    }
    let positions = items(report, "positions");
    let rows =
        items(report, "from").iter().zip(items(report, "to")).enumerate().map(|(index, (from, to))| {
            let position = positions.get(index).and_then(Value::as_u64);
            let position = position.map_or_else(|| Cell::Text("unknown".to_owned()), Cell::Number);
            vec![
                Cell::Text(generation_name(from)),
                Cell::Text(generation_name(to)),
                position,
                number_cell(report, "head"),
            ]
        });
    let columns = &["Live now", "Live afterwards", "Its position", "Head of the log"];
    let table = ReportTable { title: "What would change".to_owned(), columns, rows: rows.collect() };
    let detail = "A generation that is behind is brought up to date first. Queries move in one step.";
    ReportView { tables: vec![table], ..ReportView::default() }
        .with_headline(format!("Queries would move to {to}"), detail)
}

fn drop_generations(report: &Value) -> ReportView {
    let rows = items(report, "generations").iter().map(|dropped| {
        let state = string(dropped, "standing").replace('_', " ");
        let state_cell = if dropped["in_use"] == true {
            Cell::Badge("error", "a projector works on it".to_owned())
        } else {
            Cell::Text(state)
        };
        vec![
            Cell::Text(generation_name(dropped)),
            state_cell,
            size_cell(dropped, "bytes"),
            Cell::Code(string(dropped, "place")),
        ]
    });
    let columns = &["Generation", "State", "Size", "Location"];
    let table = ReportTable { title: "Removed generations".to_owned(), columns, rows: rows.collect() };
    let names = generation_names(report, "generations");
    // The report of a dry run has no position.
    let is_done = report["position"].is_u64();
    let facts = if is_done { vec![("Recorded at", event_cell(report, "position"))] } else { Vec::new() };
    let headline = match (names.is_empty(), is_done) {
        (true, _) => "No generation is left over".to_owned(),
        (false, true) => format!("{names} removed"),
        (false, false) => format!("{names} would be removed"),
    };
    let tables = if names.is_empty() { Vec::new() } else { vec![table] };
    ReportView { facts, tables, ..ReportView::default() }.with_headline(headline, "")
}

/// The view of a retry or a discard of dead letters.
async fn resolution(console: &Console, report: &Value) -> Result<ReportView, ConsoleError> {
    let is_executed = report["executed"] == true;
    let (mut rows, mut unblocked, mut blocked) = (Vec::new(), 0, 0);
    for step in items(report, "steps") {
        let (applied, blocking_event) = if is_executed {
            (number_cell(&step["outcome"], "applied"), &step["outcome"]["stopped"])
        } else {
            (number_cell(step, "would_apply"), &step["would_stop"])
        };
        let mut result = if is_executed && step["outcome"].is_null() {
            vec![Cell::Badge("info", "recorded, not applied yet".to_owned()), Cell::Text(String::new())]
        } else if let Some(position) = blocking_event["position"].as_u64() {
            blocked += 1;
            vec![
                Cell::Badge("error", format!("blocked again: {}", string(blocking_event, "reason"))),
                Cell::DeadLetter(Position::new(position)),
            ]
        } else if step["complete"] == false {
            vec![
                Cell::Badge("info", "only the first were tried, and none failed".to_owned()),
                Cell::Text(String::new()),
            ]
        } else {
            unblocked += 1;
            vec![Cell::Badge("ok", "no longer blocked".to_owned()), Cell::Text(String::new())]
        };
        let mut row = vec![Cell::Text(projection_name(step)), stream_cell(console, step).await?];
        row.push(match (step["discarded"].as_u64(), step["would_discard"] == true) {
            (Some(position), _) => Cell::DeadLetter(Position::new(position)),
            (None, true) => Cell::DeadLetter(Position::new(step["position"].as_u64().unwrap_or_default())),
            (None, false) => Cell::Text("none".to_owned()),
        });
        row.push(applied);
        row.append(&mut result);
        rows.push(row);
    }
    let columns = &["Projection", "App and chat", "Discarded event", "Applied", "Outcome", "Blocked at"];
    let title = if is_executed { "Result" } else { "What it would do" };
    let table = ReportTable { title: title.to_owned(), columns, rows };
    let headline = format!(
        "{} no longer blocked, {} blocked again",
        counted(unblocked, "stream"),
        counted(blocked, "stream")
    );
    let detail = if is_executed {
        ""
    } else {
        "Nothing was changed: the events were applied in a transaction that was rolled back."
    };
    Ok(ReportView { tables: vec![table], ..ReportView::default() }.with_headline(headline, detail))
}

async fn acknowledgement(console: &Console, report: &Value) -> Result<ReportView, ConsoleError> {
    let mut rows = Vec::new();
    for dead_letter in items(report, "letters") {
        let position = Cell::DeadLetter(Position::new(dead_letter["position"].as_u64().unwrap_or_default()));
        let reason = Cell::Text(string(&dead_letter["discarded"], "reason"));
        let stream = stream_cell(console, dead_letter).await?;
        rows.push(vec![position, Cell::Text(projection_name(dead_letter)), stream, reason]);
    }
    let discards = counted(rows.len() as u64, "discard");
    let headline = if report["executed"] == true {
        format!("{discards} acknowledged")
    } else {
        format!("{discards} would be acknowledged")
    };
    let columns = &["Position", "Projection", "App and chat", "Reason of the discard"];
    let table = ReportTable { title: "Discarded events".to_owned(), columns, rows };
    Ok(ReportView { tables: vec![table], ..ReportView::default() }
        .with_headline(headline, "Health reports leave out acknowledged discards."))
}

fn checkpoint_facts(checkpoint: &Value) -> Vec<(&'static str, Cell)> {
    vec![
        ("Up to position", event_cell(checkpoint, "position")),
        ("Events", number_cell(checkpoint, "events")),
        ("Root", Cell::Code(string(checkpoint, "root"))),
        ("Signed", Cell::Text(string(checkpoint, "time"))),
    ]
}

fn checkpoint(report: &Value) -> ReportView {
    // The report of a dry run has no signed note.
    let Some(note) = report["note"].as_str() else {
        let facts =
            vec![("Key", Cell::Code(string(report, "key"))), ("Up to position", event_cell(report, "until"))];
        let detail =
            "The root would be signed with the server’s key, and the log would record the use of the key.";
        let view = ReportView { facts, ..ReportView::default() };
        return view.with_headline("The whole log would be read, and its root signed", detail);
    };
    let facts = checkpoint_facts(&report["checkpoint"]);
    let view = ReportView { facts, checkpoint: Some(note.to_owned()), ..ReportView::default() };
    view.with_headline("The checkpoint is made", "Keep it where nobody can change both it and the log.")
}

fn verification(report: &Value) -> ReportView {
    // Only the report of a dry run has the position at which the verification would end.
    if report["until"].is_u64() {
        let what = if report["checkpoint"].is_null() {
            "its consistency checked"
        } else {
            "every event compared with the checkpoint"
        };
        let headline = format!("The log would be read, and {what}");
        let view = ReportView { facts: checkpoint_facts(&report["checkpoint"]), ..ReportView::default() };
        let view = if report["checkpoint"].is_null() { ReportView::default() } else { view };
        return view.with_headline(headline, "A verification changes nothing.");
    }
    let mut view = ReportView::default();
    let faults = items(report, "faults").iter().map(|fault| {
        let position = if fault["position"].is_u64() {
            event_cell(fault, "position")
        } else {
            event_cell(fault, "after")
        };
        vec![
            Cell::Text(string(fault, "kind")),
            position,
            Cell::Text(text::shorten_tokens(&fault.to_string())),
        ]
    });
    let columns = &["Fault", "Position", "Details"];
    let faults = ReportTable { title: "Faults".to_owned(), columns, rows: faults.collect() };
    let found = faults.rows.len() as u64;
    if found > 0 {
        view.tables.push(faults);
    }
    if report["checkpoint"].is_null() {
        view.facts = vec![
            ("Events", number_cell(report, "events")),
            ("Root", Cell::Code(string(report, "root"))),
            ("Last position", event_cell(report, "position")),
        ];
        let detail = "Without a checkpoint, nothing shows whether events were altered.";
        let headline = if found == 0 { "The log is consistent".to_owned() } else { counted(found, "fault") };
        return view.with_headline(headline, detail);
    }
    view.facts = checkpoint_facts(&report["checkpoint"]);
    let signature = string(report, "signature").replace('_', " ");
    view.facts.push(("Signature", Cell::Text(signature)));
    if !report["altered"].is_null() {
        view.facts.push(("First alteration", event_cell(&report["altered"], "position")));
        view.facts.push(("What was altered", Cell::Text(string(&report["altered"], "kind"))));
    }
    let (headline, detail) = verification_headline(report);
    view.with_headline(headline, detail)
}

/// The headline and the detail of a comparison of the log with a checkpoint.
fn verification_headline(report: &Value) -> (&'static str, &'static str) {
    let matches = report["unaltered"] == true && report["same_log"] == true;
    match report["signature"].as_str() {
        Some("wrong" | "by_another_key") if matches => (
            "The checkpoint can’t be trusted",
            "The log matches it, but this key has not signed it. An attacker who altered the log could also have made the checkpoint.",
        ),
        Some("wrong" | "by_another_key") => {
            ("The checkpoint can’t be trusted", "The log differs from it, but this key has not signed it.")
        }
        Some("good") if matches => (
            "The log is unaltered up to the checkpoint",
            "Every signed event is present, byte for byte, in the same order. Later events are not covered.",
        ),
        _ if matches => (
            "The log matches the checkpoint, whose signature was not checked",
            "Only the public key of its signer shows whether it is genuine. Later events are not covered.",
        ),
        _ if report["restored"].is_null() => {
            ("The log differs from the checkpoint", "Compare it with a backup before anything else is done.")
        }
        _ => (
            "The log was restored, or a loss of events accepted, after the checkpoint",
            "It does not have all signed events. Compare those that it kept with a backup.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_log_counts_as_unaltered_only_if_the_signature_is_good() {
        let headline = |signature: &str, unaltered: bool, restored: Value| {
            let report = json!({
                "unaltered": unaltered, "same_log": true, "signature": signature, "restored": restored,
            });
            verification_headline(&report).0
        };
        assert_eq!(headline("good", true, Value::Null), "The log is unaltered up to the checkpoint");
        assert_eq!(
            headline("not_checked", true, Value::Null),
            "The log matches the checkpoint, whose signature was not checked"
        );
        for signature in ["wrong", "by_another_key"] {
            for unaltered in [true, false] {
                let shown = headline(signature, unaltered, Value::Null);
                assert_eq!(shown, "The checkpoint can’t be trusted");
            }
        }
        assert_eq!(headline("good", false, Value::Null), "The log differs from the checkpoint");
        let restored = headline("good", false, json!({}));
        assert_eq!(restored, "The log was restored, or a loss of events accepted, after the checkpoint");
    }

    #[test]
    fn the_result_of_a_rebuild_names_the_generations_that_could_not_be_compared() {
        let headline = |promoted: Value, comparisons: &[&Value]| {
            let generations = [json!({ "projection": "read_model", "generation": 2 })];
            rebuild_headline(
                &json!({ "generations": generations, "comparisons": comparisons, "promoted": promoted }),
            )
        };
        let same = json!({ "projection": "search_index", "live": 1, "unreadable": null, "differing": 0 });
        let differs = json!({ "projection": "search_index", "live": 1, "unreadable": null, "differing": 1 });
        let damaged =
            json!({ "projection": "read_model", "live": 1, "unreadable": "damaged", "differing": 0 });
        let detail_of = |promoted, comparisons: &[&Value]| headline(promoted, comparisons).1;
        let promoted = json!({ "position": 9 });
        let not_compared = "Not compared, because unreadable: Read model 1.";
        assert_eq!(detail_of(promoted.clone(), &[&same]), "No row differs.");
        assert_eq!(detail_of(promoted.clone(), &[&damaged]), not_compared);
        assert_eq!(
            detail_of(promoted.clone(), &[&damaged, &same]),
            format!("No row differs. {not_compared}")
        );
        assert_eq!(detail_of(promoted, &[&damaged, &differs]), format!("1 row differed. {not_compared}"));
        let unpromoted = headline(Value::Null, &[&damaged]);
        assert_eq!(
            unpromoted,
            ("Read model 2 built".to_owned(), format!("They were not promoted. {not_compared}"))
        );
    }
}
