//! The tables that pipes are made of.

use serde::{Deserialize, Serialize};

use crate::sink::quoted;

/// What a pipe's name ends with.
pub(super) const PIPE_SUFFIX: &str = "_snapshot";

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
    /// Whether the source has bytes there, or arrays of them, and no text: in text formats they are base64.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
}

impl MirroredColumn {
    /// The expression that shows the column as text: valid UTF-8 whatever is in it.
    pub(super) fn as_text(&self) -> String {
        let name = quoted(&self.name);
        match (self.binary, self.kind.starts_with("Array(")) {
            (false, _) => name,
            (true, false) => format!("base64Encode({name})"),
            (true, true) => format!("arrayMap(bytes -> base64Encode(bytes), {name})"),
        }
    }
}

impl Mirrored {
    /// The pipe's name.
    #[must_use]
    pub fn pipe(&self) -> String {
        format!("{}{PIPE_SUFFIX}", self.view)
    }
}
