//! One line that says what is being fetched and how far it is: rewritten in place on a terminal,
//! a line per quarter elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};

pub(crate) struct Progress {
    title: String,
    on_terminal: bool,
    shown: Option<u64>,
}

impl Progress {
    pub(crate) fn start(title: impl Into<String>) -> Self {
        let mut progress =
            Self { title: title.into(), on_terminal: stderr().is_terminal(), shown: None };
        progress.percent(0);
        progress
    }

    pub(crate) fn percent(&mut self, percent: u64) {
        let step = if self.on_terminal { 1 } else { 25 };
        let rounded = percent.min(100) / step * step;
        if self.shown.is_some_and(|shown| rounded <= shown) {
            return;
        }
        self.shown = Some(rounded);
        self.write(&format!("{rounded} %"));
    }

    pub(crate) fn finish(mut self) {
        self.percent(100);
        if self.on_terminal {
            drop(writeln!(stderr()));
        }
    }

    fn write(&self, text: &str) {
        // A closed stderr must not fail a test or a set-up.
        drop(if self.on_terminal {
            write!(stderr(), "\r\x1b[K{}: {text}", self.title)
        } else {
            writeln!(stderr(), "{}: {text}", self.title)
        });
    }
}
