//! What wit-bindgen makes of `wit/`; everything else in this crate is written by hand.

#[expect(clippy::too_many_arguments, reason = "generated: a record is passed field by field")]
/// The world of transforms, and the types both worlds share.
pub mod transform {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform",
        pub_export_macro: true,
        default_bindings_module: "tailwater_guest::bindings::transform",
        generate_all,
    });
}

#[expect(clippy::too_many_arguments, reason = "generated: a record is passed field by field")]
/// The world of dedup plugins.
pub mod dedup {
    wit_bindgen::generate!({
        path: "../wit",
        world: "dedup",
        pub_export_macro: true,
        default_bindings_module: "tailwater_guest::bindings::dedup",
        with: {
            "tailwater:plugin/types@0.1.0": super::transform::tailwater::plugin::types,
            "tailwater:plugin/log@0.1.0": super::transform::tailwater::plugin::log,
            "tailwater:plugin/metrics@0.1.0": super::transform::tailwater::plugin::metrics,
        },
    });
}

#[expect(clippy::too_many_arguments, reason = "generated: a record is passed field by field")]
/// The world of transforms that reshape tables.
pub mod reshape {
    wit_bindgen::generate!({
        path: "../wit",
        world: "reshape",
        pub_export_macro: true,
        default_bindings_module: "tailwater_guest::bindings::reshape",
        with: {
            "tailwater:plugin/types@0.1.0": super::transform::tailwater::plugin::types,
            "tailwater:plugin/log@0.1.0": super::transform::tailwater::plugin::log,
            "tailwater:plugin/metrics@0.1.0": super::transform::tailwater::plugin::metrics,
            "tailwater:plugin/shapes@0.1.0": generate,
        },
    });
}

/// What a plugin is given only if its operator grants it. What a plugin does not call, its component
/// does not import.
pub mod granted {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package tailwater:granted;

            world granted {
                import tailwater:plugin/state@0.1.0;
                import tailwater:plugin/clock@0.1.0;
            }
        ",
        generate_all,
    });
}
