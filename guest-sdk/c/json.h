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

#endif
