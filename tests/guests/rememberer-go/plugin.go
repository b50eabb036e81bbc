// Counts in its state how often each row was changed and writes the count into the row.

package export_wit_world

import (
	"strconv"

	. "go.bytecodealliance.org/pkg/wit/types"
	"wit_component/tailwater_plugin_state"
	. "wit_component/tailwater_plugin_types"
)

// Init has no settings to read.
func Init(config string) Result[Unit, string] {
	return Configure(config, &struct{}{})
}

// Subscribe asks for the key and for the column that is to hold the count.
func Subscribe(table Table) Result[Option[Interest], string] {
	var interest Interest
	for _, name := range []string{"id", "name"} {
		interest.Columns = append(interest.Columns, Want{Column: name, Form: FormPacked})
	}
	return Wanted(interest)
}

// Process counts row by row, as a row may come several times in a batch.
func Process(batch Batch) Result[Patch, string] {
	ids := TextsOf(batch.Columns[0])
	counts := MakeTexts(ids.Len(), ids.Bytes())
	for row := range ids.Len() {
		id, _ := ids.At(row)
		count := 1
		if before := tailwater_plugin_state.Get([]string{id})[0]; before.IsSome() {
			known, _ := strconv.Atoi(before.Some())
			count += known
		}
		text := strconv.Itoa(count)
		entry := Tuple2[string, Option[string]]{F0: id, F1: Some(text)}
		written := tailwater_plugin_state.Set([]Tuple2[string, Option[string]]{entry})
		if written.IsErr() {
			return Err[Patch, string](written.Err())
		}
		counts.Write(func(data []byte) []byte { return append(data, text...) })
	}
	edit := Edit{Column: 1, Values: counts.Values()}
	return Ok[Patch, string](Patch{Edits: []Edit{edit}})
}
