//! The HTTP interface on a real port: who may ask what, and that the answers are right.

mod access;
mod dlq;
mod health;
mod injection;
mod interface;
mod limits;
mod refusals;
mod sql;
mod status;
