// Reads a plugin's `config`: JSON objects, arrays and strings, one value after the other.
//
// Every function returns whether it found what it looks for; it then stands behind it.

#ifndef TAILWATER_JSON_H
#define TAILWATER_JSON_H

#include <stdlib.h>
#include <string.h>

#include "tailwater.h"

typedef struct {
  const char *at;
  const char *end;
} json_t;

typedef struct {
  tailwater_string_t *ptr;
  size_t len;
} json_strings_t;

static inline json_t json_of(const tailwater_string_t *text) {
  const char *at = (const char *)text->ptr;
  return (json_t){at, at + text->len};
}

// One of `{}[],:`.
static inline bool json_mark(json_t *json, char mark) {
  while (json->at < json->end && strchr(" \t\r\n", *json->at)) json->at++;
  if (json->at == json->end || *json->at != mark) return false;
  json->at++;
  return true;
}

// Nothing but white space is left.
static inline bool json_end(json_t *json) {
  return !json_mark(json, 0) && json->at == json->end;
}

static inline bool json_unit(json_t *json, uint32_t *unit) {
  *unit = 0;
  for (int digit = 0; digit < 4; digit++, json->at++) {
    const char *digits = "0123456789abcdef";
    const char *found = json->at < json->end && *json->at ? strchr(digits, *json->at | 32) : NULL;
    if (!found) return false;
    *unit = *unit << 4 | (uint32_t)(found - digits);
  }
  return true;
}

static inline size_t json_utf8(uint32_t c, char *to) {
  if (c < 0x80) return to[0] = (char)c, 1;
  size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const uint8_t first[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t i = length - 1; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3F));
  to[0] = (char)(first[length] | c);
  return length;
}

static inline bool json_escape(json_t *json, char *to, size_t *length) {
  static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  char letter = json->at < json->end ? *json->at++ : 0;
  const char *known = letter ? strchr(plain, letter) : NULL;
  uint32_t unit, low;
  if (known) {
    to[(*length)++] = meant[known - plain];
    return true;
  }
  if (letter != 'u' || !json_unit(json, &unit)) return false;
  if (unit >= 0xD800 && unit < 0xE000) {
    if (unit >= 0xDC00 || json->end - json->at < 6 || json->at[0] != '\\' || json->at[1] != 'u') {
      return false;
    }
    json->at += 2;
    if (!json_unit(json, &low) || low < 0xDC00 || low >= 0xE000) return false;
    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
  }
  *length += json_utf8(unit, to + *length);
  return true;
}

// A string, copied; free it with tailwater_string_free.
static inline bool json_string(json_t *json, tailwater_string_t *text) {
  if (!json_mark(json, '"')) return false;
  // No escape is shorter than what it stands for.
  char *copy = malloc((size_t)(json->end - json->at) + 1);
  size_t length = 0;
  while (json->at < json->end && *json->at != '"') {
    char c = *json->at++;
    if (c != '\\') {
      copy[length++] = c;
    } else if (!json_escape(json, copy, &length)) {
      break;
    }
  }
  if (json->at == json->end || *json->at != '"') return free(copy), false;
  json->at++;
  *text = (tailwater_string_t){(uint8_t *)copy, length};
  return true;
}

// An array of strings, copied.
static inline bool json_strings(json_t *json, json_strings_t *texts) {
  *texts = (json_strings_t){0};
  if (!json_mark(json, '[')) return false;
  if (json_mark(json, ']')) return true;
  do {
    tailwater_string_t text;
    if (!json_string(json, &text)) return false;
    texts->ptr = realloc(texts->ptr, (texts->len + 1) * sizeof text);
    texts->ptr[texts->len++] = text;
  } while (json_mark(json, ','));
  return json_mark(json, ']');
}

static inline bool json_is(const tailwater_string_t *text, const char *literal) {
  return text->len == strlen(literal) && memcmp(text->ptr, literal, text->len) == 0;
}

static inline void json_refuse_field(const tailwater_string_t *field, tailwater_string_t *error) {
  static const char before[] = "config: unknown field `", after[] = "`, expected `columns`";
  size_t start = sizeof before - 1, end = start + field->len, length = end + sizeof after - 1;
  uint8_t *text = malloc(length);
  memcpy(text, before, start);
  memcpy(text + start, field->ptr, field->len);
  memcpy(text + end, after, length - end);
  *error = (tailwater_string_t){text, length};
}

// Reads a `config` whose only field is `columns`, a list of column names, and frees it. Without the field
// the list is `standard` alone. False: `error` says what is wrong.
static inline bool json_columns(tailwater_string_t *config, const char *standard,
                                json_strings_t *columns, tailwater_string_t *error) {
  json_t json = json_of(config);
  *columns = (json_strings_t){malloc(sizeof *columns->ptr), 1};
  tailwater_string_dup(columns->ptr, standard);
  bool sound = json_mark(&json, '{');
  if (sound && !json_mark(&json, '}')) {
    do {
      tailwater_string_t field;
      sound = json_string(&json, &field) && json_mark(&json, ':');
      if (sound && !json_is(&field, "columns")) return json_refuse_field(&field, error), false;
      sound = sound && json_strings(&json, columns);
    } while (sound && json_mark(&json, ','));
    sound = sound && json_mark(&json, '}');
  }
  sound = sound && json_end(&json);
  if (!sound) tailwater_string_dup(error, "config: `columns` is a list of column names");
  tailwater_string_free(config);
  return sound;
}

#endif
