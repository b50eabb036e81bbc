//! Merges yield to inserts and queries.
//!
//! They are work for later, and on few cores an initial copy or a burst wants all of them now. The
//! engine has a setting for that, but takes it from a process with CAP_SYS_NICE alone; a thread's own
//! priority may be lowered by anybody.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, setpriority_process};

/// The name of the engine's threads that merge; it is of their pool, which keeps them.
const NAME: &str = "MergeMutate";
/// The niceness: a tenth of a core that is wanted by others, all of one that is not.
const NICE: i32 = 10;
/// The threads start with the first table.
const INTERVAL: Duration = Duration::from_millis(500);

/// Lowers the priority of the threads that merge, as soon as there are some.
pub(super) async fn yield_to_the_rest() {
    while lower() == 0 {
        tokio::time::sleep(INTERVAL).await;
    }
    // All of them start at once; some of them may have been about to.
    tokio::time::sleep(INTERVAL).await;
    lower();
}

/// How many threads merge.
fn lower() -> usize {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let merging = threads.flatten().filter(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == NAME)
    });
    let numbers = merging.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    // A thread that has ended meanwhile needs no priority.
    numbers.filter(|number| setpriority_process(Pid::from_raw(*number), NICE).is_ok()).count()
}
