//! The statements that make tables and views. Pure text; [`super::shape`] runs them.
//!
//! `<table>_versions` holds every version of a row that merges have not dropped yet, and the view
//! `<table>` the rows as they are now:
//!
//! * By default the engine is `ReplacingMergeTree(_version, _deleted)` sorted by the key, and the
//!   view reads it with `FINAL`.
//! * With a sorting key or partitioning of the user's own, versions of one row lie apart and the
//!   engine cannot collapse them. The view then takes the newest version per key itself, before
//!   it looks at `_deleted`: a deletion's other columns are empty and its place is arbitrary, and
//!   a filter on them must not hide it from the rows it deletes.
//! * `dedup = "argmax"` keeps all versions in a `MergeTree` and uses that same view.
//!
//! A table without key takes `_version` for one: it is unique per row, whatever the partition that the row
//! came from, and the same in a replay.
//!
//! Rows up to the table's last truncate are filtered by version, so it does not matter when they
//! arrive.

use super::names::{OWN_PREFIX, literal, quoted};
use super::options::{Dedup, Plan};
use super::types::Type;

/// The columns that every versions table has besides the source's, in the order they are sent.
pub(super) const META: [(&str, &str); 4] = [
    ("_version", "UInt128"),
    ("_deleted", "UInt8"),
    ("_commit_time", "DateTime64(6, 'UTC')"),
    ("_exact", "Map(String, Nullable(String))"),
];

/// Tells of every 131,072 rows how new they are, so that a start finds the newest without reading the
/// table.
const NEWEST: &str = "INDEX _newest _version TYPE minmax GRANULARITY 16";

/// Bytes, not compressed, from which a part has files of its own for each column. An insert is below it, so that
/// it is a handful of files to make and to bring to the disk, not two or more for each column.
const WIDE: usize = 64 << 20;

/// A column as ClickHouse has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredColumn {
    /// In the versions table. It is the name that the source had for it first.
    pub(super) name: String,
    /// In the view: the name that the source has for it.
    pub(super) shown: String,
    pub(super) ty: Type,
    pub(super) key: bool,
    /// SQL expression for rows that were written before the column was.
    pub(super) default: Option<String>,
    /// The comment that tells which column of the source it is, whatever that is called.
    pub(super) mark: Option<String>,
}

impl StoredColumn {
    /// `name Type DEFAULT … COMMENT …`
    pub(super) fn definition(&self) -> String {
        let default = self.default.as_ref().map(|default| format!(" DEFAULT {default}"));
        let mark = self.mark.as_ref().map(|mark| format!(" COMMENT {}", literal(mark)));
        let (default, mark) = (default.unwrap_or_default(), mark.unwrap_or_default());
        format!("{} {}{default}{mark}", quoted(&self.name), self.ty)
    }
}

/// Where things are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The database, unquoted.
    pub(super) database: String,
    pub(super) plan: Plan,
}

impl Place {
    /// The versions table's name, unquoted.
    pub(super) fn versions_name(&self) -> String {
        self.plan.versions_name()
    }

    /// The versions table in full, quoted.
    pub(super) fn versions(&self) -> String {
        self.full(&self.versions_name())
    }

