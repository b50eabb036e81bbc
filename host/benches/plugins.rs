//! What a plugin costs per event, host work included: `cargo xtask bench-plugins`.
//!
//! The batch is made of updates of a table with eleven columns and about 200 bytes a row. A chain of
//! one plugin transforms copies of it, made beforehand; the least of several rounds counts, because
//! on a shared machine everything else is noise.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater::change::{Change, Changes, Old, Op, Transaction};
use tailwater::plugin::{Chain, Golden, Options, Runtime, Stage, StateStore};
use tailwater::position::Lsn;
use tailwater::table::{Column, ColumnType, ReplicaIdentity, Table};
use tailwater::telemetry::metrics::Metrics;
use tailwater_project::{Installed, Language, Role};
use tailwater_test_support::{Scratch, guests};

/// Rows a call is shown.
const BATCHES: [usize; 4] = [1, 16, 256, 4096];
/// Rows a round transforms at least, so that the clock's own cost does not show.
const ROUND_ROWS: usize = 2048;
/// How long a cell of the table is measured.
const MEASURE: Duration = Duration::from_millis(600);
/// Rounds a cell is measured at least, however slow.
const ROUNDS_MIN: u32 = 5;

/// Rows of a batch of the stream in which a plugin is swapped.
const SWAP_ROWS: usize = 256;
/// Batches after which the version before is let go, and some more.
const PROBATION_BATCHES: usize = 60;
/// How long the largest component may take to compile.
const SWAP_PATIENCE: Duration = Duration::from_secs(300);

/// One plugin of the table.
struct Subject {
    title: &'static str,
    file: fn() -> anyhow::Result<PathBuf>,
    settings: &'static str,
}

const SCRIPT: &str = "memory_mb = 256\ndeadline_ms = 60000\n";

const SUBJECTS: [Subject; 9] = [
    Subject {
        title: "identity, Rust",
        file: || guests::test_guest("identity"),
        settings: "config = { columns = [] }",
    },
    Subject {
        title: "filter, Rust",
        file: || guests::plugin("filter-rows"),
        settings: "config = { where = [{ column = 'lang', value = 'en' }] }",
    },
    Subject {
        title: "dedup by key, Rust",
        file: || guests::plugin("drop-duplicates"),
        settings: "config = { columns = ['email'] }",
    },
    Subject {
        title: "join by state, Rust",
        file: || guests::plugin("enrich-from-state"),
        settings: "grants = ['state']\nconfig = { from = 'public.cities', key = 'name', \
                   to = 'public.users', by = 'city', columns = { country = 'country' } }",
    },
    Subject { title: "mask, Rust", file: || guests::plugin("mask-email"), settings: "" },
    Subject { title: "mask, C", file: || guests::plugin("mask-email-c"), settings: "" },
    Subject { title: "mask, Go", file: || guests::plugin("mask-email-go"), settings: "" },
    Subject { title: "mask, Python", file: || guests::plugin("mask-email-py"), settings: SCRIPT },
    Subject {
        title: "mask, JavaScript",
        file: || guests::plugin("mask-email-js"),
        settings: SCRIPT,
    },
];

fn main() -> anyhow::Result<()> {
    // cargo hands `--bench` on; what is left names the plugins to measure.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_chosen = |subject: &&Subject| {
        chosen.is_empty() || chosen.iter().any(|word| subject.title.contains(word))
    };
    println!("| plugin | size | compile | start | batch 1 | batch 16 | batch 256 | batch 4096 |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    SUBJECTS.iter().filter(is_chosen).try_for_each(measure)?;
    let is_wanted = |word: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == word);
    if is_wanted("restart") {
        restart()?;
    }
    if is_wanted("first") {
        first()?;
    }
    if is_wanted("parallel") {
        println!("\n| two plugins on two tables | one after another | at the same time | ratio |");
        println!("| --- | --- | --- | --- |");
        let masks = SUBJECTS.iter().filter(|subject| subject.title.starts_with("mask"));
        masks.into_iter().try_for_each(parallel)?;
    }
    if is_wanted("swap") {
        println!("\n| swap | longest gap before | longest gap | until it took over | batches |");
        println!("| --- | --- | --- | --- | --- |");
        SWAPS.iter().try_for_each(swap)?;
    }
    Ok(())
}

