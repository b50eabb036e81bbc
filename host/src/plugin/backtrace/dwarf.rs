//! DWARF, as far as it says where an instruction comes from.

use std::ops::Range;

use gimli::constants as dw;
use gimli::{
    AttributeValue, DebugInfoOffset, DebuggingInformationEntry, Dwarf, DwarfSections, EndianSlice,
    LittleEndian, Section as _, SectionId, Unit, UnitHeader, UnitOffset,
};

use crate::plugin::backtrace::binary;
use crate::plugin::backtrace::trapped::{demangled, shortened};

/// What all sections of a module may take.
const BYTES_MAX: usize = 64 << 20;
/// What abbreviations may take: they are unpacked to many times that.
const ABBREVIATIONS_MAX: usize = 512 << 10;
/// What the head of a line table may take, for the same reason.
const LINES_HEAD_MAX: usize = 64 << 10;
/// Functions that are inlined into each other.
const INLINED_MAX: usize = 16;
/// Entries that a name may be away.
const NAME_STEPS: usize = 4;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// How far one goes yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps(pub(super) u64);

/// Why nothing was found.
pub(super) enum NotFound {
    Damaged,
    TooFar,
}

impl From<gimli::Error> for NotFound {
    fn from(_: gimli::Error) -> NotFound {
        NotFound::Damaged
    }
}

impl Steps {
    fn take(&mut self, steps: usize) -> Result<(), NotFound> {
        self.0 = self.0.checked_sub(steps as u64 + 1).ok_or(NotFound::TooFar)?;
        Ok(())
    }
}

/// The debug information of a component's one module that has some.
pub(super) struct Debug {
    sections: DwarfSections<Vec<u8>>,
    /// Where the module's code section lies in the component; what DWARF calls addresses count from its begin.
    code: Range<usize>,
    /// Bytes of range lists.
    lists: usize,
    /// Where each function begins in the component.
    functions: Vec<usize>,
}

/// A function that an instruction is in, or was inlined into.
struct Around {
    depth: isize,
    name: Option<String>,
    /// File and line of the call, if it was inlined.
    call: Option<(u64, u64)>,
}

impl Debug {
    /// That of a component; none if it has none, or more than one can take.
    pub(super) fn of(component: &[u8]) -> Option<Debug> {
        let modules = binary::modules(component)?;
        let mut found =
            modules.into_iter().filter_map(|at| Debug::of_module(&component[at.clone()], at.start));
        let first = found.next();
        first.filter(|_| found.next().is_none())
    }

    fn of_module(module: &[u8], base: usize) -> Option<Debug> {
        let mut custom = Vec::new();
        let mut code = None;
        for (id, content) in binary::module_sections(module)? {
            match id {
                0 => custom.push(binary::named(&module[content])?),
                10 => code = Some(content),
                _ => {}
            }
        }
        let code = code?;
        custom.retain(|(name, _)| name.starts_with(".debug_"));
        let bytes =
            |name: &str| custom.iter().find(|(found, _)| *found == name).map(|found| found.1);
        let total: usize = custom.iter().map(|(_, content)| content.len()).sum();
        let abbreviations = bytes(SectionId::DebugAbbrev.name())?.len();
        if total > BYTES_MAX || abbreviations > ABBREVIATIONS_MAX {
            return None;
        }
        let load = |id: SectionId| Ok::<_, ()>(bytes(id.name()).unwrap_or_default().to_vec());
        let functions = binary::function_starts(module, &code)?;
        let functions = functions.into_iter().map(|start| base + start).collect();
        let code = base + code.start..base + code.end;
        let lists = [SectionId::DebugRanges, SectionId::DebugRngLists];
        let lists = lists.iter().filter_map(|id| bytes(id.name())).map(<[u8]>::len).sum();
        Some(Debug { sections: DwarfSections::load(load).ok()?, code, lists, functions })
    }

