// Drops updates that leave the columns that count as they were.

package export_wit_world

import (
	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

// The plugin's `config`, with its defaults.
var settings = struct {
	// The columns that count; a table that lacks one of them is passed over.
	Columns []string `json:"columns"`
}{Columns: []string{"name"}}

// Init reads the configuration.
func Init(config string) Result[Unit, string] {
	// Without a column every update would say nothing new.
	if read := Configure(config, &settings); read.IsErr() || len(settings.Columns) > 0 {
		return read
	}
	return Err[Unit, string]("config: `columns` names one column at least")
}

// Subscribe says which columns it wants to see of a table; none: it never sees a row of it.
func Subscribe(table Table) Result[Option[Interest], string] {
	var interest Interest
	for _, name := range settings.Columns {
		if !Has(table, name) {
			return NotWanted()
		}
		interest.Columns = append(interest.Columns, Want{Column: name, Form: FormPacked})
	}
	return Wanted(interest)
}

// Keys gives each row its key: a change whose key equals the one before of its row is dropped. A row
// without a key stays.
func Keys(batch Batch) Result[RowKeys, string] {
	columns := make([]Texts, len(batch.Columns))
	bytes := 0
	for index, column := range batch.Columns {
		columns[index] = TextsOf(column)
		bytes += columns[index].Bytes() + int(batch.Rows)
	}
	keys := MakeTexts(int(batch.Rows), bytes)
	for row := range int(batch.Rows) {
		if hasAll(columns, row) {
			keys.Write(func(data []byte) []byte {
				for _, column := range columns {
					text, _ := column.At(row)
					// No text of PostgreSQL's holds a zero.
					data = append(append(data, text...), 0)
				}
				return data
			})
		} else {
			keys.Null()
		}
	}
	return Ok[RowKeys, string](RowKeys{Values: keys.Values()})
}

// Without a value it is not known whether anything changed.
func hasAll(columns []Texts, row int) bool {
	for _, column := range columns {
		if _, ok := column.At(row); !ok {
			return false
		}
	}
	return true
}
