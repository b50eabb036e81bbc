// Masks e-mail addresses: jane@example.com becomes j***@example.com.
//
// The same plugin as plugins/mask-email. What a function is handed it owns and frees; what it
// answers the bindings free.

#include "columns.h"
#include "json.h"

#define MASK "***"

// The columns that hold addresses; what a table does not have is passed over. Default: email.
static json_strings_t names;

bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  return json_columns(config, "email", &names, error);
}

// The old row is asked for too: it travels on in the envelope's `before`.
bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  tailwater_interest_t interest = {0};
  interest.columns.ptr = calloc(2 * names.len + 1, sizeof *interest.columns.ptr);
  for (int old = 0; old < 2; old++) {
    for (size_t i = 0; i < names.len; i++) {
      if (has_column(table, &names.ptr[i])) want_packed(&interest, &names.ptr[i], old);
    }
  }
  answer->is_some = interest.columns.len > 0;
  answer->val = interest;
  if (!answer->is_some) free(interest.columns.ptr);
  tailwater_table_free(table);
  return true;
}

// Keeps the first character and the domain; text without an @ keeps its first character only.
static void mask(packed_t *masked, const char *address, size_t length) {
  size_t at = length, first = length > 0;
  for (size_t i = length; i > 0 && at == length; i--) {
    if (address[i - 1] == '@') at = i - 1;
  }
  while (first < at && (address[first] & 0xC0) == 0x80) first++;
  add_text(masked, address, first < at ? first : at);
  add_text(masked, MASK, sizeof MASK - 1);
  add_text(masked, address + at, length - at);
}

bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  (void)error;
  *patch = (tailwater_patch_t){0};
  patch->edits.ptr = calloc(batch->columns.len + 1, sizeof *patch->edits.ptr);
  for (size_t index = 0; index < batch->columns.len; index++) {
    const packed_t *addresses = &batch->columns.ptr[index].values.val.packed;
    size_t rows = batch->rows, length, values = 0;
    packed_t masked = new_texts(rows, addresses->data.len + rows * (sizeof MASK - 1));
    for (size_t row = 0; row < rows; row++) {
      const char *address;
      if (text_at(addresses, row, &address, &length)) {
        mask(&masked, address, length);
        end_value(&masked);
        values++;
      } else {
        end_null(&masked, rows);
      }
    }
    if (values == 0) {
      tailwater_plugin_types_packed_free(&masked);
      continue;
    }
    tailwater_plugin_types_edit_t *edit = &patch->edits.ptr[patch->edits.len++];
    edit->column = (uint32_t)index;
    edit->values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
    edit->values.val.packed = masked;
  }
  if (patch->edits.len == 0) free(patch->edits.ptr);
  tailwater_batch_free(batch);
  return true;
}
