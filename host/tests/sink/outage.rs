//! ClickHouse goes away: what was acknowledged is there, and what was not is stored when it is back.

use std::time::Duration;

use tailwater::disposition::Disposition;
use tailwater_test_support::{ClickHouse, wait_until};

use crate::feed::{hop, insert, users};
use crate::rig::Rig;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_server_that_is_down_at_start_may_be_tried_again() {
    let clickhouse = ClickHouse::start().expect("a server");
    clickhouse.stop().expect("it stops");
    let rig = Rig::on(&clickhouse, "");
    let error = rig.connect().err().expect("nobody answers");
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    clickhouse.restart().expect("it starts again");
    rig.connect().expect("it answers");
}

#[test]
fn a_wrong_password_is_not_tried_again_and_not_shown() {
    let mut rig = Rig::new("");
    rig.options.password = "not-the-word".into();
    let error = rig.connect().err().expect("it is refused");
    assert_eq!(error.disposition(), Disposition::Halt);
    let text = format!("{error:#} {error:?}");
    assert!(text.contains("refuses user `default`"), "{text}");
    assert!(!text.contains("not-the-word"), "{text}");
}

#[test]
fn a_server_that_crashes_mid_run_loses_nothing() {
    let clickhouse = ClickHouse::start().expect("a server");
    let rig = Rig::on(&clickhouse, "batch_rows = 50\nflush_interval_ms = 0");
    let hops = (0..400u64).map(|batch| {
        let id = |n: u64| (batch * 10 + n).to_string();
        let events: Vec<_> = (0..10).map(|n| insert(batch + 1, &[&id(n), "a", "b", "1"])).collect();
        hop(&users(), &events)
    });
    let stalled = || rig.readiness.legs().get("sink").is_some_and(|leg| !leg.moving);
    let rows = || clickhouse.query(&format!("SELECT count() FROM `{}`.users", rig.database));
    let some =
        |least| rows().is_ok_and(|rows| rows.trim().parse::<u64>().is_ok_and(|n| n >= least));
    std::thread::scope(|scope| {
        let delivering = scope.spawn(|| rig.deliver(hops));
        for least in [100, 1_500] {
            wait_until(DEADLINE, "some rows", || some(least)).expect("rows come");
            clickhouse.crash().expect("it is killed");
            wait_until(DEADLINE, "the sink to notice", stalled).expect("it says so");
            clickhouse.restart().expect("it starts again");
        }
        let stored = delivering.join().expect("no panic").expect("the sink goes on");
        assert_eq!(stored.last().map(|point| point.confirm.0), Some(400));
    });
    assert_eq!(rig.lines("SELECT count(), uniqExact(id) FROM {db}.users"), ["4000\t4000"]);
    assert!(!stalled(), "it works again");
}
