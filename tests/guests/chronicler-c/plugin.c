// Writes into each row what it was called before, how often it was changed, and when it was shown, and
// counts the rows. What it knows of a row it keeps in its state, and forgets with the row.

#include "columns.h"

// What is known of a row, each under a key of its own: the row's id, a bigint, behind a letter.
enum { NAME, CHANGES, KNOWN };
static const char letters[KNOWN] = "nc";
// The longest number, with its sign.
#define DIGITS 20

typedef tailwater_plugin_types_edit_t edit_t;
typedef tailwater_tuple2_string_option_string_t entry_t;

bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  (void)error;
  tailwater_string_free(config);
  return true;
}

bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  static const char *const names[] = {"id", "name", "before", "changes", "shown_at"};
  tailwater_interest_t interest = {.ops = true};
  interest.columns.ptr = calloc(5, sizeof *interest.columns.ptr);
  for (size_t i = 0; i < 5; i++) {
    tailwater_string_t name;
    tailwater_string_set(&name, names[i]);
    want_packed(&interest, &name, false);
  }
  answer->is_some = true;
  answer->val = interest;
  tailwater_table_free(table);
  return true;
}

static int64_t number_of(const tailwater_option_string_t *text) {
  int64_t number = 0;
  for (size_t i = 0; text->is_some && i < text->val.len; i++) {
    number = 10 * number + (text->val.ptr[i] - '0');
  }
  return number;
}

// Writes a positive number at the end of `digits`; where it begins.
static size_t write_number(int64_t number, char digits[DIGITS]) {
  size_t begin = DIGITS;
  for (; number > 0; number /= 10) digits[--begin] = (char)('0' + number % 10);
  return begin;
}

// Takes what is known under the keys of a row, and leaves there what is to be known of it.
static bool learn(tailwater_string_t keys[KNOWN], bool forget, tailwater_option_string_t name,
                  tailwater_option_string_t *before, int64_t *changes, tailwater_string_t *error) {
  tailwater_list_string_t asked = {keys, KNOWN};
  tailwater_list_option_string_t known;
  tailwater_plugin_state_get(&asked, &known);
  *changes = number_of(&known.ptr[CHANGES]) + 1;
  *before = known.ptr[NAME];
  // It goes into the answer.
  known.ptr[NAME].is_some = false;
  tailwater_list_option_string_free(&known);
  char digits[DIGITS];
  size_t begin = write_number(*changes, digits);
  tailwater_option_string_t count = {true, {(uint8_t *)digits + begin, DIGITS - begin}};
  entry_t entries[KNOWN] = {{keys[NAME], name}, {keys[CHANGES], count}};
  if (forget) entries[NAME].f1.is_some = entries[CHANGES].f1.is_some = false;
  tailwater_list_tuple2_string_option_string_t written = {entries, KNOWN};
  return tailwater_plugin_state_set(&written, error);
}

static edit_t edit_of_numbers(uint32_t column, int64_t *numbers, size_t rows) {
  edit_t edit = {.column = column};
  edit.values.tag = TAILWATER_PLUGIN_TYPES_VALUES_INTEGERS;
  edit.values.val.integers.items.ptr = numbers;
  edit.values.val.integers.items.len = rows;
  return edit;
}

bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  const packed_t *ids = &batch->columns.ptr[0].values.val.packed;
  const packed_t *names = &batch->columns.ptr[1].values.val.packed;
  size_t rows = batch->rows;
  tailwater_option_string_t *before = calloc(rows, sizeof *before);
  int64_t *changes = calloc(rows, sizeof *changes), *shown_at = calloc(rows, sizeof *shown_at);
  for (size_t row = 0; row < rows; row++) {
    const char *id = "", *name = "";
    size_t id_length = 0, name_length = 0;
    text_at(ids, row, &id, &id_length);
    bool is_named = text_at(names, row, &name, &name_length);
    char texts[KNOWN][1 + DIGITS];
    tailwater_string_t keys[KNOWN];
    for (size_t i = 0; i < KNOWN; i++) {
      texts[i][0] = letters[i];
      memcpy(&texts[i][1], id, id_length);
      keys[i] = (tailwater_string_t){(uint8_t *)texts[i], 1 + id_length};
    }
    bool is_deleted = batch->ops.val.ptr[row] == TAILWATER_PLUGIN_TYPES_OP_DELETE;
    tailwater_option_string_t named = {is_named, {(uint8_t *)name, name_length}};
    if (!learn(keys, is_deleted, named, &before[row], &changes[row], error)) return false;
    shown_at[row] = tailwater_plugin_clock_now();
  }
  tailwater_string_t counter;
  tailwater_string_set(&counter, "rows");
  tailwater_plugin_metrics_add(&counter, rows);
  *patch = (tailwater_patch_t){0};
  patch->edits.ptr = calloc(3, sizeof *patch->edits.ptr);
  patch->edits.len = 3;
  patch->edits.ptr[0].column = 2;
  patch->edits.ptr[0].values.tag = TAILWATER_PLUGIN_TYPES_VALUES_STRINGS;
  patch->edits.ptr[0].values.val.strings.ptr = before;
  patch->edits.ptr[0].values.val.strings.len = rows;
  patch->edits.ptr[1] = edit_of_numbers(3, changes, rows);
  patch->edits.ptr[2] = edit_of_numbers(4, shown_at, rows);
  tailwater_batch_free(batch);
  return true;
}
