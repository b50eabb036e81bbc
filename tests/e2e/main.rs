//! End to end: the real binary between real services, judged from outside.

mod bad_input;
mod changes;
mod kill;
mod one_change;
mod plugins;
mod reshape;
