//! What wasmtime makes of `wit/`, and nothing else.
//!
//! One world for both roles: the host looks at what a component exports instead of asking for all
//! of a world, and the types are generated once.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package tailwater:host;

        world host {
            include tailwater:plugin/transform@0.1.0;
            use tailwater:plugin/types@0.1.0.{batch as key-batch, row-keys};
            export keys: func(batch: key-batch) -> result<row-keys, string>;
        }
    ",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use self::tailwater::plugin::{log, metrics, types};
