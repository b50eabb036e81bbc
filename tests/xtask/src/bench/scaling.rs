//! The cost of an event by how many there are, and of how many tables: it should be flat.

use anyhow::Result;

use super::cases::Capture;
use super::report::Report;
use super::shape::Shape;
use super::{Bed, Options};

/// Events, up to this times the standard case.
const EVENTS: [(u64, u64); 4] = [(1, 100), (1, 10), (1, 1), (10, 1)];
const TABLES: [u64; 4] = [1, 10, 100, 1_000];

impl Bed {
    /// By events, then by tables.
    pub(super) fn scaling(&self, options: &Options, report: &mut Report) -> Result<()> {
        if !options.wants("scaling") {
            return Ok(());
        }
        for (times, of) in EVENTS {
            let events = options.rows * times / of;
            self.scaled(Shape::Inserts, events, &format!("scaling-events-{events}"), report)?;
        }
        for tables in TABLES {
            let name = format!("scaling-tables-{tables}");
            self.scaled(Shape::Tables(tables), options.rows, &name, report)?;
        }
        Ok(())
    }

    fn scaled(&self, shape: Shape, rows: u64, name: &str, report: &mut Report) -> Result<()> {
        let source = self.fill(shape, rows, &["scaling"])?;
        let case = Capture { name: "scaling", kafka: true, plugin: None, other: false };
        let (mut line, _) = self.capture(&source, case)?;
        line.name = name.to_owned();
        report.add(line);
        Ok(())
    }
}
