// Counts in its state how often each row was changed and writes the count into the row.

#include <stdio.h>

#include "columns.h"

// The longest count.
#define DIGITS 20

bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  (void)error;
  tailwater_string_free(config);
  return true;
}

bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  static const char *const names[] = {"id", "name"};
  tailwater_interest_t interest = {0};
  interest.columns.ptr = calloc(2, sizeof *interest.columns.ptr);
  for (size_t i = 0; i < 2; i++) {
    tailwater_string_t name;
    tailwater_string_set(&name, names[i]);
    want_packed(&interest, &name, false);
  }
  answer->is_some = true;
  answer->val = interest;
  tailwater_table_free(table);
  return true;
}

// What is known under a key, as a number.
static unsigned long known(tailwater_string_t *key) {
  tailwater_list_string_t keys = {key, 1};
  tailwater_list_option_string_t values;
  tailwater_plugin_state_get(&keys, &values);
  unsigned long number = 0;
  if (values.ptr[0].is_some) {
    tailwater_string_t *text = &values.ptr[0].val;
    for (size_t i = 0; i < text->len; i++) number = 10 * number + (text->ptr[i] - '0');
  }
  tailwater_list_option_string_free(&values);
  return number;
}

bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  const packed_t *ids = &batch->columns.ptr[0].values.val.packed;
  packed_t counts = new_texts(batch->rows, batch->rows * DIGITS);
  for (size_t row = 0; row < batch->rows; row++) {
    const char *id = "";
    size_t length = 0;
    text_at(ids, row, &id, &length);
    tailwater_string_t key = {(uint8_t *)id, length};
    char text[DIGITS + 1];
    int digits = snprintf(text, sizeof text, "%lu", known(&key) + 1);
    tailwater_string_t count = {(uint8_t *)text, (size_t)digits};
    tailwater_tuple2_string_option_string_t entry = {key, {true, count}};
    tailwater_list_tuple2_string_option_string_t entries = {&entry, 1};
    if (!tailwater_plugin_state_set(&entries, error)) return false;
    add_text(&counts, text, (size_t)digits);
    end_value(&counts);
  }
  *patch = (tailwater_patch_t){0};
  patch->edits.ptr = calloc(1, sizeof *patch->edits.ptr);
  patch->edits.len = 1;
  patch->edits.ptr[0].column = 1;
  patch->edits.ptr[0].values.tag = TAILWATER_PLUGIN_TYPES_VALUES_PACKED;
  patch->edits.ptr[0].values.val.packed = counts;
  tailwater_batch_free(batch);
  return true;
}