    fn full(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(name))
    }

    fn on_cluster(&self) -> String {
        on_cluster(self.plan.cluster.as_deref())
    }

    /// The sorting key's expressions.
    pub(super) fn sorting(&self, columns: &[StoredColumn]) -> Vec<String> {
        let own = self.plan.order_by.iter().cloned();
        let key = key_of(columns).into_iter().filter(|name| !self.plan.order_by.contains(name));
        let mut sorting: Vec<_> = own.chain(key.map(|name| quoted(&name))).collect();
        if self.plan.dedup == Dedup::Argmax
            && sorting.last().is_none_or(|last| last != "`_version`")
        {
            sorting.push("`_version`".into());
        }
        sorting
    }

    /// The engine's name without parameters.
    pub(super) fn engine(&self) -> String {
        let engine = match self.plan.dedup {
            Dedup::Replacing => "ReplacingMergeTree",
            Dedup::Argmax => "MergeTree",
        };
        format!("{}{engine}", replicated(self.plan.cluster.as_deref()))
    }

    /// Makes the versions table.
    pub(super) fn create_versions(&self, columns: &[StoredColumn], comment: &str) -> String {
        let meta = META.iter().map(|(name, ty)| format!("{name} {ty}"));
        let definitions: Vec<_> = columns
            .iter()
            .map(StoredColumn::definition)
            .chain(meta)
            .chain([NEWEST.into()])
            .collect();
        let parameters = match self.plan.dedup {
            Dedup::Replacing => "(_version, _deleted)",
            Dedup::Argmax => "",
        };
        let partition = self.plan.partition_by.as_ref();
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} ({}) ENGINE = {}{parameters}{} ORDER BY ({}) \
             SETTINGS non_replicated_deduplication_window = 100, allow_nullable_key = 1, \
             min_bytes_for_wide_part = {WIDE}{} COMMENT {}",
            self.versions(),
            self.on_cluster(),
            definitions.join(", "),
            self.engine(),
            partition.map(|by| format!(" PARTITION BY {by}")).unwrap_or_default(),
            self.sorting(columns).join(", "),
            durable(self.plan.cluster.as_deref()).map(|set| format!(", {set}")).unwrap_or_default(),
            literal(comment),
        )
    }

    /// Changes the versions table.
    pub(super) fn alter_versions(&self, changes: &[String]) -> String {
        format!("ALTER TABLE {}{} {}", self.versions(), self.on_cluster(), changes.join(", "))
    }

    /// Makes the view, or makes it anew.
    pub(super) fn create_view(&self, columns: &[StoredColumn], comment: &str) -> String {
        let select = match self.plan.dedup == Dedup::Replacing && !self.plan.scatters_versions() {
            true => self.select_final(columns),
            false => self.select_newest(columns),
        };
        let view = self.full(&self.plan.view);
        let (cluster, comment) = (self.on_cluster(), literal(comment));
        format!("CREATE OR REPLACE VIEW {view}{cluster} AS {select} COMMENT {comment}")
    }

    fn select_final(&self, columns: &[StoredColumn]) -> String {
        let (versions, since) = (self.versions(), self.last_truncate());
        let (names, alias) = shown(columns, |column| quoted(&column.name));
        format!(
            "SELECT {names} FROM {versions}{alias} FINAL WHERE _deleted = 0 AND _version > {since}"
        )
    }

    fn select_newest(&self, columns: &[StoredColumn]) -> String {
        let rest = columns.iter().filter(|column| !column.key).map(|column| quoted(&column.name));
        let rest: Vec<_> = rest.chain(["_deleted".to_owned()]).collect();
        let mut place = 0;
        let (outer, alias) = shown(columns, |column| {
            if column.key {
                return quoted(&column.name);
            }
            place += 1;
            format!("tupleElement(_tailwater_row, {place})")
        });
        let key: Vec<_> = key_of(columns).iter().map(|name| quoted(name)).collect();
        let (key, deleted) = (key.join(", "), rest.len());
        let (versions, since) = (self.versions(), self.last_truncate());
        format!(
            "SELECT {outer} FROM (SELECT {key}, argMax(tuple({}), _version) AS _tailwater_row \
             FROM {versions} WHERE _version > {since} GROUP BY {key} \
             HAVING tupleElement(_tailwater_row, {deleted}) = 0){alias}",
            rest.join(", "),
        )
    }

    fn last_truncate(&self) -> String {
        let truncates = self.full(&format!("{OWN_PREFIX}truncates"));
        format!("(SELECT max(version) FROM {truncates} WHERE name = {})", literal(&self.plan.view))
    }
}

/// The columns of a view under the source's names, and what goes behind the table that it selects from.
/// To ClickHouse a name is first of all one that the statement itself gives, so where columns were renamed
/// those of the table are told from them by the table.
fn shown(
    columns: &[StoredColumn],
    mut expression: impl FnMut(&StoredColumn) -> String,
) -> (String, &'static str) {
    let renamed = columns.iter().any(|column| column.name != column.shown);
    let select = columns.iter().map(|column| {
        let (expression, shown) = (expression(column), quoted(&column.shown));
        match renamed && expression.starts_with('`') {
            true => format!("_tailwater_versions.{expression} AS {shown}"),
            false if expression == shown => shown,
            false => format!("{expression} AS {shown}"),
        }
    });
    let select = select.collect::<Vec<_>>().join(", ");
    (select, if renamed { " AS _tailwater_versions" } else { "" })
}

/// What tells rows apart: the key, or the version where there is none.
pub(super) fn key_of(columns: &[StoredColumn]) -> Vec<String> {
    let key: Vec<_> =
        columns.iter().filter(|column| column.key).map(|column| column.name.clone()).collect();
    match key.is_empty() {
        true => vec!["_version".into()],
        false => key,
    }
}

/// The sink's own tables: truncates, finished snapshots, the source's cluster, dead letters.
pub(super) fn own_tables(database: &str, cluster: Option<&str>) -> Vec<String> {
    let tables = [
        ("truncates", "name String, version UInt128", "version", "name"),
        (
            "snapshots",
            "pipeline String, source_schema String, source_table String, consistent_at UInt64, \
             table_oid UInt32, terms Int64, key Array(String), form String",
            "consistent_at",
            "pipeline, source_schema, source_table",
        ),
        (
            "sources",
            "pipeline String, system_identifier UInt64, timeline UInt32, confirmed UInt64",
            "confirmed",
            "pipeline",
        ),
        (
            "dead_letters",
            "version UInt128, position String, source_table String, op String, stage String, \
             plugin String, plugin_digest String, reason String, original String, \
             backtrace String, replay String",
            "",
            // Changes that could not even be read have no position to tell them apart.
            "source_table, version, stage, plugin, sipHash64(original)",
        ),
    ];
    let create = |(name, columns, newest, order): (&str, &str, &str, &str)| {
        format!(
            "CREATE TABLE IF NOT EXISTS {}.{}{} ({columns}) \
             ENGINE = {}ReplacingMergeTree({newest}) ORDER BY ({order}){}",
            quoted(database),
            quoted(&format!("{OWN_PREFIX}{name}")),
            on_cluster(cluster),
            replicated(cluster),
            durable(cluster).map(|set| format!(" SETTINGS {set}")).unwrap_or_default(),
        )
    };
    // Of databases from before there was this column.
    let form = format!(
        "ALTER TABLE {}.{}{} ADD COLUMN IF NOT EXISTS form String",
        quoted(database),
        quoted(&format!("{OWN_PREFIX}snapshots")),
        on_cluster(cluster),
    );
    tables.into_iter().map(create).chain([form]).collect()
}

