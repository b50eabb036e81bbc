//! Which column of the catalog the stream means. It describes a table as it was when a row changed, by names and
//! types in the order of the columns' numbers; the catalog tells of the table as it is, and with the numbers. A
//! column is never another one: its number stays, whatever it is called, and is never given again. So a
//! description fits the catalog in some ways and not in others:
//!
//! - a column that is there now was there then, unless it was added since, and then all later ones were too;
//! - one that was dropped was there then or was not;
//! - what a [`Form`] from before did not have, was gone already or came later.
//!
//! Where several ways are left, names and types tell: a column is taken to have had the name that it had before or
//! has now, if every other way would take two names that nobody saw, or another type. Else nobody knows, and the
//! table has to be copied again.
//!
//! If the catalog's columns were last changed by transactions older than the one that described them, and are as
//! described, then they are the same, whatever names others may have had. This is all that the age tells: an older
//! transaction may have waited for the one that described them, and a column that was given again with name and type
//! of the last one that it dropped is not told from that one.

use std::collections::HashMap;

use tokio_postgres::types::Oid;

use super::columns::{CatalogColumn, Layout};
use crate::decode::message::RelationColumn;
use crate::hop::Form;

/// What each column of a description is.
#[derive(Debug)]
pub(super) struct Matched<'a> {
    /// In the order of the description; by name if no way fits, and nothing if the table is gone.
    pub(super) columns: Vec<Option<&'a CatalogColumn>>,
    /// Whether no column that is there now may be another one.
    pub(super) certain: bool,
    /// Whether that holds of those that were dropped, too.
    pub(super) exact: bool,
}

impl<'a> Matched<'a> {
    fn by_name(columns: Vec<Option<&'a CatalogColumn>>, certain: bool) -> Matched<'a> {
        Matched { columns, certain, exact: certain }
    }
}

/// Matches a description. The forms are those of earlier times.
pub(super) fn matched<'a>(
    described: &[RelationColumn],
    catalog: &'a [CatalogColumn],
    forms: &[&Form],
    layouts: &HashMap<Oid, Layout>,
) -> Matched<'a> {
    let named = |column: &RelationColumn| {
        catalog.iter().find(|found| !found.dropped && found.name == column.name)
    };
    let by_name: Vec<_> = described.iter().map(named).collect();
    if catalog.is_empty() {
        return Matched::by_name(by_name, true);
    }
    let are_older = catalog.iter().all(|column| column.older);
    let was_the_same = is_as_it_was(catalog, forms);
    if catalog.iter().any(|column| column.listed) {
        let certain = (are_older || was_the_same) && is_by_name(described, &by_name, forms);
        return Matched::by_name(by_name, certain);
    }
    let is_the_same = is_as_it_is(described, &by_name, catalog);
    if is_the_same && was_the_same {
        return Matched::by_name(by_name, true);
    }
    let alignment = Alignment::of(described, catalog, forms, layouts);
    if is_the_same && are_older && alignment.leaves_one_way(0) {
        return Matched::by_name(by_name, true);
    }
    let Some(columns) = alignment.best() else { return Matched::by_name(by_name, false) };
    Matched {
        columns: columns.iter().map(|column| Some(&catalog[*column])).collect(),
        certain: alignment.is_certain(),
        exact: alignment.leaves_one_column_each(),
    }
}

/// Whether every column is there under its name, with its type, and was no other one before.
fn is_by_name(
    described: &[RelationColumn],
    by_name: &[Option<&CatalogColumn>],
    forms: &[&Form],
) -> bool {
    let was = |found: &CatalogColumn| {
        let before = forms.iter().flat_map(|form| &form.columns);
        before
            .filter(|column| column.name == found.name)
            .all(|column| column.number == found.number)
    };
    let pairs = described.iter().zip(by_name);
    pairs
        .into_iter()
        .all(|(column, found)| found.is_some_and(|found| found.has_type_of(column) && was(found)))
}

