//! End to end: the real binary between real services, judged from outside.

mod kill;
mod one_change;
