//! What to do about an error: every stage's error answers it, the pipeline obeys.

/// The three ways on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Passing trouble: try again with backoff; nothing was acknowledged.
    Retry,
    /// Only a person can fix it: stop with the error; nothing was acknowledged.
    Halt,
    /// This change alone is at fault: set it aside and go on.
    DeadLetter,
}
