//! A trap as the engine tells it, for who has to mend the plugin.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};

/// Functions of a backtrace; the rest of a recursion says nothing more.
const FRAMES_MAX: usize = 32;
/// Bytes of the name of a function or file: guests choose how long theirs are.
const NAME_BYTES_MAX: usize = 200;

/// A trap: what it was, and the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trapped {
    what: String,
    /// The functions, the innermost first; none if the guest was not running.
    functions: Vec<Function>,
}

/// A function on the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    name: String,
    /// Where in the component it begins, and where it was.
    place: Option<(usize, usize)>,
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
        let innermost = innermost(&functions);
        let what = match innermost.is_empty() {
            true => code.to_string(),
            false => format!("{code} in {}", innermost.join(" < ")),
        };
        Trapped { what, functions }
    }

    /// What ended a call without a code of its own.
    pub(crate) fn other(what: String, trap: &wasmtime::Error) -> Trapped {
        Trapped { what, functions: functions(trap) }
    }

    /// One function a line, the innermost first, each followed by its places in the source if these are
    /// known: `places` is asked with where in the component it begins, and where it was.
    pub(crate) fn backtrace(&self, places: impl Fn(usize, usize) -> Vec<String>) -> Option<String> {
        let mut lines = Vec::new();
        for (number, Function { name, place }) in self.functions.iter().enumerate() {
            let Some((start, offset)) = *place else {
                lines.push(format!("{number}: {name}"));
                continue;
            };
            lines.push(format!("{number}: {name} at {offset:#x}"));
            lines.extend(places(start, offset).iter().map(|place| format!("   {place}")));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// The functions that say most: not Go's runtime, which comes between a panic and the trap.
fn innermost(functions: &[Function]) -> Vec<&str> {
    let names = || functions.iter().map(|known| &*known.name);
    let is_of_go = |name: &str| name.starts_with("runtime.") || name.starts_with("wasm_pc_f_loop");
    let own = names().position(|name| !is_of_go(name)).unwrap_or(0);
    names().skip(own).take(3).collect()
}

/// Each function on the stack, the innermost first.
fn functions(trap: &wasmtime::Error) -> Vec<Function> {
    let frames = trap.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let function = |frame: &wasmtime::FrameInfo| {
        let name = frame.func_name().map(demangled);
        let name = name.unwrap_or_else(|| format!("function {}", frame.func_index()));
        let place = frame.module_offset().zip(frame.func_offset());
        let place = place.map(|(offset, within)| (offset.saturating_sub(within), offset));
        Function { name, place }
    };
    frames.iter().take(FRAMES_MAX).map(function).collect()
}

/// A name as it is in the source, without the hash of Rust's.
pub(super) fn demangled(name: &str) -> String {
    shortened(format!("{:#}", rustc_demangle::demangle(name)))
}

/// Not longer than one reads.
pub(super) fn shortened(mut name: String) -> String {
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
    fn the_runtime_of_go_is_passed_over_unless_nothing_else_is_known() {
        let told = |names: &[&str]| {
            let function = |name: &&str| Function { name: (*name).to_owned(), place: None };
            let functions: Vec<Function> = names.iter().map(function).collect();
            innermost(&functions).join(" < ")
        };
        let panicked =
            ["runtime.abort", "runtime.gopanic", "plugin.taste", "runtime.x", "plugin.y", "z"];
        assert_eq!(told(&panicked), "plugin.taste < runtime.x < plugin.y");
        assert_eq!(told(&["runtime.gopanic", "wasm_pc_f_loop_export", "main"]), "main");
        assert_eq!(told(&["runtime.abort", "runtime.throw"]), "runtime.abort < runtime.throw");
        assert_eq!(told(&["a", "b", "c", "d"]), "a < b < c");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn a_backtrace_has_a_line_for_each_function_and_for_each_place_in_the_source() {
        let function = |name: &str, place| Function { name: name.to_owned(), place };
        let functions = vec![function("explode", Some((0x10, 0x1c))), function("function 7", None)];
        let trapped = |functions| Trapped { what: "unreachable".to_owned(), functions };
        let places = |start, offset| {
            assert_eq!((start, offset), (0x10, 0x1c));
            vec!["check (src/lib.rs:7)".to_owned(), "explode (src/lib.rs:9)".to_owned()]
        };
        let expected = "0: explode at 0x1c\n   check (src/lib.rs:7)\n   explode (src/lib.rs:9)\n\
                        1: function 7";
        assert_eq!(trapped(functions.clone()).backtrace(places).as_deref(), Some(expected));
        let unknown = trapped(functions).backtrace(|_, _| Vec::new());
        assert_eq!(unknown.as_deref(), Some("0: explode at 0x1c\n1: function 7"));
        assert_eq!(trapped(Vec::new()).backtrace(places), None);
    }
}
