//! Results as text and tables for a person: in 80 columns, or those of the terminal.

use std::io::IsTerminal;
use std::sync::LazyLock;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use jiff::Timestamp;
use textwrap::Options;

/// Columns where nobody says how many there are, and the fewest that are used.
const COLUMNS: u16 = 80;

/// More make lines that nobody reads.
const MOST_COLUMNS: u16 = 160;

/// The columns of the terminal.
static WIDTH: LazyLock<u16> = LazyLock::new(|| {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(stdout).ok()).flatten();
    size.map_or(COLUMNS, |size| size.ws_col.clamp(COLUMNS, MOST_COLUMNS))
});

/// A text behind a name: the lines that follow begin under the text.
pub(crate) fn folded(name: &str, text: &str) -> String {
    let indent = " ".repeat(name.chars().count());
    let options = Options::new(usize::from(*WIDTH)).initial_indent(name).subsequent_indent(&indent);
    textwrap::fill(text, options)
}

/// An empty table with a header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(*WIDTH);
    table.set_header(header);
    table
}

/// Sets the columns from `from` on to the right, as numbers are read.
pub(crate) fn numbers(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A moment, or a dash for none.
pub(crate) fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}
