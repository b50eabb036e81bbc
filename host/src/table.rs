//! One version of a table's schema, interned: a batch holds it behind an `Arc`, never per row.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One version of a source table's schema. Two versions are the same exactly when their
/// [`fingerprint`](Table::fingerprint)s are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The relation's object id (0 when read from a topic that does not tell it).
    pub oid: u32,
    /// Schema (namespace), unquoted.
    pub schema: String,
    /// Table name, unquoted.
    pub name: String,
    /// Columns in table order.
    pub columns: Vec<Column>,
    /// What the log holds of a row's old version.
    pub identity: ReplicaIdentity,
    /// Columns that make the key of Kafka's records, if those are not the row's key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub message_key: Vec<String>,
    /// The source's table whose rows a plugin puts here; none of a table of the source itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Hash of everything above; see [`Table::new`].
    pub fingerprint: u64,
}

/// A table of the source that rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its object id, which stays when it is renamed (0 if unknown).
    pub oid: u32,
    /// Its name.
    pub name: TableName,
}

impl Origin {
    /// Whether it is the same table, under another name or made anew under this one.
    #[must_use]
    pub fn is(&self, other: &Origin) -> bool {
        self.name == other.name || (self.oid != 0 && self.oid == other.oid)
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// The type, domains resolved to what they are over.
    pub kind: ColumnType,
    /// The type as PostgreSQL prints it: `numeric(18,4)`, `us_zip`, `integer[]`.
    pub type_name: String,
    /// Whether the column may hold NULL.
    pub nullable: bool,
    /// Whether the column belongs to the row's key: the primary key, else the replica identity
    /// index.
    pub key: bool,
    /// The column's default in text form, when it is a constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The column's number in its table (`pg_attribute.attnum`), which stays when it is renamed and is
    /// not given to another one. Unknown of what a plugin added and of what another tool wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i16>,
    /// What rows from before the column hold, in text form (`pg_attribute.attmissingval`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Column {
    /// A nullable column outside of the key, of which no more is known.
    pub fn new(name: impl Into<String>, kind: ColumnType, type_name: impl Into<String>) -> Column {
        Column {
            name: name.into(),
            kind,
            type_name: type_name.into(),
            nullable: true,
            key: false,
            default: None,
            number: None,
            missing: None,
        }
    }

    /// Whether the source does not know the column's type any more, so that nothing tells what its text means.
    #[must_use]
    pub fn has_unknown_type(&self) -> bool {
        self.kind == ColumnType::Other && self.type_name == UNKNOWN_TYPE
    }
}

/// What a type is called that the source has dropped: no column can be of PostgreSQL's own type of that name.
pub const UNKNOWN_TYPE: &str = "unknown";

/// What a column's text means. Types with no case of their own travel as text: [`Other`].
///
/// [`Other`]: ColumnType::Other
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `boolean`: `t` or `f`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `oid`
    Oid,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, with precision and scale if declared
    Numeric(Option<(u16, i16)>),
    /// `money`
    Money,
    /// `text`, `varchar`, `char(n)`, `name`, `citext`
    Text,
    /// `bytea`, hex form
    Bytea,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `xml`
    Xml,
    /// `date`
    Date,
    /// `time` with its fractional digits (0 to 6)
    Time(u8),
    /// `time with time zone`
    Timetz(u8),
    /// `timestamp` with its fractional digits
    Timestamp(u8),
    /// `timestamptz` with its fractional digits
    Timestamptz(u8),
    /// `interval`
    Interval,
    /// `bit(n)`
    Bit(u32),
    /// `bit varying(n)`, `None` without a limit
    Varbit(Option<u32>),
    /// An enumeration, with its labels in order.
    Enum(Vec<String>),
    /// An array of any number of dimensions, in PostgreSQL's `{…}` form.
    Array(Box<ColumnType>),
    /// `point`
    Point,
    /// Anything else, as its text.
    Other,
}

/// PostgreSQL's `REPLICA IDENTITY` setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing: the table takes inserts only.
    Nothing,
    /// The whole old row.
    Full,
    /// The columns of a unique index.
    Index,
}

impl Table {
    /// A table version; the fingerprint is computed here so that equal schemas have equal ones in
    /// every process.
    #[must_use]
    pub fn new(
        oid: u32,
        schema: String,
        name: String,
        columns: Vec<Column>,
        identity: ReplicaIdentity,
    ) -> Table {
        let (message_key, origin, fingerprint) = (Vec::new(), None, 0);
        let table =
            Table { oid, schema, name, columns, identity, message_key, origin, fingerprint };
        table.with_fingerprint()
    }

    /// The table with these columns as the key of Kafka's records.
    #[must_use]
    pub fn with_message_key(self, message_key: Vec<String>) -> Table {
        Table { message_key, fingerprint: 0, ..self }.with_fingerprint()
    }

    /// The table under another name, as no table of the source.
    #[must_use]
    pub fn renamed(&self, name: TableName) -> Table {
        let TableName { schema, name } = name;
        Table { oid: 0, schema, name, ..self.clone() }.with_origin(Some(self.origin()))
    }

    /// The table with rows of that one.
    #[must_use]
    pub fn with_origin(self, origin: Option<Origin>) -> Table {
        Table { origin, fingerprint: 0, ..self }.with_fingerprint()
    }

    /// The source's table that the rows come from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let own = || Origin { oid: self.oid, name: self.full_name() };
        self.origin.clone().unwrap_or_else(own)
    }

    fn with_fingerprint(mut self) -> Table {
        let text = serde_json::to_vec(&self).expect("a table has only plain fields");
        let digest = Sha256::digest(&text);
        self.fingerprint = u64::from_be_bytes(digest[..8].try_into().expect("32 bytes"));
        self
    }

    /// Indices of the key columns, in table order.
    pub fn key(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| column.key).map(|(index, _)| index)
    }

    /// Whether rows can be told apart at all.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.columns.iter().any(|column| column.key)
    }

    /// The index of the column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The name users write in settings: `public.users`.
    #[must_use]
    pub fn full_name(&self) -> TableName {
        TableName { schema: self.schema.clone(), name: self.name.clone() }
    }
}

/// A table's qualified name, printed as `schema.name` without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// Schema (namespace), unquoted.
    pub schema: String,
    /// Table, unquoted.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}