/// Prints how many rows a second go through two plugins of which each takes one of two tables, whose rows
/// come in turns: each plugin in a chain of its own, one chain after the other, and both in one chain.
fn parallel(subject: &Subject) -> anyhow::Result<()> {
    let cache = Scratch::new("bench")?;
    let (file, names) = ((subject.file)()?, ["left", "right"]);
    let mut plugins = Vec::new();
    for name in names {
        let settings = format!("tables = ['{name}']\n{}", subject.settings);
        plugins.push(options(name, &file, &settings)?);
    }
    let runtime = Runtime::new(Some(cache.path().to_owned()))?;
    let load =
        |plugins| Chain::load(&runtime, plugins, Stage::Capture, Arc::new(Metrics::default()));
    let mut apart = Vec::new();
    for plugin in &plugins {
        apart.push(load(vec![plugin.clone()])?);
    }
    let mut together = load(plugins)?;
    let tables = names.map(|name| Arc::new(users(name)));
    let (mut least, mut commit) = ([Duration::MAX; 2], 0);
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < 4 * MEASURE || rounds < 2 * ROUNDS_MIN {
        let mut batch = updates(&tables, BATCHES[3], &mut commit);
        let mut same = batch.clone();
        let (done, took) =
            timed(|| apart.iter_mut().try_for_each(|chain| transform(chain, &mut batch)));
        done?;
        least[0] = least[0].min(took);
        let (done, took) = timed(|| transform(&mut together, &mut same));
        done?;
        least[1] = least[1].min(took);
        rounds += 1;
    }
    let rows = f64::from(u32::try_from(BATCHES[3])?);
    let [one, both] = least.map(|took| rows / took.as_secs_f64());
    println!("| {} | {one:.0} rows/s | {both:.0} rows/s | {:.2} |", subject.title, both / one);
    Ok(())
}

/// A plugin's file that is replaced while batches flow.
struct Swap {
    title: &'static str,
    to: fn() -> anyhow::Result<PathBuf>,
    /// Functions that make it take longer to compile.
    idle: u32,
    /// How often: each time the longest gap counts.
    times: u8,
}

const SWAPS: [Swap; 3] = [
    Swap { title: "Rust to Rust", to: || guests::plugin("mask-email"), idle: 0, times: 5 },
    Swap { title: "to a large one", to: || guests::plugin("mask-email"), idle: 30_000, times: 2 },
    Swap { title: "Rust to Python", to: || guests::plugin("mask-email-py"), idle: 0, times: 1 },
];

/// Prints the longest time between the ends of two batches of 256 rows that follow each other, without a
/// pause: before the file is replaced, and from then until the new version is through its probation.
fn swap(swap: &Swap) -> anyhow::Result<()> {
    let scratch = Scratch::new("bench")?;
    let file = scratch.join("it.wasm");
    std::fs::copy(guests::plugin("mask-email")?, &file)?;
    let cache = scratch.join("cache");
    let mut chain = chain(vec![options("it", &file, SCRIPT)?], &cache)?;
    let mut stream = Stream::new();
    let start = Instant::now();
    while start.elapsed() < MEASURE {
        stream.batch(&mut chain)?;
    }
    let (before, mut took, mut batches) = (stream.restart(), Duration::ZERO, 0);
    for number in 0..swap.times {
        let generations = chain.versions().generations();
        let mut content = std::fs::read((swap.to)()?)?;
        if swap.idle > 0 {
            content.extend(guests::idle_module(swap.idle));
        }
        // A section that nobody reads makes it another file, of which no code is at hand.
        content.extend_from_slice(&[0, 5, 4, b'n', b'o', b't', b'0' + number]);
        std::fs::write(scratch.join("fresh"), content)?;
        stream.restart_clock();
        let start = Instant::now();
        std::fs::rename(scratch.join("fresh"), &file)?;
        while chain.versions().generations() == generations {
            stream.batch(&mut chain)?;
            batches += 1;
            anyhow::ensure!(start.elapsed() < SWAP_PATIENCE, "{:?}", chain.versions());
        }
        took = took.max(start.elapsed());
        for _ in 0..PROBATION_BATCHES {
            stream.batch(&mut chain)?;
        }
    }
    let (before, gap, took) = (show(before), show(stream.longest), show(took));
    println!("| {} | {before} | {gap} | {took} | {batches} |", swap.title);
    Ok(())
}

/// Batches that follow each other.
struct Stream {
    tables: [Arc<Table>; 1],
    commit: u64,
    last: Instant,
    longest: Duration,
}

