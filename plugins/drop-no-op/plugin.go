// Drops updates that change nothing: an ORM that saves what it read, a job that touches every row.
//
// The key of a row is a hash of its content; the host drops a change whose row had that key already.
// The package's name is the one the bindings look for.

package export_wit_world

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"path"

	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

var settings struct {
	// Patterns of columns whose change alone is none, for example `updated_at` or `*_seen`.
	Ignore []string `json:"ignore"`
}

// Init reads the configuration.
func Init(config string) Result[Unit, string] {
	read := Configure(config, &settings)
	for _, pattern := range settings.Ignore {
		if _, err := path.Match(pattern, ""); err != nil {
			return Err[Unit, string](fmt.Sprintf("`%s` in `ignore` is no pattern", pattern))
		}
	}
	return read
}

func ignored(name string) bool {
	for _, pattern := range settings.Ignore {
		if fits, _ := path.Match(pattern, name); fits {
			return true
		}
	}
	return false
}

// Subscribe asks for every column that counts, and for what it was: with REPLICA IDENTITY FULL the old
// row has the large values that an update left alone.
func Subscribe(table Table) Result[Option[Interest], string] {
	var interest Interest
	for _, old := range []bool{false, true} {
		for _, column := range table.Columns {
			if !ignored(column.Name) {
				want := Want{Column: column.Name, Old: old, Form: FormPacked}
				interest.Columns = append(interest.Columns, want)
			}
		}
	}
	if len(interest.Columns) == 0 {
		return NotWanted()
	}
	return Wanted(interest)
}

// Keys hashes the content of every row; one of which a value is not known has no key, and stays.
func Keys(batch Batch) Result[RowKeys, string] {
	rows := int(batch.Rows)
	content := make([]hash.Hash, rows)
	for row := range content {
		content[row] = sha256.New()
	}
	counted := len(batch.Columns) / 2
	for index, column := range batch.Columns[:counted] {
		add(content, column, TextsOf(batch.Columns[counted+index]))
	}
	keys := MakeTexts(rows, rows*sha256.Size)
	for _, row := range content {
		if row == nil {
			keys.Null()
		} else {
			keys.Write(func(data []byte) []byte { return fmt.Appendf(data, "%x", row.Sum(nil)) })
		}
	}
	return Ok[RowKeys, string](RowKeys{Values: keys.Values()})
}

// Adds a column's values to the content of the rows.
func add(content []hash.Hash, column ColumnValues, old Texts) {
	texts, unsent := TextsOf(column), column.Unchanged.SomeOr(nil)
	for row := range content {
		value, known := texts.At(row)
		if len(unsent) > 0 && int(unsent[0]) == row {
			unsent = unsent[1:]
			if value, known = old.At(row); !known {
				content[row] = nil
			}
		}
		if content[row] != nil {
			write(content[row], value, known)
		}
	}
}

// Writes a value with its length, so that neighbours cannot be taken for each other; NULL has none.
func write(content hash.Hash, value string, known bool) {
	length := uint64(len(value))
	if !known {
		length = ^uint64(0)
	}
	var prefix [8]byte
	binary.LittleEndian.PutUint64(prefix[:], length)
	content.Write(prefix[:])
	content.Write([]byte(value))
}