    /// The places of an instruction, that of what was inlined deepest first.
    pub(super) fn places(
        &self,
        start: usize,
        offset: usize,
        steps: &mut Steps,
    ) -> Result<Vec<String>, NotFound> {
        // Another module of the component has no function there.
        if self.functions.binary_search(&start).is_err() || !self.code.contains(&offset) {
            return Ok(Vec::new());
        }
        let address = (offset - self.code.start) as u64;
        let dwarf = self.sections.borrow(|section| EndianSlice::new(section, LittleEndian));
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let Some(unit) = self.unit(&dwarf, header, steps)? else { continue };
            let mut root = unit.entries();
            let Some(root) = root.next_dfs()? else { continue };
            if self.covers(&dwarf, &unit, root, address, steps)? {
                let around = self.around(&dwarf, &unit, address, steps)?;
                if !around.is_empty() {
                    return lines(&dwarf, &unit, address, around, steps);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Reads a unit, unless its line table has a head that is too large.
    fn unit<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        header: UnitHeader<Slice<'a>>,
        steps: &mut Steps,
    ) -> Result<Option<Unit<Slice<'a>>>, NotFound> {
        steps.take(dwarf.debug_abbrev.reader().slice().len() / 16)?;
        let abbreviations = dwarf.abbreviations(&header)?;
        let mut entries = header.entries(&abbreviations);
        let Some(root) = entries.next_dfs()? else { return Ok(None) };
        if let Some(AttributeValue::DebugLineRef(at)) = root.attr_value(dw::DW_AT_stmt_list) {
            let head = lines_head(dwarf.debug_line.reader().slice(), at.0);
            match head.filter(|bytes| *bytes <= LINES_HEAD_MAX) {
                Some(bytes) => steps.take(bytes)?,
                None => return Ok(None),
            }
        }
        Ok(Some(Unit::new_with_abbreviations(dwarf, header, abbreviations)?))
    }

    fn covers<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        unit: &Unit<Slice<'a>>,
        entry: &Entry<'a>,
        address: u64,
        steps: &mut Steps,
    ) -> Result<bool, NotFound> {
        if entry.has_attr(dw::DW_AT_ranges) {
            // One step of the iterator may go through all of the section.
            steps.take(self.lists / 256)?;
        }
        let mut ranges = dwarf.die_ranges(unit, entry)?;
        while let Some(range) = ranges.next()? {
            steps.take(0)?;
            if (range.begin..range.end).contains(&address) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The function that an address is in, and those that were inlined there, the deepest last.
    fn around<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        unit: &Unit<Slice<'a>>,
        address: u64,
        steps: &mut Steps,
    ) -> Result<Vec<Around>, NotFound> {
        let mut around: Vec<Around> = Vec::new();
        let mut passed_over = None;
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            steps.take(entry.attrs().len())?;
            let depth = entry.depth();
            if around.first().is_some_and(|function| depth <= function.depth) {
                break;
            }
            if passed_over.is_some_and(|above| depth > above) {
                continue;
            }
            passed_over = None;
            let is_looked_for = match entry.tag() {
                dw::DW_TAG_subprogram => around.is_empty(),
                dw::DW_TAG_inlined_subroutine => !around.is_empty(),
                _ => continue,
            };
            if !is_looked_for
                || around.len() > INLINED_MAX
                || !self.covers(dwarf, unit, entry, address, steps)?
            {
                passed_over = Some(depth);
                continue;
            }
            let number = |name| entry.attr(name).and_then(|attribute| attribute.udata_value());
            let call = number(dw::DW_AT_call_file).zip(number(dw::DW_AT_call_line));
            let name = self.name(dwarf, unit, entry, NAME_STEPS, steps)?;
            around.push(Around { depth, name, call });
        }
        Ok(around)
    }

    /// What a function is called, here or where this entry says.
    fn name<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        unit: &Unit<Slice<'a>>,
        entry: &Entry<'a>,
        away: usize,
        steps: &mut Steps,
    ) -> Result<Option<String>, NotFound> {
        let own = [dw::DW_AT_linkage_name, dw::DW_AT_name];
        if let Some(name) = own.into_iter().find_map(|name| entry.attr_value(name)) {
            return Ok(Some(demangled(&text(dwarf, unit, name)?)));
        }
        let elsewhere = [dw::DW_AT_abstract_origin, dw::DW_AT_specification];
        match elsewhere.into_iter().find_map(|name| entry.attr_value(name)) {
            Some(_) if away == 0 => Ok(None),
            Some(AttributeValue::UnitRef(at)) => self.name_at(dwarf, unit, at, away - 1, steps),
            Some(AttributeValue::DebugInfoRef(at)) => self.name_in(dwarf, at, away - 1, steps),
            _ => Ok(None),
        }
    }

    fn name_at<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        unit: &Unit<Slice<'a>>,
        at: UnitOffset,
        away: usize,
        steps: &mut Steps,
    ) -> Result<Option<String>, NotFound> {
        let entry = unit.entry(at)?;
        steps.take(entry.attrs().len())?;
        self.name(dwarf, unit, &entry, away, steps)
    }

    /// The same in whatever unit it is.
    fn name_in<'a>(
        &self,
        dwarf: &Dwarf<Slice<'a>>,
        at: DebugInfoOffset,
        away: usize,
        steps: &mut Steps,
    ) -> Result<Option<String>, NotFound> {
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            steps.take(0)?;
            if let Some(at) = at.to_unit_offset(&header) {
                let Some(unit) = self.unit(dwarf, header, steps)? else { return Ok(None) };
                return self.name_at(dwarf, &unit, at, away, steps);
            }
        }
        Ok(None)
    }
}

/// `name (file:line)` for each, the deepest first.
fn lines<'a>(
    dwarf: &Dwarf<Slice<'a>>,
    unit: &Unit<Slice<'a>>,
    address: u64,
    around: Vec<Around>,
    steps: &mut Steps,
) -> Result<Vec<String>, NotFound> {
    let mut place = line(unit, address, steps)?;
    let mut lines = Vec::new();
    for function in around.into_iter().rev() {
        let Some((number, line)) = place else { break };
        let name = function.name.unwrap_or_else(|| "a function".to_owned());
        lines.push(format!("{name} ({}:{line})", file(dwarf, unit, number)?));
        place = function.call;
    }
    Ok(lines)
}

