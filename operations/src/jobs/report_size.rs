//! The bound on the size of recorded reports.

use serde_json::Value;

/// The largest report of a job that is recorded, in bytes of JSON.
pub const MAX_REPORT_BYTES: usize = 64 * 1024;

/// The lengths to which all lists of a report are cut. Each length is tried in turn, until the report is small enough.
const LIST_LENGTHS: [usize; 4] = [1_000, 100, 10, 0];

/// Shortens the lists of a report until it fits, or leaves the report out. A shortened report has the field
/// `truncated`.
pub(super) fn bounded(mut report: Value) -> Value {
    for length in LIST_LENGTHS {
        if report.to_string().len() <= MAX_REPORT_BYTES {
            return report;
        }
        let is_cut = cut_lists(&mut report, length);
        if let (true, Value::Object(fields)) = (is_cut, &mut report) {
            fields.insert("truncated".to_owned(), Value::Bool(true));
        }
    }
    if report.to_string().len() <= MAX_REPORT_BYTES {
        return report;
    }
    serde_json::json!({ "truncated": true })
}

/// Cuts all lists in a value to a length, also nested ones. Returns whether a list was longer.
fn cut_lists(value: &mut Value, length: usize) -> bool {
    match value {
        Value::Array(items) => {
            let is_longer = items.len() > length;
            items.truncate(length);
            items.iter_mut().fold(is_longer, |is_cut, item| cut_lists(item, length) | is_cut)
        }
        Value::Object(fields) => {
            fields.values_mut().fold(false, |is_cut, field| cut_lists(field, length) | is_cut)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_small_report_is_recorded_whole() {
        let report = json!({ "steps": [1, 2, 3] });
        assert_eq!(bounded(report.clone()), report);
    }

    #[test]
    fn the_lists_of_a_large_report_are_shortened() {
        let steps: Vec<_> =
            (0..5_000).map(|number| json!({ "stream": "x".repeat(50), "act": number })).collect();
        let report = bounded(json!({ "executed": true, "steps": steps }));
        assert_eq!(report["truncated"], true);
        assert_eq!(report["steps"].as_array().map(Vec::len), Some(100));
        assert_eq!(report["steps"][0]["act"], 0);
        assert!(report.to_string().len() <= MAX_REPORT_BYTES);
    }

    #[test]
    fn a_report_with_one_large_text_is_left_out() {
        assert_eq!(bounded(json!({ "text": "x".repeat(MAX_REPORT_BYTES) })), json!({ "truncated": true }));
    }
}
