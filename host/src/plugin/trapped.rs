//! Where a guest trapped, for who has to mend it.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};

/// Functions of a backtrace; the rest of a recursion says nothing more.
const FRAMES_MAX: usize = 32;
/// Bytes of a function's name: guests choose how long theirs are.
const NAME_BYTES_MAX: usize = 200;

/// A trap: what it was, and the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trapped {
    what: String,
    /// One function a line, the innermost first; none if the guest was not running.
    pub(crate) backtrace: Option<String>,
}

impl fmt::Display for Trapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Trapped {
    /// A trap's code and the innermost functions, which say more than `unreachable` does.
    pub(crate) fn new(code: Trap, trap: &wasmtime::Error) -> Trapped {
        let functions = functions(trap);
        let innermost: Vec<&str> = functions.iter().take(3).map(|(_, name)| &**name).collect();
        let what = match innermost.is_empty() {
            true => code.to_string(),
            false => format!("{code} in {}", innermost.join(" < ")),
        };
        Trapped { what, backtrace: lines(&functions) }
    }

    /// What ended a call without a code of its own.
    pub(crate) fn other(what: String, trap: &wasmtime::Error) -> Trapped {
        Trapped { what, backtrace: lines(&functions(trap)) }
    }
}

/// Each function on the stack with its place in the module, the innermost first.
fn functions(trap: &wasmtime::Error) -> Vec<(Option<usize>, String)> {
    let frames = trap.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let function = |frame: &wasmtime::FrameInfo| {
        let name = frame.func_name().map(demangled);
        let name = name.unwrap_or_else(|| format!("function {}", frame.func_index()));
        (frame.module_offset(), name)
    };
    frames.iter().take(FRAMES_MAX).map(function).collect()
}

fn lines(functions: &[(Option<usize>, String)]) -> Option<String> {
    let line = |(number, (offset, name)): (usize, &(Option<usize>, String))| match offset {
        Some(offset) => format!("{number}: {name} at {offset:#x}"),
        None => format!("{number}: {name}"),
    };
    let lines: Vec<String> = functions.iter().enumerate().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// A name as it is in the source, without the hash of Rust's.
fn demangled(name: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_the_source_and_not_longer_than_one_reads() {
        assert_eq!(demangled("_ZN7hostile7explode17h0123456789abcdefE"), "hostile::explode");
        assert_eq!(demangled("plain_c_name"), "plain_c_name");
        assert_eq!(demangled(&"é".repeat(500)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_backtrace_has_one_line_for_each_function() {
        let functions = [(Some(0x1c), "explode".to_owned()), (None, "function 7".to_owned())];
        assert_eq!(lines(&functions).as_deref(), Some("0: explode at 0x1c\n1: function 7"));
        assert_eq!(lines(&[]), None);
    }
}
