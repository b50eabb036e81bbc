// Traps on rows whose name is `poison`.

#include <string.h>

#include "columns.h"

bool exports_tailwater_init(tailwater_string_t *config, tailwater_string_t *error) {
  (void)error;
  tailwater_string_free(config);
  return true;
}

bool exports_tailwater_subscribe(tailwater_table_t *table, tailwater_option_interest_t *answer,
                                 tailwater_string_t *error) {
  (void)error;
  tailwater_interest_t interest = {0};
  interest.columns.ptr = calloc(1, sizeof *interest.columns.ptr);
  tailwater_string_t name;
  tailwater_string_set(&name, "name");
  want_packed(&interest, &name, false);
  answer->is_some = true;
  answer->val = interest;
  tailwater_table_free(table);
  return true;
}

__attribute__((always_inline)) static inline void taste(const char *name, size_t length) {
  if (length == 6 && memcmp(name, "poison", 6) == 0) __builtin_trap();
}

__attribute__((noinline)) static void look_at_all(const packed_t *names, size_t rows) {
  for (size_t row = 0; row < rows; row++) {
    const char *name = "";
    size_t length = 0;
    if (text_at(names, row, &name, &length)) taste(name, length);
  }
}

bool exports_tailwater_process(tailwater_batch_t *batch, tailwater_patch_t *patch,
                               tailwater_string_t *error) {
  (void)error;
  look_at_all(&batch->columns.ptr[0].values.val.packed, batch->rows);
  *patch = (tailwater_patch_t){0};
  tailwater_batch_free(batch);
  return true;
}