/// Whether each column of the description is there under its name with its type, and none was there already
/// that has no place in the description.
fn is_as_it_is(
    described: &[RelationColumn],
    by_name: &[Option<&CatalogColumn>],
    catalog: &[CatalogColumn],
) -> bool {
    let mut last = 0;
    for (column, found) in described.iter().zip(by_name) {
        let Some(found) = found else { return false };
        let passed =
            catalog.iter().filter(|other| (last + 1..found.number).contains(&other.number));
        let grew = found.number > last && passed.into_iter().all(|other| !other.is_due());
        if !grew || !found.has_type_of(column) {
            return false;
        }
        last = found.number;
    }
    true
}

/// Whether nothing was dropped since any of the forms, or ever where there is none, so that names tell.
fn is_as_it_was(catalog: &[CatalogColumn], forms: &[&Form]) -> bool {
    let is_there = |number: i16, name: &str| {
        catalog
            .iter()
            .any(|column| column.number == number && column.name == name && !column.dropped)
    };
    let columns = forms.iter().flat_map(|form| &form.columns);
    let last = forms.iter().map(|form| form.last).max().unwrap_or(0);
    columns.into_iter().all(|column| is_there(column.number, &column.name))
        && catalog.iter().all(|column| column.number <= last || !column.dropped)
}

impl CatalogColumn {
    /// Whether a description that has a column after it has this one, too.
    fn is_due(&self) -> bool {
        !self.dropped && !self.generated
    }

    fn has_type_of(&self, column: &RelationColumn) -> bool {
        self.type_of == (column.type_oid, column.type_modifier)
    }
}

/// Two names that nobody saw, or another type.
const MUCH: u16 = 2;

/// What speaks against the ways to go through both lists, at least. A way that costs nothing is one in which every
/// column has a name and a type that it is known to have had.
struct Alignment<'a> {
    described: &'a [RelationColumn],
    catalog: &'a [CatalogColumn],
    forms: &'a [&'a Form],
    layouts: &'a HashMap<Oid, Layout>,
    /// Of what is before a column of each, and of what is from there on. `None`: there is no way.
    before: Vec<Vec<Option<u16>>>,
    after: Vec<Vec<Option<u16>>>,
}

