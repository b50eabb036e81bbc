// Panics on rows whose name is `poison`.

package export_wit_world

import (
	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

// Init has no settings to read.
func Init(config string) Result[Unit, string] {
	return Configure(config, &struct{}{})
}

// Subscribe asks for the names.
func Subscribe(table Table) Result[Option[Interest], string] {
	return Wanted(Interest{Columns: []Want{{Column: "name", Form: FormPacked}}})
}

// Process looks at every name and changes nothing.
func Process(batch Batch) Result[Patch, string] {
	lookAtAll(TextsOf(batch.Columns[0]))
	return Ok[Patch, string](Patch{})
}

//go:noinline
func lookAtAll(names Texts) {
	for row := range names.Len() {
		if name, ok := names.At(row); ok {
			taste(name)
		}
	}
}

//go:noinline
func taste(name string) {
	if name == "poison" {
		panic("it is " + name)
	}
}
