// Drops updates that leave the columns that count as they were.
//
// What a function is handed it owns and frees; what it answers the bindings free.

#include "columns.h"
#include "json.h"

// The columns that count; a table that lacks one of them is passed over.
static json_strings_t columns;

// Reads the plugin's `config`; without `columns` in it, only `name` counts.
bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  if (!json_columns(config, "name", &columns, error)) return false;
  // Without a column every update would say nothing new.
  if (columns.len > 0) return true;
  tailwater_string_dup(error, "config: `columns` names one column at least");
  return false;
}

// Which columns it wants to see of a table; none: it never sees a row of it.
bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  *answer = (tailwater_option_interest_t){.is_some = true};
  for (size_t i = 0; i < columns.len; i++) {
    if (!has_column(table, &columns.ptr[i])) answer->is_some = false;
  }
  if (answer->is_some) {
    answer->val.columns.ptr = calloc(columns.len, sizeof *answer->val.columns.ptr);
    for (size_t i = 0; i < columns.len; i++) want_packed(&answer->val, &columns.ptr[i], false);
  }
  tailwater_table_free(table);
  return true;
}

// Adds the values of a row; false if one of them is missing.
static bool add_values(packed_t *keys, const tailwater_batch_t *batch, size_t row) {
  size_t start = keys->data.len, length;
  for (size_t i = 0; i < batch->columns.len; i++) {
    const char *text;
    if (!text_at(&batch->columns.ptr[i].values.val.packed, row, &text, &length)) {
      keys->data.len = start;
      return false;
    }
    add_text(keys, text, length);
    // No text of PostgreSQL's holds a zero.
    add_text(keys, "", 1);
  }
  return true;
}

// The key of each row: a change whose key equals the one before of its row is dropped. A row without
// a key stays: without a value it is not known whether anything changed.
bool exports_tailwater_keys(tailwater_batch_t *batch, tailwater_row_keys_t *answer,
                            tailwater_string_t *error) {
  (void)error;
  size_t rows = batch->rows, bytes = 0;
  for (size_t i = 0; i < batch->columns.len; i++) {
    bytes += batch->columns.ptr[i].values.val.packed.data.len + rows;
  }
  packed_t keys = new_texts(rows, bytes);
  for (size_t row = 0; row < rows; row++) {
    if (add_values(&keys, batch, row)) {
      end_value(&keys);
    } else {
      end_null(&keys, rows);
    }
  }
  *answer = (tailwater_row_keys_t){0};
  answer->values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
  answer->values.val.packed = keys;
  tailwater_batch_free(batch);
  return true;
}
