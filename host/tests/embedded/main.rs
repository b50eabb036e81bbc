//! The embedded engine behind ClickHouse's HTTP interface: every row that it takes is there, whatever
//! bytes are in it and however its process ends.

mod cut_off;
mod durability;
mod formats;
mod merges;
mod refusals;
mod requests;
mod starts;
mod wire;
