//! The sink as a library, against the real engine: what its views show, whatever comes in whatever
//! order, and what it says of what it finds.

mod acknowledged;
mod copies;
mod dead_letters;
mod feed;
mod history;
mod layouts;
mod names;
mod outage;
mod rig;
mod shapes;
mod toast;
