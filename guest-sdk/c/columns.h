// Columns in the form `packed`: one buffer for all values.

#ifndef TAILWATER_COLUMNS_H
#define TAILWATER_COLUMNS_H

#include <stdlib.h>
#include <string.h>

#include "tailwater.h"

typedef tailwater_plugin_types_packed_t packed_t;

static inline bool same(const tailwater_string_t *a, const tailwater_string_t *b) {
  return a->len == b->len && memcmp(a->ptr, b->ptr, a->len) == 0;
}

// Whether a table has a column of that name.
static inline bool has_column(const tailwater_table_t *table, const tailwater_string_t *name) {
  for (size_t i = 0; i < table->columns.len; i++) {
    if (same(&table->columns.ptr[i].name, name)) return true;
  }
  return false;
}

// One more column for an interest whose list has room for it. The answer owns its strings.
static inline void want_packed(tailwater_interest_t *interest, const tailwater_string_t *name,
                               bool old) {
  tailwater_plugin_types_want_t *want = &interest->columns.ptr[interest->columns.len++];
  tailwater_string_dup_n(&want->column, (const char *)name->ptr, name->len);
  want->old = old;
  want->form = TAILWATER_PLUGIN_TYPES_FORM_PACKED;
}

// A row's value; false if there is none.
static inline bool text_at(const packed_t *column, size_t row, const char **at, size_t *length) {
  if (column->nulls.is_some && column->nulls.val.ptr[row >> 3] & (1 << (row & 7))) return false;
  uint32_t start = row == 0 ? 0 : column->ends.ptr[row - 1];
  *at = (const char *)column->data.ptr + start;
  *length = column->ends.ptr[row] - start;
  return true;
}

// A column of an answer in the making, for `rows` values; `bytes` is how long they may be together.
static inline packed_t new_texts(size_t rows, size_t bytes) {
  packed_t column = {0};
  column.ends.ptr = malloc((rows ? rows : 1) * sizeof(uint32_t));
  column.data.ptr = malloc(bytes ? bytes : 1);
  return column;
}

// Adds to the value of the row that is being written.
static inline void add_text(packed_t *column, const char *at, size_t length) {
  memcpy(column->data.ptr + column->data.len, at, length);
  column->data.len += length;
}

// Ends a row's value.
static inline void end_value(packed_t *column) {
  column->ends.ptr[column->ends.len++] = (uint32_t)column->data.len;
}

// Ends a row that has no value; `rows` as for new_texts.
static inline void end_null(packed_t *column, size_t rows) {
  size_t row = column->ends.len;
  if (!column->nulls.is_some) {
    column->nulls.is_some = true;
    column->nulls.val.len = (rows + 7) >> 3;
    column->nulls.val.ptr = calloc(column->nulls.val.len, 1);
  }
  column->nulls.val.ptr[row >> 3] |= (uint8_t)(1 << (row & 7));
  end_value(column);
}

#endif
