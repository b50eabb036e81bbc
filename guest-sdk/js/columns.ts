// What every plugin needs: its configuration, and columns in the form `packed`, which cross several
// times faster than `strings` do.

// A byte order mark is a character of the value like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** Texts in one buffer, as wit/types.wit tells. */
export type Packed = { nulls: Uint8Array | undefined; ends: Uint32Array; data: Uint8Array };

/** One value per row, in the form the interest asked for. */
export type Values = { tag: string; val: unknown };

/** Reads the plugin's `config`, JSON text; a field the defaults do not have is an error. */
export function configure<T extends object>(config: string, defaults: T): T {
  const settings = JSON.parse(config);
  const unknown = Object.keys(settings).find((name) => !(name in defaults));
  if (unknown !== undefined) {
    const known = Object.keys(defaults).map((name) => `\`${name}\``).join(", ");
    throw `config: unknown field \`${unknown}\`, expected ${known}`;
  }
  return { ...defaults, ...settings };
}

/** The values of a column that was asked for in the form `packed`, one per row. */
export function texts(column: { values: Values }): (string | null)[] {
  const { tag, val } = column.values;
  if (tag !== "packed") throw `a packed column was expected, not ${tag}`;
  const { ends, data, nulls } = val as Packed;
  const found: (string | null)[] = new Array(ends.length);
  const all = decoder.decode(data);
  // Where all is ASCII, which is nearly everywhere, ends count characters as well as bytes.
  const slice = all.length === data.length
    ? (start: number, end: number) => all.substring(start, end)
    : (start: number, end: number) => decoder.decode(data.subarray(start, end));
  let start = 0;
  for (let row = 0; row < ends.length; row++) {
    const end = ends[row];
    found[row] = nulls && nulls[row >> 3] & (1 << (row & 7)) ? null : slice(start, end);
    start = end;
  }
  return found;
}

/** A column of an answer. */
export function packed(values: (string | null)[]): { tag: "packed"; val: Packed } {
  const ends = new Uint32Array(values.length);
  const all = values.join("");
  const data = encoder.encode(all);
  const length = all.length === data.length
    ? (value: string) => value.length
    : (value: string) => encoder.encode(value).length;
  let end = 0;
  let nulls: Uint8Array | undefined;
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null) {
      nulls ??= new Uint8Array((values.length + 7) >> 3);
      nulls[row >> 3] |= 1 << (row & 7);
    } else {
      end += length(value);
    }
    ends[row] = end;
  }
  return { tag: "packed", val: { nulls, ends, data } };
}
