// What every plugin needs: its configuration, and columns in the form `packed`.

package export_wit_world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unsafe"

	. "go.bytecodealliance.org/pkg/wit/types"
	. "wit_component/tailwater_plugin_types"
)

// Configure reads the plugin's `config` into settings that hold the defaults; a field they do not
// have is an error.
func Configure[T any](config string, settings *T) Result[Unit, string] {
	decoder := json.NewDecoder(bytes.NewReader([]byte(config)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(settings); err != nil {
		return Err[Unit, string](fmt.Sprintf("config: %v", err))
	}
	return Ok[Unit, string](Unit{})
}

// Has says whether a table has a column of that name.
func Has(table Table, name string) bool {
	for _, column := range table.Columns {
		if column.Name == name {
			return true
		}
	}
	return false
}

// Wanted answers `subscribe`.
func Wanted(interest Interest) Result[Option[Interest], string] {
	return Ok[Option[Interest], string](Some(interest))
}

// NotWanted answers `subscribe`: no row of the table reaches the plugin.
func NotWanted() Result[Option[Interest], string] {
	return Ok[Option[Interest], string](None[Interest]())
}

// Texts is a column that was asked for as FormPacked.
type Texts struct {
	packed Packed
	nulls  []byte
}

// TextsOf reads a column of a batch.
func TextsOf(column ColumnValues) Texts {
	packed := column.Values.Packed()
	return Texts{packed, packed.Nulls.SomeOr(nil)}
}

// Len is the number of rows.
func (texts Texts) Len() int {
	return len(texts.packed.Ends)
}

// Bytes is the length of all values together.
func (texts Texts) Bytes() int {
	return len(texts.packed.Data)
}

// At gives the value of a row, and whether there is one. The text is good until the call ends:
// clone what is kept longer.
func (texts Texts) At(row int) (string, bool) {
	if texts.nulls != nil && texts.nulls[row>>3]&(1<<(row&7)) != 0 {
		return "", false
	}
	start := uint32(0)
	if row > 0 {
		start = texts.packed.Ends[row-1]
	}
	value := texts.packed.Data[start:texts.packed.Ends[row]]
	return unsafe.String(unsafe.SliceData(value), len(value)), true
}

// NewTexts is a column in the making: one Write or Null for every row, in order.
type NewTexts struct {
	packed  Packed
	nulls   []byte
	present bool
}

// MakeTexts begins a column of so many rows and about so many bytes.
func MakeTexts(rows, bytes int) NewTexts {
	return NewTexts{packed: Packed{Ends: make([]uint32, 0, rows), Data: make([]byte, 0, bytes)}}
}

// Write adds a value: the function appends it.
func (texts *NewTexts) Write(value func([]byte) []byte) {
	texts.packed.Data = value(texts.packed.Data)
	texts.packed.Ends = append(texts.packed.Ends, uint32(len(texts.packed.Data)))
	texts.present = true
}

// Null adds no value.
func (texts *NewTexts) Null() {
	row := len(texts.packed.Ends)
	for len(texts.nulls) <= row>>3 {
		texts.nulls = append(texts.nulls, 0)
	}
	texts.nulls[row>>3] |= 1 << (row & 7)
	texts.packed.Ends = append(texts.packed.Ends, uint32(len(texts.packed.Data)))
}

// AnyValue says whether there is anything but nulls in it.
func (texts *NewTexts) AnyValue() bool {
	return texts.present
}

// Values ends the column.
func (texts *NewTexts) Values() Values {
	if texts.nulls != nil {
		for len(texts.nulls) < (len(texts.packed.Ends)+7)>>3 {
			texts.nulls = append(texts.nulls, 0)
		}
		texts.packed.Nulls = Some(texts.nulls)
	}
	return MakeValuesPacked(texts.packed)
}
