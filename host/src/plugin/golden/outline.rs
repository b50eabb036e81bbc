//! What a plugin says of the tables of golden events, in words: what it is shown of each, and what becomes
//! of it.

use std::fmt;
use std::sync::Arc;

use crate::plugin::boundary::{Plan, Shape, Source, Want};
use crate::plugin::chain::{Member, Subscription};
use crate::plugin::error::Error;
use crate::plugin::golden::Golden;
use crate::plugin::options::Options;
use crate::plugin::versions::Runtime;
use crate::table::{Column, Table};

/// What a plugin says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// `schema.table`
    pub table: String,
    /// Words, each with what it is about; empty if the plugin wants nothing of the table.
    pub answer: Vec<(&'static str, String)>,
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table    {}", self.table)?;
        if self.answer.is_empty() {
            return write!(f, "\n  is never shown to it");
        }
        let mut answer = self.answer.iter();
        answer.try_for_each(|(word, about)| write!(f, "\n  {word:<9}{about}"))
    }
}

impl Golden {
    /// What a plugin, configured as the file says, answers about each of the file's tables.
    ///
    /// # Errors
    /// The plugin does not load.
    pub fn outlines(&self, runtime: &Runtime, options: &Options) -> Result<Vec<Outline>, Error> {
        let loader = self.loader(runtime, options);
        let loaded = loader.load()?;
        let mut member = Member::new(loader, loaded);
        let outline = |table: &Arc<Table>| {
            let answer = match member.subscription(table) {
                Subscription::Ignored => Vec::new(),
                Subscription::Wanted(plan) => wanted(table, &plan),
                Subscription::Refused(why) => vec![("refused", why)],
            };
            Outline { table: table.full_name().to_string(), answer }
        };
        Ok(self.tables.iter().map(outline).collect())
    }
}

fn wanted(table: &Table, plan: &Plan) -> Vec<(&'static str, String)> {
    let want = |want: &Want| {
        let old = if want.old { "old " } else { "" };
        format!("{old}{} ({})", table.columns[want.column].name, want.form())
    };
    let columns = match plan.wants.is_empty() {
        true => "no column".to_owned(),
        false => listed(plan.wants.iter().map(want)),
    };
    let mut answer = vec![("wants", columns), ("beside", listed(plan.headers()))];
    answer.extend(plan.shape.iter().flat_map(|shape| reshaped(table, shape)));
    answer.retain(|(_, about)| !about.is_empty());
    answer
}

fn reshaped(table: &Table, shape: &Shape) -> Vec<(&'static str, String)> {
    let goes_on = |index: usize| shape.sources.contains(&Source::Column(index));
    let dropped = (0..table.columns.len()).filter(|index| !goes_on(*index));
    let renamed = shape.sources.iter().zip(&shape.table.columns).filter_map(|(source, column)| {
        let Source::Column(before) = source else { return None };
        let before = &table.columns[*before].name;
        (*before != column.name).then(|| format!("{before} to {}", column.name))
    });
    let keyed = (shape.table.message_key != table.message_key).then_some(&shape.table.message_key);
    let filled = |table: &Arc<Table>| {
        format!("{} ({})", table.full_name(), listed(table.columns.iter().map(typed)))
    };
    vec![
        ("drops", listed(dropped.map(|index| &table.columns[index].name))),
        ("renames", listed(renamed)),
        ("derives", listed(shape.derived_columns().map(|(_, column)| typed(column)))),
        ("keyed by", listed(keyed.into_iter().flatten())),
        ("homes", listed(shape.homes.iter().map(|home| home.full_name()))),
        ("fills", listed(shape.added.iter().map(filled))),
        ("itself", if shape.stays { "" } else { "goes no further" }.to_owned()),
    ]
}

fn typed(column: &Column) -> String {
    format!("{} {}", column.name, column.type_name)
}

fn listed(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