pub(super) fn on_cluster(cluster: Option<&str>) -> String {
    cluster.map(|name| format!(" ON CLUSTER {}", quoted(name))).unwrap_or_default()
}

/// An insert that is answered outlives a loss of power: what is acknowledged to the source is forgotten
/// there. What was merged is on the disk long before its parts are removed. In a cluster the copies on other
/// machines are for that.
fn durable(cluster: Option<&str>) -> Option<&'static str> {
    cluster.is_none().then_some("fsync_after_insert = 1, fsync_part_directory = 1")
}

fn replicated(cluster: Option<&str>) -> &'static str {
    match cluster {
        Some(_) => "Replicated",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<StoredColumn> {
        let column = |name: &str, ty: &str, key| StoredColumn {
            name: name.into(),
            shown: name.into(),
            ty: Type::parse(ty).unwrap(),
            key,
            default: None,
            mark: None,
        };
        vec![column("id", "Int32", true), column("it`s", "Nullable(String)", false)]
    }

    fn place(dedup: Dedup, order_by: &[&str]) -> Place {
        let plan = Plan {
            view: "users".into(),
            dedup,
            order_by: order_by.iter().map(|&column| column.into()).collect(),
            partition_by: None,
            cluster: None,
        };
        Place { database: "shop".into(), plan }
    }

    #[test]
    fn the_plain_table_sorts_by_its_key_and_is_read_with_final() {
        let place = place(Dedup::Replacing, &[]);
        let create = place.create_versions(&columns(), "public.users");
        assert!(
            create.contains("ReplacingMergeTree(_version, _deleted) ORDER BY (`id`)"),
            "{create}"
        );
        assert!(create.contains("`it\\`s` Nullable(String)"), "{create}");
        assert!(create.contains(", fsync_after_insert = 1, fsync_part_directory = 1 COMMENT"));
        let own = own_tables("shop", None);
        assert!(own.iter().filter(|sql| sql.starts_with("CREATE")).all(|sql| {
            sql.ends_with(" SETTINGS fsync_after_insert = 1, fsync_part_directory = 1")
        }));
        assert!(
            place.create_view(&columns(), "public.users").contains(" FINAL WHERE _deleted = 0")
        );
    }

    #[test]
    fn versions_that_lie_apart_are_compared_before_deletions_count() {
        for place in [place(Dedup::Replacing, &["lang"]), place(Dedup::Argmax, &[])] {
            let view = place.create_view(&columns(), "public.users");
            assert!(view.contains("argMax(tuple(`it\\`s`, _deleted), _version)"), "{view}");
            assert!(view.contains("GROUP BY `id` HAVING tupleElement(_tailwater_row, 2) = 0"));
        }
        let sorting = place(Dedup::Argmax, &["id"]).sorting(&columns());
        assert_eq!(sorting, ["id", "`_version`"]);
    }

    #[test]
    fn a_renamed_column_is_told_from_the_one_that_has_its_name_now() {
        let mut columns = columns();
        columns[0].shown = "number".into();
        columns[1].shown = "id".into();
        let view = place(Dedup::Replacing, &[]).create_view(&columns, "public.users");
        assert!(
            view.contains(
                "SELECT _tailwater_versions.`id` AS `number`, _tailwater_versions.`it\\`s` AS `id` \
                 FROM `shop`.`users_versions` AS _tailwater_versions FINAL WHERE"
            ),
            "{view}"
        );
        let view = place(Dedup::Argmax, &[]).create_view(&columns, "public.users");
        assert!(
            view.contains(
                "SELECT _tailwater_versions.`id` AS `number`, tupleElement(_tailwater_row, 1) AS `id` \
                 FROM (SELECT `id`, argMax(tuple(`it\\`s`, _deleted)"
            ),
            "{view}"
        );
        assert!(view.contains("= 0) AS _tailwater_versions COMMENT"), "{view}");
    }

    #[test]
    fn a_cluster_replicates_and_is_named_everywhere() {
        let mut place = place(Dedup::Replacing, &[]);
        place.plan.cluster = Some("main".into());
        let create = place.create_versions(&columns(), "public.users");
        assert!(create.contains("ON CLUSTER `main` (") && create.contains("ReplicatedReplacing"));
        assert!(!create.contains("fsync"), "the other copies are enough: {create}");
        assert!(own_tables("shop", Some("main")).iter().all(|sql| sql.contains("ON CLUSTER")));
    }
}