/// The number of the file, and the line, of an address.
fn line(
    unit: &Unit<Slice<'_>>,
    address: u64,
    steps: &mut Steps,
) -> Result<Option<(u64, u64)>, NotFound> {
    let Some(program) = unit.line_program.clone() else { return Ok(None) };
    let mut rows = program.rows();
    let mut before: Option<(u64, u64, u64)> = None;
    while let Some((_, row)) = rows.next_row()? {
        steps.take(0)?;
        if let Some((begin, file, line)) = before
            && (begin..row.address()).contains(&address)
        {
            return Ok(Some((file, line)));
        }
        let line = row.line().map_or(0, std::num::NonZero::get);
        before = (!row.end_sequence()).then_some((row.address(), row.file_index(), line));
    }
    Ok(None)
}

/// A file's path as it was given to the compiler.
fn file<'a>(
    dwarf: &Dwarf<Slice<'a>>,
    unit: &Unit<Slice<'a>>,
    number: u64,
) -> Result<String, NotFound> {
    let header = unit.line_program.as_ref().ok_or(NotFound::Damaged)?.header();
    let file = header.file(number).ok_or(NotFound::Damaged)?;
    let name = text(dwarf, unit, file.path_name())?;
    // The first directory is the one in which it was compiled.
    let directory = file.directory(header).filter(|_| file.directory_index() != 0);
    let directory = directory.map(|directory| text(dwarf, unit, directory)).transpose()?;
    Ok(shortened(match directory {
        Some(directory) if !name.starts_with('/') => format!("{directory}/{name}"),
        _ => name,
    }))
}

fn text<'a>(
    dwarf: &Dwarf<Slice<'a>>,
    unit: &Unit<Slice<'a>>,
    value: AttributeValue<Slice<'a>>,
) -> Result<String, NotFound> {
    const BYTES_MAX: usize = 4096;
    let text = dwarf.attr_string(unit, value)?;
    let text = text.slice();
    Ok(String::from_utf8_lossy(&text[..text.len().min(BYTES_MAX)]).into_owned())
}

/// How long the head of a line table is that begins there.
fn lines_head(lines: &[u8], at: usize) -> Option<usize> {
    let table = lines.get(at..)?;
    let u16_at = |at: usize| Some(u16::from_le_bytes(table.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?));
    // In modules of 32 bits there is no need of the 64-bit form, which begins with this.
    if u32_at(0)? == u32::MAX {
        return None;
    }
    let head = if u16_at(4)? >= 5 { u32_at(8)? } else { u32_at(6)? };
    usize::try_from(head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many units that all say to be at as many places, none of which is looked for: what takes time as
    /// the product of both.
    fn endless() -> Debug {
        const UNITS: usize = 50_000;
        const RANGES: u32 = 50_000;
        // A unit without children that has ranges, by an offset of four bytes.
        let abbreviations = vec![1, 0x11, 0, 0x55, 0x17, 0, 0, 0];
        // Version 4, the abbreviations at 0, addresses of four bytes; ranges at 0.
        let unit = [&[12, 0, 0, 0, 4, 0, 0, 0, 0, 0, 4, 1][..], &[0; 4]].concat();
        let ranges = (0..RANGES).flat_map(|_| [1000_u32.to_le_bytes(), 1001_u32.to_le_bytes()]);
        let ranges: Vec<u8> = ranges.flatten().chain([0; 8]).collect();
        let lists = ranges.len();
        let load = |id: SectionId| {
            Ok::<_, ()>(match id {
                SectionId::DebugAbbrev => abbreviations.clone(),
                SectionId::DebugInfo => unit.repeat(UNITS),
                SectionId::DebugRanges => ranges.clone(),
                _ => Vec::new(),
            })
        };
        let sections = DwarfSections::load(load).unwrap();
        Debug { sections, code: 100..200, lists, functions: vec![110] }
    }

    #[test]
    fn what_would_take_for_ever_is_given_up() {
        let mut steps = Steps(1_000_000);
        assert!(matches!(endless().places(110, 120, &mut steps), Err(NotFound::TooFar)));
        assert!(steps.0 < 100_000, "{steps:?} are left");
    }

    #[test]
    fn an_instruction_of_another_module_has_no_place() {
        let mut steps = Steps(0);
        assert!(endless().places(111, 120, &mut steps).is_ok_and(|places| places.is_empty()));
        assert!(endless().places(110, 200, &mut steps).is_ok_and(|places| places.is_empty()));
    }

    #[test]
    fn the_head_of_a_line_table_is_measured_before_it_is_read() {
        let old = [&[20, 0, 0, 0, 4, 0, 7, 1, 0, 0][..], &[0; 4]].concat();
        assert_eq!(lines_head(&old, 0), Some(0x107));
        let new = [&[20, 0, 0, 0, 5, 0, 4, 0, 9, 0, 0, 0][..], &[0; 4]].concat();
        assert_eq!(lines_head(&[&old[..], &new].concat(), old.len()), Some(9));
        assert_eq!(lines_head(&[0xff; 16], 0), None);
        assert_eq!(lines_head(&old, 13), None);
    }
}
