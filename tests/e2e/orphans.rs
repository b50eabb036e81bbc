//! Dead letters of a plugin that is not configured any more.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Postgres, PostgresVersion, Tailwater, guests};

use crate::dead_letters::{ask, serves, wait_letters};

const DEADLINE: Duration = Duration::from_secs(120);

/// `gone` sorts before `there`, so its letters come first.
#[test]
fn letters_of_a_plugin_that_is_gone_keep_no_others_waiting() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("CREATE TABLE others (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'poison')")?;
    source.execute("INSERT INTO others VALUES (1, 'poison')")?;
    let path = guests::test_guest("hostile")?;
    let plugin = |name: &str, table: &str, deed: &str| {
        format!(
            "[[plugin]]\nname = \"{name}\"\npath = \"{}\"\ntables = [\"{table}\"]\n\
             [plugin.config]\ndeed = \"{deed}\"\n\n",
            path.display()
        )
    };
    let config = |plugins: &str| {
        let (url, listen) = (source.url(), "{listen}");
        format!("[source]\nurl = \"{url}\"\n\n[http]\nlisten = \"{listen}\"\n\n{plugins}")
    };
    let both = plugin("gone", "public.others", "panic-on-poison")
        + &plugin("there", "public.people", "panic-on-poison");
    let tailwater = Tailwater::with_config(&config(&both))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_letters(&tailwater, 2)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");

    tailwater.set_config(&config(&plugin("there", "public.people", "nothing")))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let done = ask(&tailwater, "POST", "/redrive?all=true")?;
    let counts = ["redriven", "failed", "elsewhere", "gone"].map(|name| done[name].as_u64());
    ensure!(counts == [Some(1), Some(0), Some(0), Some(1)], "{done}");
    serves(&tailwater, &[(1, "Ada"), (2, "poison")])?;
    wait_letters(&tailwater, 1)?;
    let refused = ask(&tailwater, "POST", "/redrive?plugin=gone").err().context("it was driven")?;
    let refused = refused.to_string();
    ensure!(refused.contains("`gone` is not configured any more"), "{refused}");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
