//! Text in columns, aligned as Go's `tabwriter` does it for kubectl: at least six wide, three spaces between.

use serde_json::Value;

const CELL_WIDTH_MIN: usize = 6;
const PADDING: usize = 3;

/// Rows of cells; a row may have fewer than others.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Widths so far: a watch keeps its columns.
    widths: Vec<usize>,
}

impl Table {
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The rows since the last call, aligned.
    pub fn take(&mut self) -> String {
        for row in &self.rows {
            // The last cell of a row has nothing to be aligned for.
            for (at, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                let width = (cell.chars().count() + PADDING).max(CELL_WIDTH_MIN);
                match self.widths.get_mut(at) {
                    Some(widest) => *widest = width.max(*widest),
                    None => self.widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for row in self.rows.drain(..) {
            for (at, cell) in row.iter().enumerate() {
                out += cell;
                if at + 1 < row.len() {
                    let fill = self.widths[at].saturating_sub(cell.chars().count());
                    out.extend(std::iter::repeat_n(' ', fill));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A cell of a server's Table as text; a line break ends it.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.find(['\n', '\r', '\x0c']) {
        Some(end) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_kubectls() {
        let mut table = Table::default();
        table.row(["NAME", "READY", "AGE"]);
        table.row(["alpha", "0/1", "5s"]);
        assert_eq!(table.take(), "NAME    READY   AGE\nalpha   0/1     5s\n");
    }
}
