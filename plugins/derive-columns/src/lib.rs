//! Columns made of others by a template, `{first} {last}`. Where a column that the template names is
//! NULL, so is what it makes.

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_guest::{Interest, Reshape, Rewriter, Row, Shape, Table, Verdict, export_reshape};

/// Its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The template of each new column.
    pub columns: BTreeMap<String, String>,
}

/// A part of a template.
enum Part {
    Literal(String),
    /// Index into the wanted columns.
    Column(usize),
}

/// The plugin.
pub struct DeriveColumns {
    templates: Vec<(String, Vec<Part>)>,
    wanted: Vec<String>,
}

impl Reshape for DeriveColumns {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let mut wanted = Vec::new();
        let templates = config.columns.into_iter().map(|(name, template)| {
            let parts = parse(&template, &mut wanted).map_err(|why| format!("{name}: {why}"))?;
            Ok((name, parts))
        });
        Ok(DeriveColumns { templates: templates.collect::<Result<_, String>>()?, wanted })
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let all = self.wanted.iter().all(|column| table.has(column));
        Ok(all.then(|| Interest::of(&self.wanted)))
    }

    fn reshape(&mut self, _: &Table) -> Result<Shape, String> {
        let names = self.templates.iter();
        Ok(names.fold(Shape::default(), |shape, (name, _)| shape.derive(name, "text")))
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        for (column, (_, parts)) in self.templates.iter().enumerate() {
            let is_column = |part: &&Part| matches!(part, Part::Column(_));
            let unsent = |part: &Part| matches!(part, Part::Column(of) if row.is_unchanged(*of));
            let gaps = parts.iter().filter(|part| unsent(part)).count();
            if gaps > 0 && gaps == parts.iter().filter(is_column).count() {
                out.derive_unchanged(column);
                continue;
            }
            if gaps > 0 {
                let why = "a value that a template needs was not sent; set REPLICA IDENTITY FULL";
                return Verdict::Fault(why.to_owned());
            }
            let made: Option<String> = parts.iter().map(|part| text(part, row)).collect();
            if let Some(made) = made {
                out.derive(column, made);
            }
        }
        Verdict::Keep
    }
}

fn text<'a>(part: &'a Part, row: &'a Row<'_>) -> Option<&'a str> {
    match part {
        Part::Literal(text) => Some(text),
        Part::Column(column) => row.text(*column),
    }
}

fn parse(template: &str, wanted: &mut Vec<String>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a `{` without its `}`")?;
        parts.push(Part::Literal(literal.to_owned()));
        let index = wanted.iter().position(|known| known == name).unwrap_or(wanted.len());
        if index == wanted.len() {
            wanted.push(name.to_owned());
        }
        parts.push(Part::Column(index));
        rest = after;
    }
    parts.push(Part::Literal(rest.to_owned()));
    Ok(parts)
}

export_reshape!(DeriveColumns);
