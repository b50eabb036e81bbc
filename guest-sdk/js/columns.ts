// What every plugin needs: its configuration, and columns in the form `packed`, which cross several
// times faster than `strings` do.

// A byte order mark is a character of the value like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** Texts in one buffer, as wit/types.wit tells. */
export type Packed = { nulls: Uint8Array | undefined; ends: Uint32Array; data: Uint8Array };

/** One value per row, in the form the interest asked for. */
export type Values = { tag: string; val: unknown };

/**
 * Reads the plugin's `config`, JSON text; a field that the defaults do not have, or have of another type, is an
 * error. Of a default that is undefined any type is taken, and any elements of a list that is empty.
 */
export function configure<T extends object>(config: string, defaults: T): T {
  const settings: Record<string, unknown> = JSON.parse(config);
  const unknown = Object.keys(settings).find((name) => !(name in defaults));
  if (unknown !== undefined) {
    const known = Object.keys(defaults).map((name) => `\`${name}\``).join(", ");
    throw `config: unknown field \`${unknown}\`, expected ${known}`;
  }
  for (const [name, standard] of Object.entries(defaults)) {
    if (name in settings && standard !== undefined && !isLike(settings[name], standard)) {
      throw `config: \`${name}\` is ${described(standard)}`;
    }
  }
  return { ...defaults, ...settings };
}

function kindOf(value: unknown): string {
  return Array.isArray(value) ? "list" : value === null ? "null" : typeof value;
}

function isLike(value: unknown, standard: unknown): boolean {
  if (kindOf(value) !== kindOf(standard)) return false;
  if (!Array.isArray(standard) || standard.length === 0) return true;
  return (value as unknown[]).every((item) => isLike(item, standard[0]));
}

/** What a setting is, for who writes a configuration. */
function described(standard: unknown): string {
  if (Array.isArray(standard) && standard.length > 0) {
    return `a list, of which each is ${described(standard[0])}`;
  }
  const words: Record<string, string> =
    { string: "a text", number: "a number", boolean: "true or false", object: "a table", list: "a list" };
  return words[kindOf(standard)] ?? kindOf(standard);
}

// The engine interprets, its own library too: `substring` takes twice as long as a view that is decoded,
// and a callback as long as ten other steps. So the loops below look the way they do.

/** The values of a column that was asked for in the form `packed`, one per row. */
export function texts(column: { values: Values }): (string | null)[] {
  const { ends, data, nulls } = content(column);
  const { buffer, byteOffset } = data;
  const found: (string | null)[] = new Array(ends.length);
  let start = byteOffset;
  for (let row = 0; row < ends.length; row++) {
    const end = byteOffset + ends[row];
    const isNull = nulls && nulls[row >> 3] & (1 << (row & 7));
    found[row] = isNull ? null : decoder.decode(new Uint8Array(buffer, start, end - start));
    start = end;
  }
  return found;
}

/** A column of an answer. */
export function packed(values: (string | null)[]): { tag: "packed"; val: Packed } {
  const ends = new Uint32Array(values.length);
  let nulls: Uint8Array | undefined;
  let all = "";
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null) {
      nulls ??= new Uint8Array((values.length + 7) >> 3);
      nulls[row >> 3] |= 1 << (row & 7);
    } else {
      all += value;
    }
    ends[row] = all.length;
  }
  return { tag: "packed", val: encoded(all, ends, nulls) };
}

/**
 * A column of an answer: what `change` makes of each value of a packed column. NULL stays NULL, and where
 * all are it is undefined. Faster than `packed(texts(column).map(…))`.
 */
export function mapped(
  column: { values: Values },
  change: (text: string) => string | null,
): { tag: "packed"; val: Packed } | undefined {
  const { ends, data, nulls } = content(column);
  const { buffer, byteOffset } = data;
  const rows = ends.length;
  if (data.length === 0 && nulls && areSet(nulls, rows)) return undefined;
  const changed = new Uint32Array(rows);
  let marks: Uint8Array | undefined;
  let all = "";
  let start = byteOffset;
  for (let row = 0; row < rows; row++) {
    const end = byteOffset + ends[row];
    const isNull = nulls && nulls[row >> 3] & (1 << (row & 7));
    const text = isNull ? null : change(decoder.decode(new Uint8Array(buffer, start, end - start)));
    if (text === null) {
      marks ??= new Uint8Array((rows + 7) >> 3);
      marks[row >> 3] |= 1 << (row & 7);
    } else {
      all += text;
    }
    changed[row] = all.length;
    start = end;
  }
  return { tag: "packed", val: encoded(all, changed, marks) };
}

function content(column: { values: Values }): Packed {
  const { tag, val } = column.values;
  if (tag !== "packed") throw `a packed column was expected, not ${tag}`;
  return val as Packed;
}

/** Whether the first `count` bits are set. */
function areSet(bits: Uint8Array, count: number): boolean {
  const whole = count >> 3;
  for (let index = 0; index < whole; index++) {
    if (bits[index] !== 255) return false;
  }
  const rest = (1 << (count & 7)) - 1;
  return (bits[whole] & rest) === rest;
}

/** Texts one behind the other, `ends` in units of the string. */
function encoded(all: string, ends: Uint32Array, nulls: Uint8Array | undefined): Packed {
  const data = encoder.encode(all);
  // Where all is ASCII, which is nearly everywhere, ends count characters as well as bytes.
  if (data.length === all.length) return { nulls, ends, data };
  // Each by itself: halves of a character in two values are no character of the whole.
  const bytes = new Uint8Array(3 * all.length);
  const lengths = new Uint32Array(ends.length);
  let [start, length] = [0, 0];
  for (let row = 0; row < ends.length; row++) {
    const { written } = encoder.encodeInto(all.substring(start, ends[row]), bytes.subarray(length));
    start = ends[row];
    length += written;
    lengths[row] = length;
  }
  return { nulls, ends: lengths, data: bytes.subarray(0, length) };
}
