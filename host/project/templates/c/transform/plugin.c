// Takes the blanks off both ends of a text column.
//
// What a function is handed it owns and frees; what it answers the bindings free.

#include "columns.h"
#include "json.h"

// The column to trim; tables without it are passed over.
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

static void add_trimmed(packed_t *trimmed, const char *text, size_t length) {
  while (length > 0 && *text == ' ') text++, length--;
  while (length > 0 && text[length - 1] == ' ') length--;
  add_text(trimmed, text, length);
}

// What changes in a batch.
bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  (void)error;
  const packed_t *texts = &batch->columns.ptr[0].values.val.packed;
  packed_t trimmed = new_texts(batch->rows, texts->data.len);
  for (size_t row = 0, length; row < batch->rows; row++) {
    const char *text;
    if (text_at(texts, row, &text, &length)) {
      add_trimmed(&trimmed, text, length);
      end_value(&trimmed);
    } else {
      end_null(&trimmed, batch->rows);
    }
  }
  *patch = (tailwater_patch_t){0};
  patch->edits.ptr = calloc(1, sizeof *patch->edits.ptr);
  patch->edits.len = 1;
  patch->edits.ptr->values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
  patch->edits.ptr->values.val.packed = trimmed;
  tailwater_batch_free(batch);
  return true;
}
