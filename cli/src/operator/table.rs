//! Tables and lists for people.

use std::io::{IsTerminal as _, stdout};

use super::terminal_text::{display_width, escaped, texts_are_shown_in_full, truncated};

/// Blanks between two columns of a table.
const GAP: usize = 2;

/// Width of an answer if neither `COLUMNS` nor a terminal gives one.
const DEFAULT_WIDTH: usize = 80;

/// The least space in which [`LastColumn::Cut`] cuts the last column on the line of the other columns. If less space is
/// left on that line, a last column that does not fit gets a line of its own.
const MIN_LAST_COLUMN: usize = 40;

/// Indent of the further lines on which a cell or a line continues.
const INDENT: usize = 4;

/// A column of a table.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    /// The least width to which the column may be cut; `None` if it is never cut. Does not apply to the last column.
    min_width: Option<usize>,
}

impl Column {
    /// Creates a column that may be cut down to `min_width` in a table that is too wide. Does not apply to the last
    /// column.
    pub(super) const fn shrinkable_to(min_width: usize, name: &'static str) -> Self {
        Self { name, min_width: Some(min_width) }
    }

    /// Creates a column that is never cut. Does not apply to the last column.
    pub(super) const fn whole(name: &'static str) -> Self {
        Self { name, min_width: None }
    }
}

impl From<&'static str> for Column {
    fn from(name: &'static str) -> Self {
        Self::whole(name)
    }
}

/// A table as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The line of headings; two lines if the last column has lines of its own.
    pub(super) headings: String,
    /// The rows.
    pub(super) rows: String,
}

/// How the last column is fitted into the width.
#[derive(Clone, Copy)]
enum LastColumn {
    /// It is cut at the end of its line.
    Cut,
    /// It continues on further lines.
    Wrapped,
}

/// Formats rows in aligned columns with headings, and fits them into the width of the terminal. What does not fit in
/// the last column is cut. Cells are escaped here.
pub(super) fn table<const N: usize, C: Into<Column>>(columns: [C; N], rows: &[[String; N]]) -> String {
    let Table { headings, rows } = table_parts(columns, rows);
    headings + &rows
}

/// Formats a table like [`table`], with the headings apart.
pub(super) fn table_parts<const N: usize, C: Into<Column>>(columns: [C; N], rows: &[[String; N]]) -> Table {
    format_table(columns.map(Into::into), rows, terminal_width(), LastColumn::Cut)
}

/// Formats a table like [`table`], but does not cut the last column: it continues on further lines.
pub(super) fn table_with_wrapped_last_column<const N: usize, C: Into<Column>>(
    columns: [C; N],
    rows: &[[String; N]],
) -> String {
    let Table { headings, rows } =
        format_table(columns.map(Into::into), rows, terminal_width(), LastColumn::Wrapped);
    headings + &rows
}

/// Returns the width to fit tables into, in columns of the terminal; `None` if they may be of any width.
fn terminal_width() -> Option<usize> {
    if texts_are_shown_in_full() {
        return None;
    }
    let from_environment = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let detected = || stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    from_environment.or_else(|| detected().map(|(width, _)| usize::from(width.0))).or(Some(DEFAULT_WIDTH))
}

fn format_table<const N: usize>(
    columns: [Column; N],
    rows: &[[String; N]],
    max_width: Option<usize>,
    last_column: LastColumn,
) -> Table {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let headings = columns.map(|column| column.name.to_owned());
    let mut widths = columns.map(|column| display_width(column.name));
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = display_width(cell).max(*width);
        }
    }
    let max_width = max_width.unwrap_or(usize::MAX);
    let [first_widths @ .., last_width] = &mut widths[..] else {
        return Table { headings: String::new(), rows: String::new() };
    };
    fit_columns(&columns, first_widths, max_width);
    let before_last: usize = first_widths.iter().map(|width| width + GAP).sum();
    let space_on_line = max_width.saturating_sub(before_last);
    let stays_on_line = *last_width <= space_on_line
        || matches!(last_column, LastColumn::Cut) && space_on_line >= MIN_LAST_COLUMN;
    let format_row = |row: &[String; N]| {
        let [first_cells @ .., last_cell] = &row[..] else { return String::new() };
        let mut text = String::new();
        for (cell, width) in first_cells.iter().zip(first_widths.iter()) {
            let cell = truncated(cell, *width);
            text.push_str(&cell);
            text.extend(std::iter::repeat_n(' ', width - display_width(&cell) + GAP));
        }
        if stays_on_line {
            text.push_str(&truncated(last_cell, space_on_line));
        }
        let mut text = text.trim_end().to_owned() + "\n";
        if !stays_on_line {
            let space_on_own_line = max_width.saturating_sub(INDENT).max(1);
            let lines = match last_column {
                LastColumn::Cut => vec![truncated(last_cell, space_on_own_line)],
                LastColumn::Wrapped => wrapped(last_cell, space_on_own_line),
            };
            for line in lines.iter().filter(|line| !line.is_empty()) {
                text.extend(std::iter::repeat_n(' ', INDENT));
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    };
    Table { headings: format_row(&headings), rows: rows.iter().map(format_row).collect() }
}

/// Reduces `widths`, those of the columns before the last one, from right to left until they fit into `max_width`, or
/// until no column may be cut further.
fn fit_columns(columns: &[Column], widths: &mut [usize], max_width: usize) {
    let taken: usize = widths.iter().map(|width| width + GAP).sum();
    let mut excess = taken.saturating_sub(GAP).saturating_sub(max_width);
    for (column, width) in columns.iter().zip(widths).rev() {
        let Some(min_width) = column.min_width else { continue };
        let cut = excess.min(width.saturating_sub(min_width));
        *width -= cut;
        excess -= cut;
    }
}

/// Breaks a text into lines of at most `max_width`, at blanks where possible.
fn wrapped(text: &str, max_width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let separator = usize::from(!line.is_empty());
        if !line.is_empty() && display_width(&line) + separator + display_width(word) > max_width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for character in word.chars() {
            line.push(character);
            if display_width(&line) > max_width {
                line.pop();
                lines.push(std::mem::replace(&mut line, character.to_string()));
            }
        }
    }
    lines.push(line);
    lines
}

