//! A plugin's project: made from a template, built into a component.
//!
//! `tailwater plugin new` and `plugin build` are this crate, and the repository builds its own plugins
//! with it too. It is apart from the host because it needs none of the host's system packages, so
//! that the tooling which installs those can build plugins. Everything a project needs of the
//! repository is inside the crate: the contract, the SDKs, the templates.

mod build;
mod command;
mod language;
mod material;
mod template;
mod toolchain;
mod world;

pub use build::{
    build, compile, digest, digest_of, directories, events_left, is_newer, output, write_if_changed,
};
pub use command::run;
pub use language::{Language, Role};
pub use template::create;
pub use toolchain::{Installed, Toolchain};
pub use world::difference;
