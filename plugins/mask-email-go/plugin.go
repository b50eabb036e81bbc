// Masks e-mail addresses: jane@example.com becomes j***@example.com.
//
// The same plugin as plugins/mask-email. The package's name is the one the bindings look for.

package export_wit_world

import (
	"strings"
	"unicode/utf8"

	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

var settings = struct {
	// The columns that hold addresses; what a table does not have is passed over.
	Columns []string `json:"columns"`
}{Columns: []string{"email"}}

// Init reads the configuration.
func Init(config string) Result[Unit, string] {
	return Configure(config, &settings)
}

// Subscribe asks for the old row too: it travels on in the envelope's `before`.
func Subscribe(table Table) Result[Option[Interest], string] {
	var interest Interest
	for _, old := range []bool{false, true} {
		for _, name := range settings.Columns {
			if Has(table, name) {
				want := Want{Column: name, Old: old, Form: FormPacked}
				interest.Columns = append(interest.Columns, want)
			}
		}
	}
	if len(interest.Columns) == 0 {
		return NotWanted()
	}
	return Wanted(interest)
}

// Process masks every value there is.
func Process(batch Batch) Result[Patch, string] {
	var patch Patch
	for index, column := range batch.Columns {
		addresses := TextsOf(column)
		masked := MakeTexts(addresses.Len(), addresses.Bytes())
		for row := range addresses.Len() {
			if address, ok := addresses.At(row); ok {
				masked.Write(func(data []byte) []byte { return appendMasked(data, address) })
			} else {
				masked.Null()
			}
		}
		if masked.AnyValue() {
			edit := Edit{Column: uint32(index), Values: masked.Values()}
			patch.Edits = append(patch.Edits, edit)
		}
	}
	return Ok[Patch, string](patch)
}

// Keeps the first character and the domain; text without an `@` keeps its first character only.
func appendMasked(data []byte, address string) []byte {
	local, domain := address, ""
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local, domain = address[:at], address[at:]
	}
	_, first := utf8.DecodeRuneInString(local)
	data = append(data, local[:first]...)
	data = append(data, "***"...)
	return append(data, domain...)
}