/// Fits lines of an answer into the width of the terminal: longer ones continue, indented, on further lines. Words are
/// not broken, so that they can be pasted.
pub(super) fn fitted(text: &str) -> String {
    match terminal_width() {
        Some(width) => fitted_into(text, width),
        None => text.to_owned(),
    }
}

fn fitted_into(text: &str, width: usize) -> String {
    let mut fitted = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if display_width(line.trim_end_matches('\n')) <= width {
            fitted.push_str(line);
            continue;
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        let (start, words) = line.split_at(indent);
        fitted.push_str(start);
        let mut column = indent;
        for (index, word) in words.split(' ').enumerate() {
            let word_width = display_width(word.trim_end_matches('\n'));
            let further_indent = indent + INDENT;
            // A word that fits no line stays where it is.
            if index > 0 && column + 1 + word_width > width && further_indent + word_width <= width {
                fitted.truncate(fitted.trim_end_matches(' ').len());
                fitted.push('\n');
                fitted.extend(std::iter::repeat_n(' ', further_indent));
                column = further_indent;
            } else if index > 0 {
                fitted.push(' ');
                column += 1;
            }
            fitted.push_str(word);
            column += display_width(word);
        }
    }
    fitted
}

/// Formats names with their values, aligned. Values are escaped here.
pub(super) fn key_value_lines(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| display_width(name)).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in pairs {
        let gap = widest - display_width(name) + GAP;
        text.push_str(format!("{name}{:gap$}{}", "", escaped(value)).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(Table { headings, rows }: Table) -> String {
        headings + &rows
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_is_not_padded() {
        let rows =
            [["1".to_owned(), "世界".to_owned(), String::new()], ["10".into(), "x".into(), "end".into()]];
        assert_eq!(table(["N", "WORD", "LAST"], &rows), "N   WORD  LAST\n1   世界\n10  x     end\n");
    }

    #[test]
    fn control_characters_in_cells_are_escaped() {
        let hostile = "a\u{1b}[2J\u{9b}\u{202e}\nb".to_owned();
        let shown = "a\\u{1b}[2J\\u{9b}\\u{202e}\\nb";
        let rows = [[hostile.clone(), hostile.clone()]];
        assert_eq!(
            table_with_wrapped_last_column(["N", "LAST"], &rows).lines().nth(1),
            Some(&*format!("{shown}  {shown}"))
        );
        assert_eq!(table(["N", "LAST"], &rows).lines().count(), 2);
        assert_eq!(key_value_lines(&[("n", hostile)]), format!("n  {shown}\n"));
    }

    #[test]
    fn a_last_column_that_does_not_fit_gets_lines_of_its_own() {
        let rows = [["1".to_owned(), "one two three four five six".to_owned()]];
        let columns = ["N", "WORDS"].map(Column::whole);
        let cut = format_table(columns, &rows, Some(20), LastColumn::Cut);
        assert_eq!(text(cut), "N\n    WORDS\n1\n    one two three f…\n");
        let wrapped = format_table(columns, &rows, Some(20), LastColumn::Wrapped);
        assert_eq!(text(wrapped), "N\n    WORDS\n1\n    one two three\n    four five six\n");
        let whole = format_table(columns, &rows, None, LastColumn::Cut);
        assert_eq!(text(whole), "N  WORDS\n1  one two three four five six\n");
    }

    #[test]
    fn columns_are_cut_from_the_right_until_the_table_fits() {
        let rows = [["aaaaaaaaaa".to_owned(), "bbbbbbbbbb".to_owned(), "cccccc".to_owned(), String::new()]];
        let columns = [
            Column::shrinkable_to(6, "A"),
            Column::shrinkable_to(4, "B"),
            Column::whole("C"),
            Column::whole("D"),
        ];
        let shown = |width| text(format_table(columns, &rows, Some(width), LastColumn::Cut));
        assert_eq!(shown(30).lines().last(), Some("aaaaaaaaaa  bbbbbbbbbb  cccccc"));
        assert_eq!(shown(26).lines().last(), Some("aaaaaaaaaa  bbbbb…  cccccc"));
        assert_eq!(shown(22).lines().last(), Some("aaaaaaa…  bbb…  cccccc"));
    }

    #[test]
    fn words_that_are_wider_than_a_line_are_broken() {
        assert_eq!(wrapped("abcdef gh", 4), ["abcd", "ef", "gh"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn long_lines_continue_on_further_lines_and_words_stay_whole() {
        let text = "short\n  one two three four five\nx xxxxxxxxxxxxxxxxxxxxxx y\n";
        let expected =
            "short\n  one two\n      three\n      four\n      five\nx xxxxxxxxxxxxxxxxxxxxxx\n    y\n";
        assert_eq!(fitted_into(text, 12), expected);
        assert_eq!(fitted_into(text, 80), text);
    }

    #[test]
    fn values_are_aligned() {
        assert_eq!(key_value_lines(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2\n");
    }
}
