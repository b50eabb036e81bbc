//! What wasmtime makes of `wit/`, and nothing else.
//!
//! One world for all roles: the host looks at what a component exports instead of asking for all
//! of a world, and the types are generated once.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package tailwater:host;

        world host {
            include tailwater:plugin/transform@0.1.0;
            import tailwater:plugin/clock@0.1.0;
            import tailwater:plugin/state@0.1.0;
            use tailwater:plugin/types@0.1.0.{batch as key-batch, table as shaped, row-keys};
            use tailwater:plugin/shapes@0.1.0.{shape, rewriting};
            export keys: func(batch: key-batch) -> result<row-keys, string>;
            export reshape: func(table: shaped) -> result<shape, string>;
            export rewrite: func(batch: key-batch) -> result<rewriting, string>;
        }
    ",
    imports: { "tailwater:plugin/state.get": trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use self::tailwater::plugin::{clock, log, metrics, shapes, state, types};
