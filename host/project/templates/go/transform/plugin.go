// Takes the blanks off both ends of text columns.

package export_wit_world

import (
	"strings"

	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

// The plugin's `config`, with its defaults.
var settings = struct {
	// The columns to trim; what a table does not have is passed over.
	Columns []string `json:"columns"`
}{Columns: []string{"name"}}

// Init reads the configuration.
func Init(config string) Result[Unit, string] {
	return Configure(config, &settings)
}

// Subscribe says which columns it wants to see of a table; none: it never sees a row of it.
func Subscribe(table Table) Result[Option[Interest], string] {
	var interest Interest
	for _, name := range settings.Columns {
		if Has(table, name) {
			interest.Columns = append(interest.Columns, Want{Column: name, Form: FormPacked})
		}
	}
	if len(interest.Columns) == 0 {
		return NotWanted()
	}
	return Wanted(interest)
}

// Process says what changes in a batch.
func Process(batch Batch) Result[Patch, string] {
	var patch Patch
	for index, column := range batch.Columns {
		texts := TextsOf(column)
		trimmed := MakeTexts(texts.Len(), texts.Bytes())
		for row := range texts.Len() {
			if text, ok := texts.At(row); ok {
				trimmed.Write(func(data []byte) []byte {
					return append(data, strings.Trim(text, " ")...)
				})
			} else {
				trimmed.Null()
			}
		}
		if trimmed.AnyValue() {
			patch.Edits = append(patch.Edits, Edit{Column: uint32(index), Values: trimmed.Values()})
		}
	}
	return Ok[Patch, string](patch)
}
