//! The tables that pipes are made of.

use serde::{Deserialize, Serialize};

/// A mirrored table as ClickHouse shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirrored {
    /// The source's name: `public.users`.
    pub source: String,
    /// The view with the current rows, unquoted; the pipe is `<view>_snapshot`.
    pub view: String,
    /// The view's columns that are the source's, in its order.
    pub columns: Vec<MirroredColumn>,
    /// The columns of the view that an answer is ordered by: the key. Empty leaves the order open.
    pub order: Vec<String>,
}

/// One column of the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirroredColumn {
    /// Name, unquoted.
    pub name: String,
    /// ClickHouse's type: `Nullable(Int64)`.
    pub kind: String,
}

impl Mirrored {
    /// The pipe's name.
    #[must_use]
    pub fn pipe(&self) -> String {
        format!("{}_snapshot", self.view)
    }
}

/// An identifier that ClickHouse reads back as exactly `name`.
pub(super) fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('`');
    for c in name.chars() {
        match c {
            '`' | '\\' => text.extend(['\\', c]),
            '\0' => text.push_str("\\0"),
            _ => text.push(c),
        }
    }
    text.push('`');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_cannot_leave_its_quotes() {
        assert_eq!(quoted("a`b\\c\0"), "`a\\`b\\\\c\\0`");
    }
}