impl<'a> Alignment<'a> {
    fn of(
        described: &'a [RelationColumn],
        catalog: &'a [CatalogColumn],
        forms: &'a [&'a Form],
        layouts: &'a HashMap<Oid, Layout>,
    ) -> Alignment<'a> {
        let (columns, names) = (catalog.len(), described.len());
        let before = vec![vec![None; names + 1]; columns + 1];
        let after = before.clone();
        let mut found = Alignment { described, catalog, forms, layouts, before, after };
        found.before[0][0] = Some(0);
        for column in 0..columns {
            for name in 0..=names {
                let Some(here) = found.before[column][name] else { continue };
                if found.may_pass(column, name) {
                    let next = &mut found.before[column + 1][name];
                    *next = least(*next, Some(here));
                }
                if found.may_take(column, name) {
                    let cost = here + found.cost(column, name);
                    let next = &mut found.before[column + 1][name + 1];
                    *next = least(*next, Some(cost));
                }
            }
        }
        found.after[columns][names] = Some(0);
        for column in (0..columns).rev() {
            for name in 0..=names {
                found.after[column][name] =
                    least(found.passed(column, name), found.taken(column, name));
            }
        }
        found
    }

    /// The least from here on if the column is not described.
    fn passed(&self, column: usize, name: usize) -> Option<u16> {
        self.after[column + 1][name].filter(|_| self.may_pass(column, name))
    }

    /// The least from here on if it is the one that has the name.
    fn taken(&self, column: usize, name: usize) -> Option<u16> {
        let after = self.after[column + 1].get(name + 1).copied().flatten();
        let after = after.filter(|_| self.may_take(column, name));
        after.map(|after| after + self.cost(column, name))
    }

    /// One that was dropped or is computed need not be described, nor one that may have been added since.
    fn may_pass(&self, column: usize, name: usize) -> bool {
        let catalog = &self.catalog[column];
        !catalog.is_due() || (name == self.described.len() && !self.is_older(catalog))
    }

    /// One that is computed was always, and mostly is in no description at all, unless by a name of its own.
    fn may_take(&self, column: usize, name: usize) -> bool {
        let Some(described) = self.described.get(name) else { return false };
        let catalog = &self.catalog[column];
        let was_there = |form: &&Form| {
            catalog.number > form.last
                || form.columns.iter().any(|known| known.number == catalog.number)
        };
        self.forms.iter().all(was_there)
            && (!catalog.generated || self.has_name(catalog, &described.name))
    }

    /// Whether it was there already when one of the forms was seen.
    fn is_older(&self, column: &CatalogColumn) -> bool {
        self.forms.iter().any(|form| column.number <= form.last)
    }

    fn cost(&self, column: usize, name: usize) -> u16 {
        let (catalog, described) = (&self.catalog[column], &self.described[name]);
        // Nobody knows what one was called that came and went since.
        let came_and_went = catalog.dropped
            && !self.forms.is_empty()
            && self.names_before(catalog.number).next().is_none();
        let has_name = came_and_went || self.has_name(catalog, &described.name);
        let has_type = match catalog.dropped {
            true => {
                let layout = self.layouts.get(&described.type_oid);
                layout.is_none_or(|layout| *layout == catalog.layout)
            }
            false => catalog.has_type_of(described),
        };
        // Another type may not fit where the column is stored.
        u16::from(!has_name) + MUCH * u16::from(!has_type)
    }

    /// Whether a column has the name, or had it.
    fn has_name(&self, column: &CatalogColumn, name: &str) -> bool {
        column.name == name || self.names_before(column.number).any(|before| before == name)
    }

    fn names_before(&self, number: i16) -> impl Iterator<Item = &str> {
        let columns = self.forms.iter().flat_map(|form| &form.columns);
        columns.filter(move |known| known.number == number).map(|known| known.name.as_str())
    }

    /// One of the ways that cost least; of several the one that has more of what is there now.
    fn best(&self) -> Option<Vec<usize>> {
        self.after[0][0]?;
        let (mut column, mut taken) = (0, Vec::with_capacity(self.described.len()));
        while column < self.catalog.len() {
            let (pass, take) = (self.passed(column, taken.len()), self.taken(column, taken.len()));
            let is_better = match (pass, take) {
                (Some(pass), Some(take)) if pass == take => !self.catalog[column].dropped,
                (pass, take) => take.is_some_and(|take| pass.is_none_or(|pass| take < pass)),
            };
            if is_better {
                taken.push(column);
            }
            column += 1;
        }
        Some(taken)
    }

    /// Whether one way alone is left for the columns that are there now, or one costs nothing and the others much.
    fn is_certain(&self) -> bool {
        let best = self.after[0][0];
        self.leaves_one_way(u16::MAX) || (best == Some(0) && self.leaves_one_way(MUCH - 1))
    }

    /// Whether no column that is there now may be one name or another, or a name another column, in ways that cost
    /// at most this.
    fn leaves_one_way(&self, most: u16) -> bool {
        (0..self.described.len()).all(|name| {
            let columns: Vec<usize> = self.may_be(name, most).collect();
            columns.len() == 1 || columns.iter().all(|column| self.catalog[*column].dropped)
        })
    }

    /// Whether every name is one column, be it dropped or not, in all ways there are.
    fn leaves_one_column_each(&self) -> bool {
        (0..self.described.len()).all(|name| self.may_be(name, u16::MAX).count() == 1)
    }

    /// The columns that may have the name, in ways that cost at most this.
    fn may_be(&self, name: usize, most: u16) -> impl Iterator<Item = usize> {
        (0..self.catalog.len()).filter(move |column| {
            let whole = self.before[*column][name].zip(self.taken(*column, name));
            whole.is_some_and(|(before, after)| before.saturating_add(after) <= most)
        })
    }
}

