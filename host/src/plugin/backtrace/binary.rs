//! The binary form of components, as far as what lies where in them.

use std::ops::Range;

/// What a module, and a component, begins with.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Components in components.
const DEPTH_MAX: usize = 8;

/// Where the modules of a component lie, those of components within it too; none if it is not one.
pub(super) fn modules(component: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut modules = Vec::new();
    find_modules(component, 0, 0, &mut modules)?;
    Some(modules)
}

fn find_modules(
    component: &[u8],
    base: usize,
    depth: usize,
    modules: &mut Vec<Range<usize>>,
) -> Option<()> {
    const CORE_MODULE: u8 = 1;
    const NESTED: u8 = 4;
    component.strip_prefix(COMPONENT).filter(|_| depth < DEPTH_MAX)?;
    for (id, content) in sections(component)? {
        let begin = base + content.start;
        match id {
            CORE_MODULE => modules.push(begin..base + content.end),
            NESTED => find_modules(&component[content], begin, depth + 1, modules)?,
            _ => {}
        }
    }
    Some(())
}

/// The sections of a module.
pub(super) fn module_sections(module: &[u8]) -> Option<Vec<(u8, Range<usize>)>> {
    module.strip_prefix(MODULE)?;
    sections(module)
}

fn sections(binary: &[u8]) -> Option<Vec<(u8, Range<usize>)>> {
    let mut sections = Vec::new();
    let mut at = MODULE.len();
    while at < binary.len() {
        let id = binary[at];
        let content = counted(binary, at + 1)?;
        at = content.end;
        sections.push((id, content));
    }
    Some(sections)
}

/// Name and content of a custom section.
pub(super) fn named(section: &[u8]) -> Option<(&str, &[u8])> {
    let name = counted(section, 0)?;
    let content = &section[name.end..];
    Some((str::from_utf8(&section[name]).ok()?, content))
}

/// Where the bodies of a module's functions begin.
pub(super) fn function_starts(module: &[u8], code: &Range<usize>) -> Option<Vec<usize>> {
    let (count, mut at) = number(module, code.start)?;
    let mut starts = Vec::new();
    for _ in 0..count {
        let body = counted(module, at).filter(|body| body.end <= code.end)?;
        at = body.end;
        starts.push(body.start);
    }
    Some(starts)
}

/// What lies behind its length.
fn counted(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, start) = number(bytes, at)?;
    let end = start.checked_add(length)?;
    (end <= bytes.len()).then_some(start..end)
}

/// A number of up to 32 bits, and where what follows begins.
fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut number = 0;
    for (shift, next) in (0..35).step_by(7).zip(at..) {
        let byte = *bytes.get(next)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((usize::try_from(number).ok()?, next + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_their_functions_are_found_in_nested_components() {
        let custom = [&[0, 5, 2][..], b"hi", b"xy"].concat();
        let code = [10, 7, 2, 2, 0, 0x0b, 2, 0, 0x0b];
        let module = [MODULE, &custom, &code].concat();
        let section = |id: u8, content: &[u8]| {
            [&[id, u8::try_from(content.len()).unwrap()][..], content].concat()
        };
        let inner = [COMPONENT, &section(1, &module)].concat();
        let outer = [COMPONENT, &section(4, &inner), &section(7, &[1, 2])].concat();
        let found = modules(&outer).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(&outer[found[0].clone()], &module[..]);
        let found = module_sections(&module).unwrap();
        assert_eq!(found, [(0, 10..15), (10, 17..24)]);
        assert_eq!(named(&module[10..15]), Some(("hi", &b"xy"[..])));
        assert_eq!(function_starts(&module, &(17..24)), Some(vec![19, 22]));
        assert_eq!(function_starts(&module, &(17..23)), None, "a body ends behind its section");
        for length in 0..outer.len() {
            drop(modules(&outer[..length]));
        }
        assert_eq!(modules(&module), None, "it is no component");
    }
}