impl Stream {
    fn new() -> Stream {
        let (tables, last) = ([Arc::new(users("users"))], Instant::now());
        Stream { tables, commit: 0, last, longest: Duration::ZERO }
    }

    fn batch(&mut self, chain: &mut Chain) -> anyhow::Result<()> {
        let mut batch = updates(&self.tables, SWAP_ROWS, &mut self.commit);
        let letters = chain.transform(&mut batch)?;
        anyhow::ensure!(letters.is_empty() && batch.len() == SWAP_ROWS, "a row was lost");
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        Ok(())
    }

    /// The longest gap so far; another one is measured from now on.
    fn restart(&mut self) -> Duration {
        self.restart_clock();
        std::mem::take(&mut self.longest)
    }

    /// What passed since the last batch does not count.
    fn restart_clock(&mut self) {
        self.last = Instant::now();
    }
}

/// Prints how long a restart takes to bring up a plugin in each language, its code compiled before.
fn restart() -> anyhow::Result<()> {
    let cache = Scratch::new("bench")?;
    let mut five = Vec::new();
    for subject in SUBJECTS.iter().filter(|subject| subject.title.starts_with("mask")) {
        five.push(options(subject.title, &(subject.file)()?, subject.settings)?);
    }
    chain(five.clone(), cache.path())?;
    let count = five.len();
    let (again, took) = timed(|| chain(five, cache.path()));
    again?;
    println!("\nrestart with {count} plugins, one in each language: {}", show(took));
    Ok(())
}

/// Prints how long it takes from nothing to a plugin in Rust that was built and passed its golden events,
/// with its dependencies on the machine but not compiled; and how long after another edit.
fn first() -> anyhow::Result<()> {
    let scratch = Scratch::new("bench")?;
    let started = Instant::now();
    let parent = scratch.path();
    let project = tailwater_project::create(parent, "first", Language::Rust, Role::Transform)?;
    let source = project.join("src/lib.rs");
    let text = std::fs::read_to_string(&source)?;
    let edit = |blanks: &str| -> anyhow::Result<()> {
        let edited = text.replace("trim_matches(' ')", &format!("trim_matches({blanks})"));
        anyhow::ensure!(edited != text, "the template trims no blanks any more");
        std::fs::write(&source, edited)?;
        let component = tailwater_project::build(&project, &Installed)?;
        let golden = Golden::parse(&std::fs::read_to_string(project.join("golden.jsonl"))?);
        let golden = golden.map_err(anyhow::Error::msg)?;
        let runtime = Runtime::new(Some(scratch.join("cache")))?;
        let report = golden.run(&runtime, &Options::of_component(&component, Vec::new()))?;
        anyhow::ensure!(report.differences.is_empty(), "{:?}", report.differences);
        Ok(())
    };
    edit("[' ', '\\t']")?;
    let first = started.elapsed();
    let (again, took) = timed(|| edit("[' ', '.']"));
    again?;
    println!(
        "\nfrom nothing to a tested plugin in Rust: {}; after an edit: {}",
        show(first),
        show(took)
    );
    Ok(())
}

/// Prints a plugin's line: KiB, the start without and with compiled code at hand, ns per event.
fn measure(subject: &Subject) -> anyhow::Result<()> {
    let file = (subject.file)()?;
    let size = std::fs::metadata(&file)?.len().div_ceil(1024);
    let cache = Scratch::new("bench")?;
    let (_, cold) = timed(|| load(&file, subject.settings, cache.path()));
    let (chain, warm) = timed(|| load(&file, subject.settings, cache.path()));
    let mut chain = chain?;
    // What a batch changes of what is remembered is told as in the service; the disk is behind it.
    let store = StateStore::open(cache.path(), "bench")?;
    if chain.remembering().next().is_some() {
        chain.restore(&store)?;
    }
    let compile = cold.saturating_sub(warm);
    print!("| {} | {size} KiB | {} | {} |", subject.title, show(compile), show(warm));
    for rows in BATCHES {
        print!(" {} |", per_event(&mut chain, rows)?);
    }
    println!();
    Ok(())
}

fn load(file: &Path, settings: &str, cache: &Path) -> anyhow::Result<Chain> {
    chain(vec![options("it", file, settings)?], cache)
}

