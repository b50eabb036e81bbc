//! What end-to-end tests, the demo and the soak check a run against. Nothing here shares code with
//! the product: the source is asked in SQL, ClickHouse over HTTP, Kafka by a plain consumer.

mod alters;
mod audit;
mod copy;
mod faults;
mod kinds;
mod once;
mod topic;

pub use alters::{Altering, follow};
pub use audit::{Audit, History};
pub use copy::{Difference, Emails, differences, wait_equal};
pub use faults::{Death, FAILPOINTS, Plan, Route, survive};
pub use kinds::{topics_hold_the_rows, wait_kinds_equal};
pub use once::{copies, each_change_once, wait_sent};
pub use topic::{
    Raw, Record, committed_offsets, end_offset, end_offset_of, produce, produce_undecided,
    read_committed,
};
