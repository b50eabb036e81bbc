// Drops updates that leave the column that counts as it was.
//
// What a function is handed it owns and frees; what it answers the bindings free.

#include "columns.h"
#include "json.h"

// The column that counts; tables without it are passed over.
#define COLUMN "name"

// `json.h` reads a configuration; this plugin has none.
bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  json_t json = json_of(config);
  bool empty = json_mark(&json, '{') && json_mark(&json, '}') && json_end(&json);
  if (!empty) tailwater_string_dup(error, "config: this plugin has no settings");
  tailwater_string_free(config);
  return empty;
}

// Which columns it wants to see of a table; none: it never sees a row of it.
bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  tailwater_string_t name;
  tailwater_string_set(&name, COLUMN);
  *answer = (tailwater_option_interest_t){0};
  answer->is_some = has_column(table, &name);
  if (answer->is_some) {
    answer->val.columns.ptr = calloc(1, sizeof *answer->val.columns.ptr);
    want_packed(&answer->val, &name, false);
  }
  tailwater_table_free(table);
  return true;
}

// The key of each row: a change whose key equals the one before of its row is dropped. A row without
// a key stays: without a value it is not known whether anything changed.
bool exports_tailwater_keys(tailwater_batch_t *batch, tailwater_row_keys_t *answer,
                            tailwater_string_t *error) {
  (void)error;
  const packed_t *texts = &batch->columns.ptr[0].values.val.packed;
  packed_t keys = new_texts(batch->rows, texts->data.len);
  for (size_t row = 0, length; row < batch->rows; row++) {
    const char *text;
    if (text_at(texts, row, &text, &length)) {
      add_text(&keys, text, length);
      end_value(&keys);
    } else {
      end_null(&keys, batch->rows);
    }
  }
  *answer = (tailwater_row_keys_t){0};
  answer->values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
  answer->values.val.packed = keys;
  tailwater_batch_free(batch);
  return true;
}