fn options(name: &str, file: &Path, settings: &str) -> anyhow::Result<Options> {
    let path = file.display();
    let text = format!("name = '{name}'\npath = '{path}'\nbatch_rows = 4096\n{settings}");
    Ok(toml::from_str(&text)?)
}

fn chain(plugins: Vec<Options>, cache: &Path) -> anyhow::Result<Chain> {
    let runtime = Runtime::new(Some(cache.to_owned()))?;
    Ok(Chain::load(&runtime, plugins, Stage::Capture, Arc::new(Metrics::default()))?)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn show(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Nanoseconds per event of the fastest round.
fn per_event(chain: &mut Chain, rows: usize) -> anyhow::Result<String> {
    let count = ROUND_ROWS.div_ceil(rows);
    let tables = [Arc::new(users("users"))];
    let mut least = f64::INFINITY;
    let (mut spent, mut rounds, mut commit) = (Duration::ZERO, 0, 0);
    while spent < MEASURE || rounds < ROUNDS_MIN {
        let mut batches: Vec<Changes> =
            (0..count).map(|_| updates(&tables, rows, &mut commit)).collect();
        let (done, took) =
            timed(|| batches.iter_mut().try_for_each(|batch| transform(chain, batch)));
        done?;
        let events = f64::from(u32::try_from(count * rows)?);
        let each = took.as_secs_f64() * 1e9 / events;
        least = least.min(each);
        spent += took;
        rounds += 1;
    }
    Ok(if least < 100.0 { format!("{least:.1}") } else { format!("{least:.0}") })
}

fn transform(chain: &mut Chain, batch: &mut Changes) -> anyhow::Result<()> {
    chain.transform(batch)?;
    drop(chain.take_deltas());
    Ok(())
}

fn users(name: &str) -> Table {
    let text = ColumnType::Text;
    let columns = [
        ("id", ColumnType::Int8, "bigint"),
        ("name", text.clone(), "text"),
        ("email", text.clone(), "text"),
        ("address", text.clone(), "text"),
        ("phone", text.clone(), "text"),
        ("active", ColumnType::Bool, "boolean"),
        ("verified", ColumnType::Bool, "boolean"),
        ("lang", text.clone(), "text"),
        ("city", text, "text"),
        ("created_at", ColumnType::Timestamptz(6), "timestamp with time zone"),
        ("updated_at", ColumnType::Timestamptz(6), "timestamp with time zone"),
    ];
    let column = |(index, (name, kind, type_name)): (usize, (&str, ColumnType, &str))| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        nullable: index > 0,
        key: index == 0,
        default: None,
        number: None,
        missing: None,
    };
    let columns = columns.into_iter().enumerate().map(column).collect();
    Table::new(1, "public".to_owned(), name.to_owned(), columns, ReplicaIdentity::Default)
}

/// A transaction of updates of these tables in turns, each of another row; `commit` is the last
/// transaction's number.
fn updates(tables: &[Arc<Table>], rows: usize, commit: &mut u64) -> Changes {
    *commit += 1;
    let mut changes = Changes::default();
    changes.push_transaction(Transaction {
        commit: Lsn(*commit),
        previous_commit: Lsn(*commit - 1),
        committed_at: i64::try_from(*commit).expect("a small number"),
        xid: 1,
    });
    for (row, table) in (0..rows as u64).zip(tables.iter().cycle()) {
        let index = changes.intern_table(table);
        let number = *commit * 4096 + row;
        let new = changes.begin_row();
        for cell in cells(number) {
            let cell = changes.push_text(cell.as_bytes());
            changes.push_cell(cell);
        }
        let lsn = Lsn(*commit);
        let (table, transaction, ordinal) = (index, 0, row + 1);
        let op = Op::Update;
        changes.list.push(Change {
            op,
            table,
            transaction,
            ordinal,
            lsn,
            old: Old::None,
            new: Some(new),
        });
    }
    changes
}

fn cells(number: u64) -> [String; 11] {
    [
        number.to_string(),
        format!("Firstname Lastname {number}"),
        format!("someone.{number}@example.com"),
        format!("{number} Long Street, Some Town"),
        format!("+49 30 {number:09}"),
        "t".to_owned(),
        "f".to_owned(),
        if number.is_multiple_of(2) { "en" } else { "de" }.to_owned(),
        "Some Town".to_owned(),
        "2026-11-24 02:31:07.123456+00".to_owned(),
        "2026-11-24 02:31:08.654321+00".to_owned(),
    ]
}
