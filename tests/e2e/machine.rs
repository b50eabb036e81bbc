//! Machines that do not let us do what we do.

use std::path::Path;

use anyhow::{Context as _, Result};
use tailwater_test_support::{Postgres, PostgresVersion, Tailwater, binary, guests};

use crate::bad_input::{FAILED, ends_with};

/// Runs the rest of its command line without the right to make memory executable, as systemd's
/// `MemoryDenyWriteExecute` does: `mprotect` with `PROT_EXEC` is refused.
const WITHOUT_NEW_CODE: &str = "
import ctypes, os, struct, sys
step = lambda code, jt, jf, k: struct.pack('HBBI', code, jt, jf, k)
steps = b''.join([
    step(0x20, 0, 0, 0),            # the call's number
    step(0x15, 0, 3, 10),           # mprotect?
    step(0x20, 0, 0, 32),           # its third argument
    step(0x45, 0, 1, 4),            # PROT_EXEC?
    step(0x06, 0, 0, 0x50000 + 1),  # EPERM
    step(0x06, 0, 0, 0x7fff0000),   # allowed
])
kept = ctypes.create_string_buffer(steps)
program = struct.pack('HxxxxxxP', len(steps) // 8, ctypes.addressof(kept))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0   # no new privileges
assert prctl(22, 2, program) == 0   # the filter
os.execv(sys.argv[1], sys.argv[1:])
";

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a plain path")
}

#[test]
fn a_machine_that_forbids_code_made_at_run_time_is_not_blamed_on_the_plugin() -> Result<()> {
    let (program, plugin) = (text(&binary()?)?, text(&guests::plugin("mask-email")?)?);
    let arguments = ["-c", WITHOUT_NEW_CODE, &program, "plugin", "inspect", &plugin];
    let tailwater = Tailwater::of_binary("python3".into(), arguments)?;
    ends_with(&tailwater, FAILED, &["the WebAssembly engine does not start on this machine"])
}

/// Other programs of this user watch all that it may.
#[test]
fn a_machine_that_allows_no_more_watches_is_said_with_the_setting() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let program = text(&binary()?)?;
    let arguments = ["--user", "--map-root-user", "sh", "-c", script, &program, "run", "--config"];
    let arguments = arguments.into_iter().chain(["tailwater.toml"]);
    let tailwater = Tailwater::of_binary("unshare".into(), arguments)?;
    tailwater.set_config(&format!(
        "[source]\nurl = \"{}\"\n[http]\nlisten = \"{{listen}}\"\n\
         [[plugin]]\nname = \"mask\"\npath = \"{}\"\nconfig = {{ columns = [\"id\"] }}\n",
        source.url(),
        guests::plugin("mask-email")?.display(),
    ))?;
    let said = "cannot be watched for changes; raise fs.inotify.max_user_instances";
    ends_with(&tailwater, FAILED, &["transform stopped: ", said])
}
