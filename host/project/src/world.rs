//! What a component's world has that the contract has not, and the other way round.
//!
//! Both are written down item by item (a function that is imported or exported, a type of the
//! contract's), and the items that differ are shown as a diff does.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};
use wit_component::DecodedWasm;
use wit_parser::{
    Function, Interface, PackageId, Param, Resolve, SourceMap, Type, TypeDefKind, TypeId, WorldId,
    WorldItem,
};

use crate::material;

/// The worlds of the contract, and what only each of them exports.
const WORLDS: [(&str, &str); 3] =
    [("transform", "process"), ("dedup", "keys"), ("reshape", "rewrite")];
/// What is imported by whom it is granted to.
const GRANTED: [&str; 2] = ["state", "clock"];

/// How the binary of a component begins.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Items by what they are called.
type Items = BTreeMap<String, String>;

/// The lines of a diff from what this program offers (`-`) to what a component imports and exports
/// (`+`); none if it fits.
///
/// # Errors
/// It is no component.
pub fn difference(component: &[u8]) -> Result<Vec<String>> {
    // A core module may tell of a world too, but implements none of it by itself.
    ensure!(component.starts_with(COMPONENT), "it is no component");
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("it is a package of WIT, no component");
    };
    let found = items(&resolve, world);
    let (contract, package) = contract(str::to_owned)?;
    let is_exported = |name: &str| found.contains_key(&format!("export {name}"));
    let role = WORLDS.iter().rev().find(|(_, export)| is_exported(export)).unwrap_or(&WORLDS[0]);
    let offered = items(&contract, contract.select_world(&[package], Some(role.0))?);
    let granted = granted(&contract);
    let mut lines = Vec::new();
    for (name, offered) in &offered {
        let required = name.starts_with("export ");
        match found.get(name) {
            Some(found) if found == offered => {}
            None if !required => {}
            found => {
                lines.push(format!("- {name}: {offered}"));
                lines.extend(found.map(|found| format!("+ {name}: {found}")));
            }
        }
    }
    let known = |name: &str| offered.contains_key(name) || granted.contains_key(name);
    // What is exported besides is not called: componentize-py leaves its own initialiser there.
    let foreign = found.iter().filter(|(name, _)| name.starts_with("import ") && !known(name));
    lines.extend(foreign.map(|(name, item)| format!("+ {name}: {item}")));
    Ok(lines)
}

/// The contract whose text is in the program; `edit` changes it.
fn contract(edit: impl Fn(&str) -> String) -> Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::default();
    for (name, text) in material::WIT {
        sources.push_str(name, edit(text));
    }
    let parsed = sources.parse().map_err(|(_, error)| anyhow!("the contract: {error}"))?;
    let package = resolve.push_group(parsed)?;
    Ok((resolve, package))
}

fn granted(contract: &Resolve) -> Items {
    let is_granted = |interface: &&Interface| {
        interface.name.as_deref().is_some_and(|name| GRANTED.contains(&name))
    };
    let mut items = Items::new();
    for (_, interface) in &contract.interfaces {
        if is_granted(&interface) {
            add_interface(contract, interface, "import", &mut items);
        }
    }
    items
}

/// Everything that a world imports and exports.
fn items(resolve: &Resolve, world: WorldId) -> Items {
    let world = &resolve.worlds[world];
    let mut items = Items::new();
    for (way, side) in [("import", &world.imports), ("export", &world.exports)] {
        for (key, item) in side {
            match item {
                WorldItem::Interface { id, .. } => {
                    add_interface(resolve, &resolve.interfaces[*id], way, &mut items);
                }
                WorldItem::Function(function) => {
                    let name = format!("{way} {}", resolve.name_world_key(key));
                    items.insert(name, signature(resolve, function));
                }
                WorldItem::Type { .. } => {}
            }
        }
    }
    items
}

/// An interface of the contract is known by its name, whatever compatible version it is of.
fn add_interface(resolve: &Resolve, interface: &Interface, way: &str, items: &mut Items) {
    let package = interface.package.map(|package| &resolve.packages[package].name);
    let namespace = package.map(|name| format!("{}:{}/", name.namespace, name.name));
    let own = interface.name.as_deref().unwrap_or_default();
    let name = format!("{}{own}", namespace.unwrap_or_default());
    for (function, item) in &interface.functions {
        items.insert(format!("{way} {name}.{function}"), signature(resolve, item));
    }
    for (known, id) in &interface.types {
        items.insert(format!("type {name}.{known}"), definition(resolve, *id));
    }
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let param = |param: &Param| format!("{}: {}", param.name, named(resolve, &param.ty));
    let params = joined(function.params.iter().map(param));
    let result = function.result.as_ref();
    let result = result.map(|result| format!(" -> {}", named(resolve, result)));
    format!("func({params}){}", result.unwrap_or_default())
}

