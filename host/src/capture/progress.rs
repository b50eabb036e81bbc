//! How far the initial copy is: bars on a terminal, nothing elsewhere (the log tells each table).

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::catalog::Published;
use crate::table::TableName;

/// A bar per table; clones share them.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Arc<HashMap<TableName, ProgressBar>>,
}

impl Progress {
    /// Bars as long as the planner thinks the tables are.
    #[must_use]
    pub fn new(tables: &[Published]) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bars: Arc::default() };
        }
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template(
            "{msg:30} {bar:30} {human_pos:>12} of ~{human_len} rows {per_sec:>14} {eta:>5}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |table: &Published| {
            let bar = all.add(ProgressBar::new(table.estimated_rows));
            bar.set_style(style.clone());
            bar.set_message(table.name.to_string());
            (table.name.clone(), bar)
        };
        Progress { bars: Arc::new(tables.iter().map(bar).collect()) }
    }

    /// Rows were copied.
    pub fn add(&self, table: &TableName, rows: usize) {
        if let Some(bar) = self.bars.get(table) {
            bar.inc(rows as u64);
        }
    }

    /// The table is complete.
    pub fn table_done(&self, table: &TableName) {
        if let Some(bar) = self.bars.get(table) {
            bar.set_length(bar.position());
            bar.finish();
        }
    }

    /// All are.
    pub fn finish(&self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
    }
}
