//! `cargo xtask test`.

use std::ffi::OsString;

use anyhow::Result;

use crate::fuzz;
use crate::steps::{self, Profile};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of `cargo test` instead of everything, for example `-p tailwater decode`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// What takes seconds comes before what starts servers, and a step that fails ends the run, so that
/// a mistake shows early. The selections are all `--workspace`: see [`steps::binary`].
const STEPS: [(&str, &[&str]); 5] = [
    ("building the tests", &["--workspace", "--no-run"]),
    ("unit tests", &["--workspace", "--lib", "--bins"]),
    ("tidiness", &["--workspace", "--test", "tidy"]),
    ("documentation examples", &["--workspace", "--doc"]),
    ("tests with real services", &["--workspace", "--no-fail-fast", "--test", "*"]),
];

/// How many tests of one program run at the same time.
const THREADS: &str = "RUST_TEST_THREADS";

/// Sets up, builds the binary and the plugins, and runs the tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    steps::setup()?;
    let binary = steps::binary(Profile::Dev)?;
    steps::guests()?;
    let mut environment = steps::test_environment(binary)?;
    // They mostly wait for servers, each other's and their own, so there is room for more than one a core.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = std::env::var_os(THREADS).unwrap_or_else(|| (2 * cores).to_string().into());
    environment.push((THREADS, threads));
    let test = |title: &str, arguments: &[OsString]| {
        let mut cargo = steps::cargo();
        cargo
            .arg("test")
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        steps::step(title, || steps::run(&mut cargo))
    };
    let outcome = if options.arguments.is_empty() {
        let tested = STEPS.into_iter().try_for_each(|(title, arguments)| {
            test(title, &arguments.iter().map(OsString::from).collect::<Vec<_>>())
        });
        tested.and_then(|()| fuzz::briefly())
    } else {
        test("running the tests", &options.arguments)
    };
    // The servers that tests shared went with their processes; their directories go now.
    tailwater_test_support::sweep_scratch();
    outcome
}