/// The lesser one of those that are there.
fn least(one: Option<u16>, other: Option<u16>) -> Option<u16> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom as _;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::hop::FormColumn;
    use crate::position::Lsn;

    const INT: Oid = 23;
    const BIGINT: Oid = 20;
    const TEXT: Oid = 25;

    fn layouts() -> HashMap<Oid, Layout> {
        [(INT, (4, "i")), (BIGINT, (8, "d")), (TEXT, (-1, "i"))]
            .map(|(oid, (length, align))| (oid, (length, align.to_owned())))
            .into()
    }

    /// A column as `name`, or `name int`; in the catalog also `-` or `- int` for one that was dropped, and `=name`
    /// for one that is computed.
    fn parse(column: &str) -> (String, Oid) {
        let (name, kind) = column.split_once(' ').unwrap_or((column, "text"));
        let oid = match kind {
            "int" => INT,
            "bigint" => BIGINT,
            _ => TEXT,
        };
        (name.to_owned(), oid)
    }

    fn catalog(columns: &[&str]) -> Vec<CatalogColumn> {
        let column = |(number, column): (i16, &&str)| {
            let (name, oid) = parse(column);
            CatalogColumn {
                number,
                dropped: name == "-",
                generated: name.starts_with('='),
                name: name.trim_start_matches('=').to_owned(),
                type_of: (oid, -1),
                layout: layouts()[&oid].clone(),
                ..CatalogColumn::default()
            }
        };
        (1..).zip(columns).map(column).collect()
    }

    /// What a catalog like this was seen as.
    fn form(columns: &[&str]) -> Form {
        let there = |(number, column): (i16, &&str)| {
            let (name, oid) = parse(column);
            (name != "-").then_some(FormColumn {
                number,
                name,
                type_of: (oid, -1),
                generated: false,
            })
        };
        let last = i16::try_from(columns.len()).unwrap();
        let columns = (1..).zip(columns).filter_map(there).collect();
        Form { at: Lsn(1), files: Vec::new(), columns, last }
    }

    fn described(columns: &[&str]) -> Vec<RelationColumn> {
        let column = |(name, type_oid)| RelationColumn {
            identity: false,
            name,
            type_oid,
            type_modifier: -1,
        };
        columns.iter().map(|text| column(parse(text))).collect()
    }

    /// The numbers that are found, and whether that is certain.
    fn numbers(described: &[&str], columns: &[&str], forms: &[&[&str]]) -> (Vec<i16>, bool) {
        let catalog = catalog(columns);
        let forms: Vec<_> = forms.iter().map(|columns| form(columns)).collect();
        let forms: Vec<_> = forms.iter().collect();
        let found = matched(&self::described(described), &catalog, &forms, &layouts());
        let numbers = found.columns.iter().map(|found| found.map_or(0, |found| found.number));
        (numbers.collect(), found.certain)
    }

    #[track_caller]
    fn certain(described: &[&str], columns: &[&str], forms: &[&[&str]], wanted: &[i16]) {
        assert_eq!(numbers(described, columns, forms), (wanted.to_vec(), true));
    }

    #[track_caller]
    fn uncertain(described: &[&str], columns: &[&str], forms: &[&[&str]]) {
        let found = numbers(described, columns, forms);
        assert!(!found.1, "{found:?}");
    }

    #[test]
    fn columns_that_were_renamed_since_are_found_at_their_places() {
        certain(&["id", "a", "z"], &["id", "b", "z"], &[], &[1, 2, 3]);
        certain(&["id", "a"], &["id", "b"], &[], &[1, 2]);
        certain(&["a", "b"], &["c", "d"], &[], &[1, 2]);
        certain(&["id", "a", "b"], &["id", "b", "a"], &[], &[1, 2, 3]);
        certain(&["id", "a"], &["id", "b", "c"], &[], &[1, 2]);
        certain(&["id", "a"], &["id", "old_a", "a"], &[], &[1, 2]);
        certain(&["id", "a", "z"], &["id", "-", "b", "z"], &[&["id", "-", "a", "z"]], &[1, 3, 4]);
        certain(&["id", "a", "b"], &["id", "b bigint", "a int"], &[], &[1, 2, 3]);
        let before = ["id", "title", "b", "note", "n int"];
        let now = ["id", "b", "title", "-", "n int", "-", "note"];
        certain(&before, &now, &[&before], &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn columns_that_were_dropped_since_have_the_numbers_at_their_places() {
        certain(&["id", "a", "z"], &["id", "-", "z"], &[], &[1, 2, 3]);
        certain(&["id", "a", "b"], &["id", "-", "-"], &[], &[1, 2, 3]);
        certain(&["id", "a", "z"], &["id", "-", "-", "z"], &[&["id", "b", "a", "z"]], &[1, 3, 4]);
        certain(&["id", "a"], &[], &[], &[0, 0]);
    }

    #[test]
    fn a_column_that_was_gone_is_none_of_those_described_since() {
        let before = ["id", "-", "a", "b"];
        certain(&["id", "b", "a"], &["id", "-", "-", "b", "a"], &[&before], &[1, 4, 5]);
        let now = ["id", "-", "-", "b", "a"];
        certain(&["id", "a", "b"], &now, &[&before], &[1, 3, 4]);
    }

    #[test]
    fn a_column_given_again_is_told_by_its_place_by_its_type_or_not_at_all() {
        certain(&["id", "a", "z"], &["id", "-", "z", "a"], &[&["id", "a", "z"]], &[1, 2, 3]);
        certain(&["id", "z", "a"], &["id", "-", "z", "a"], &[&["id", "a", "z"]], &[1, 3, 4]);
        let last = ["id", "a int"];
        certain(&last, &["id", "- int", "a bigint"], &[&last], &[1, 2]);
        certain(&["id", "a bigint"], &["id", "- int", "a bigint"], &[&last], &[1, 3]);
        uncertain(&last, &["id", "- int", "a int"], &[&last]);
        // One may have been renamed first, or the other one since.
        uncertain(&["id", "b int"], &["id", "- int", "b int"], &[&last]);
        uncertain(&last, &["id", "- int", "b int"], &[&last]);
        certain(&last, &["id", "- int", "b"], &[&last], &[1, 2]);
    }

    #[test]
    fn a_catalog_that_was_not_changed_since_is_what_is_described() {
        let matched_if = |older, names: [&str; 2], now: [&str; 3]| {
            let columns = catalog(&now).into_iter();
            let columns: Vec<_> = columns.map(|column| CatalogColumn { older, ..column }).collect();
            matched(&described(&names), &columns, &[&form(&["id", "a"])], &layouts()).certain
        };
        assert!(matched_if(true, ["id", "b"], ["id", "-", "b"]));
        assert!(!matched_if(false, ["id", "b"], ["id", "-", "b"]));
        assert!(!matched_if(true, ["id", "a"], ["id", "-", "a"]), "its change may have waited");
    }

    #[test]
    fn what_a_description_before_had_is_there_or_was_dropped() {
        let (seen, now) = (["id", "a"], ["id", "-", "a"]);
        let described_before = ["id", "a", "a_new"];
        certain(&["id", "a"], &now, &[&seen, &described_before], &[1, 3]);
    }

    /// Columns that come, go and get names that others had, one of them at most under a name that nobody saw.
    fn history(random: &mut StdRng) -> Vec<Vec<String>> {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let mut columns: Vec<String> = ["id", "a", "b int", "c"].map(String::from).into();
        let (mut history, mut may_rename) = (vec![columns.clone()], true);
        for _ in 0..random.random_range(1..8) {
            let is_free = |name: &&&str| columns.iter().all(|column| parse(column).0 != ***name);
            let free: Vec<&str> = NAMES.iter().filter(is_free).copied().collect();
            let is_there = |at: &usize| !columns[*at].starts_with('-');
            let there: Vec<usize> = (1..columns.len()).filter(is_there).collect();
            let kind = ["", " int"][random.random_range(0..2)];
            let (name, at) = (free.choose(random), there.choose(random).copied());
            match (random.random_range(0..5), name, at) {
                (0 | 1, Some(name), _) => columns.push(format!("{name}{kind}")),
                (2 | 3, _, Some(at)) => columns[at].replace_range(0..1, "-"),
                (4, Some(name), Some(at)) if std::mem::take(&mut may_rename) => {
                    columns[at].replace_range(0..1, name);
                }
                _ => continue,
            }
            history.push(columns.clone());
        }
        history
    }

    /// Descriptions one after the other, of which each tells of the next.
    #[test]
    fn what_is_certain_is_right_however_columns_came_and_went() {
        let (mut certain, mut open) = (0, 0);
        for seed in 0..4000 {
            let mut random = StdRng::seed_from_u64(seed);
            let history = history(&mut random);
            let texts = |at: usize| history[at].iter().map(String::as_str).collect::<Vec<_>>();
            let now = catalog(&texts(history.len() - 1));
            let first = random.random_range(0..history.len());
            let mut forms = vec![form(&texts(first))];
            for at in (first..history.len()).filter(|_| random.random_range(0..2) == 0) {
                let there = (1..).zip(texts(at)).filter(|(_, column)| !column.starts_with('-'));
                let (truth, names): (Vec<i16>, Vec<&str>) = there.unzip();
                let (names, known) = (described(&names), forms.iter().collect::<Vec<_>>());
                let Matched { columns, certain: is_certain, exact } =
                    matched(&names, &now, &known, &layouts());
                if !is_certain {
                    open += 1;
                    break;
                }
                certain += 1;
                let found: Vec<_> = columns.into_iter().flatten().collect();
                for (found, truth) in found.iter().zip(&truth) {
                    let is_there =
                        |number: i16| now.iter().any(|c| c.number == number && !c.dropped);
                    let right = found.number == *truth
                        || !(exact || is_there(found.number) || is_there(*truth));
                    assert!(right, "seed {seed}: {history:?} {at}: {} {truth}", found.number);
                }
                if exact {
                    let pairs = found.iter().zip(&names);
                    let columns = pairs.map(|(found, described)| FormColumn {
                        number: found.number,
                        name: described.name.clone(),
                        type_of: (0, -1),
                        generated: false,
                    });
                    let columns: Vec<_> = columns.collect();
                    let last = columns.last().map_or(0, |column| column.number);
                    forms.truncate(1);
                    forms.push(Form { at: Lsn(1), files: Vec::new(), columns, last });
                }
            }
        }
        assert!(certain > 5 * open, "{certain} {open}");
    }

    #[test]
    fn names_that_nobody_saw_leave_it_open_where_there_are_two_ways() {
        uncertain(&["id", "x", "y"], &["id", "-", "b", "c"], &[&["id", "a", "b"]]);
        uncertain(&["id", "a"], &["id", "-", "b"], &[]);
        certain(&["id", "a", "b"], &["id", "-", "a", "b"], &[], &[1, 3, 4]);
    }

    #[test]
    fn a_computed_column_is_described_under_its_name_or_not_at_all() {
        certain(&["id", "a", "b"], &["id", "b", "a", "=sum"], &[], &[1, 2, 3]);
        certain(&["id", "a", "b"], &["id", "=sum", "a", "b"], &[], &[1, 3, 4]);
        certain(&["id", "sum", "b"], &["id", "=sum", "a"], &[], &[1, 2, 3]);
        let before = ["id", "sum"];
        uncertain(&before, &["id", "=total", "x"], &[&before]);
        certain(&before, &["id", "=total", "x int"], &[&before], &[1, 2]);
    }
}
