//! Members of a JSON document become columns of their own, of declared types; what is no JSON, or has
//! no such member, gives NULL. The document itself can be dropped.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use tailwater_guest::{Interest, Reshape, Rewriter, Row, Shape, Table, Verdict, export_reshape};

/// Its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column with the document.
    pub column: String,
    /// New columns: the member's path, `address.city`, and its type.
    pub members: BTreeMap<String, Member>,
    /// Whether the document goes no further.
    #[serde(default)]
    pub drop: bool,
}

/// A member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Names, separated by dots.
    pub path: String,
    /// As PostgreSQL prints it. Default: text.
    #[serde(rename = "type", default = "text")]
    pub type_name: String,
}

fn text() -> String {
    "text".to_owned()
}

/// The plugin.
pub struct FlattenJson(Config);

impl Reshape for FlattenJson {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(FlattenJson(config))
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        Ok(table.has(&self.0.column).then(|| Interest::of([&self.0.column])))
    }

    fn reshape(&mut self, _: &Table) -> Result<Shape, String> {
        let members = self.0.members.iter();
        let shape = members
            .fold(Shape::default(), |shape, (name, member)| shape.derive(name, &member.type_name));
        Ok(if self.0.drop { shape.drop(&self.0.column) } else { shape })
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        if row.is_unchanged(0) {
            (0..self.0.members.len()).for_each(|column| out.derive_unchanged(column));
            return Verdict::Keep;
        }
        let document = row.text(0).and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let Some(document) = document else { return Verdict::Keep };
        for (column, member) in self.0.members.values().enumerate() {
            let found = member.path.split('.').try_fold(document, member_of);
            if let Some(text) = found.and_then(|value| plain(value, &member.type_name)) {
                out.derive(column, text);
            }
        }
        Verdict::Keep
    }
}

fn member_of<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(object.get()).ok()?;
    members.get(name).copied()
}

/// As PostgreSQL casts what `->>` gives: a text without its quotes, a number digit by digit where the type
/// keeps its digits.
fn plain<'a>(value: &'a RawValue, type_name: &str) -> Option<Cow<'a, str>> {
    let text: Cow<'_, str> = match value.get() {
        "null" => return None,
        text if text.starts_with('"') => serde_json::from_str::<String>(text).ok()?.into(),
        other => other.into(),
    };
    let cast = match type_name {
        "boolean" | "bool" if text == "true" => Some("t".to_owned()),
        "boolean" | "bool" if text == "false" => Some("f".to_owned()),
        "smallint" | "integer" | "bigint" | "int" | "int2" | "int4" | "int8" => {
            text.trim().parse::<i64>().ok().map(|number| number.to_string())
        }
        "double precision" | "real" | "float4" | "float8" => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(|number| number.to_string())
        }
        _ => None,
    };
    Some(cast.map_or(text, Cow::from))
}

export_reshape!(FlattenJson);
