//! The terminal: a block that is redrawn in place, with lines that stay above it. Elsewhere every
//! line just stays.

use std::io::{IsTerminal as _, Write as _, stdout};

/// Where the demo shows itself.
#[derive(Debug)]
pub(super) struct Screen {
    on_terminal: bool,
    /// Lines of the block that is on the terminal now.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { on_terminal: stdout().is_terminal(), drawn: 0 }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.on_terminal
    }

    /// Draws the block over the last one.
    pub(super) fn draw(&mut self, block: &[String]) {
        let text = self.erased() + &block.join("\n") + "\n";
        self.drawn = block.len();
        put(&text);
    }

    /// A line that stays, above the block, which is gone until it is drawn again.
    pub(super) fn note(&mut self, line: &str) {
        let text = self.erased() + line + "\n";
        self.drawn = 0;
        put(&text);
    }

    /// Leaves the block as it is; what follows comes below it.
    pub(super) fn keep_block(&mut self) {
        self.drawn = 0;
    }

    fn erased(&self) -> String {
        match (self.on_terminal, self.drawn) {
            (false, _) | (_, 0) => String::new(),
            // To the beginning of the line that many lines up, and everything below it cleared.
            (true, drawn) => format!("\x1b[{drawn}F\x1b[J"),
        }
    }
}

fn put(text: &str) {
    let mut out = stdout().lock();
    // A closed terminal ends the demo by its signal, a closed pipe need not end it.
    drop(out.write_all(text.as_bytes()));
    drop(out.flush());
}
