// Takes the blanks off both ends of text columns.
//
// What a function is handed it owns and frees; what it answers the bindings free.

#include "columns.h"
#include "json.h"

// The columns to trim; what a table does not have is passed over.
static json_strings_t columns;

// Reads the plugin's `config`; without `columns` in it, it trims `name`.
bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  return json_columns(config, "name", &columns, error);
}

// Which columns it wants to see of a table; none: it never sees a row of it.
bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  tailwater_interest_t interest = {0};
  interest.columns.ptr = calloc(columns.len + 1, sizeof *interest.columns.ptr);
  for (size_t i = 0; i < columns.len; i++) {
    if (has_column(table, &columns.ptr[i])) want_packed(&interest, &columns.ptr[i], false);
  }
  answer->is_some = interest.columns.len > 0;
  answer->val = interest;
  if (!answer->is_some) free(interest.columns.ptr);
  tailwater_table_free(table);
  return true;
}

static void add_trimmed(packed_t *trimmed, const char *text, size_t length) {
  while (length > 0 && *text == ' ') text++, length--;
  while (length > 0 && text[length - 1] == ' ') length--;
  add_text(trimmed, text, length);
}

static packed_t trim(const packed_t *texts, size_t rows) {
  packed_t trimmed = new_texts(rows, texts->data.len);
  for (size_t row = 0, length; row < rows; row++) {
    const char *text;
    if (text_at(texts, row, &text, &length)) {
      add_trimmed(&trimmed, text, length);
      end_value(&trimmed);
    } else {
      end_null(&trimmed, rows);
    }
  }
  return trimmed;
}

// What changes in a batch.
bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  (void)error;
  *patch = (tailwater_patch_t){0};
  patch->edits.ptr = calloc(batch->columns.len, sizeof *patch->edits.ptr);
  patch->edits.len = batch->columns.len;
  for (size_t index = 0; index < batch->columns.len; index++) {
    tailwater_plugin_types_edit_t *edit = &patch->edits.ptr[index];
    edit->column = (uint32_t)index;
    edit->values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
    edit->values.val.packed = trim(&batch->columns.ptr[index].values.val.packed, batch->rows);
  }
  tailwater_batch_free(batch);
  return true;
}