/// A type as it is written where it is used.
fn named(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => match (&resolve.types[*id].kind, &resolve.types[*id].name) {
            // A name in another interface or world for the same type.
            (TypeDefKind::Type(same), _) => named(resolve, same),
            (_, Some(name)) => name.clone(),
            (_, None) => definition(resolve, *id),
        },
        Type::ErrorContext => "error-context".to_owned(),
        plain => format!("{plain:?}").to_lowercase(),
    }
}

fn definition(resolve: &Resolve, id: TypeId) -> String {
    let of = |ty: &Type| named(resolve, ty);
    let maybe = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), of);
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let fields =
                record.fields.iter().map(|field| format!("{}: {}", field.name, of(&field.ty)));
            format!("record {{ {} }}", joined(fields))
        }
        TypeDefKind::Variant(variant) => {
            let case = |case: &wit_parser::Case| match &case.ty {
                Some(ty) => format!("{}({})", case.name, of(ty)),
                None => case.name.clone(),
            };
            format!("variant {{ {} }}", joined(variant.cases.iter().map(case)))
        }
        TypeDefKind::Enum(cases) => {
            format!("enum {{ {} }}", joined(cases.cases.iter().map(|case| case.name.clone())))
        }
        TypeDefKind::Flags(flags) => {
            format!("flags {{ {} }}", joined(flags.flags.iter().map(|flag| flag.name.clone())))
        }
        TypeDefKind::Tuple(tuple) => format!("tuple<{}>", joined(tuple.types.iter().map(of))),
        TypeDefKind::Option(ty) => format!("option<{}>", of(ty)),
        TypeDefKind::List(ty) => format!("list<{}>", of(ty)),
        TypeDefKind::Result(result) if result.ok.is_none() && result.err.is_none() => {
            "result".to_owned()
        }
        TypeDefKind::Result(result) => {
            format!("result<{}, {}>", maybe(&result.ok), maybe(&result.err))
        }
        TypeDefKind::Type(ty) => of(ty),
        // Nothing of the contract's.
        other => other.as_str().to_owned(),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use wit_component::{ComponentEncoder, StringEncoding};
    use wit_parser::{LiftLowerAbi, ManglingAndAbi};

    use super::*;

    /// The difference of a component of a world of the contract that is changed by `edit`.
    fn difference_of(world: &str, edit: impl Fn(&str) -> String) -> Vec<String> {
        let (resolve, package) = contract(edit).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        let abi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
        let mut module = wit_component::dummy_module(&resolve, world, abi);
        let utf8 = StringEncoding::UTF8;
        wit_component::embed_component_metadata(&mut module, &resolve, world, utf8).unwrap();
        let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
        difference(&component).unwrap()
    }

    #[test]
    fn of_what_is_no_component_nothing_is_told() {
        for bytes in [&b"\0asm\x01\0\0\0"[..], b"#!/bin/sh", b""] {
            assert!(difference(bytes).is_err_and(|why| why.to_string() == "it is no component"));
        }
    }

    #[test]
    fn what_fits_has_no_difference() {
        for (world, _) in WORLDS {
            assert_eq!(difference_of(world, str::to_owned), [""; 0], "{world}");
        }
    }

    #[test]
    fn a_function_of_another_type_is_shown_beside_what_is_called() {
        let lines = difference_of("transform", |text| {
            text.replace("process: func(batch: batch)", "process: func(rows: u32)")
        });
        let expected = [
            "- export process: func(batch: batch) -> result<patch, string>",
            "+ export process: func(rows: u32) -> result<patch, string>",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_record_with_another_field_is_shown_whole() {
        let lines =
            difference_of("dedup", |text| text.replace("rows: u32,", "rows: u32, more: u8,"));
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].starts_with("- type tailwater:plugin/types.batch: record { table: u32, "));
        assert!(lines[1].contains("rows: u32, more: u8, "), "{lines:#?}");
    }

    #[test]
    fn what_is_missing_and_what_nobody_offers_is_shown() {
        let lines = difference_of("transform", |text| {
            text.replace("export init: func(config: string) -> result<_, string>;", "")
                .replace("import metrics;", "import metrics; import go: func() -> string;")
        });
        let expected = [
            "- export init: func(config: string) -> result<_, string>",
            "+ import go: func() -> string",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_can_be_granted_is_no_difference() {
        let lines = difference_of("transform", |text| {
            text.replace("import log;", "import log; import clock;")
        });
        assert_eq!(lines, [""; 0]);
    }
}
