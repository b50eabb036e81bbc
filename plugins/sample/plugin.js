// The copy holds a sample of the rows: always the same ones, chosen by a hash of their keys.
//
// A row is in the sample or is not, whatever happens to it, and a sample of 1 % is part of one of 10 %.
// Tables sampled by a column that they share (`columns`) hold rows that belong together.

import { configure, texts } from "./columns.js";

const defaults = {
  /** How much of a table, above 0 and up to 100. */
  percent: 10,
  /** The columns whose values decide. Default: those of the key. */
  columns: undefined,
  /** Another seed chooses other rows. */
  seed: 0,
};

let settings = defaults;
/** Hashes below it are in the sample. */
let limit = 0;

export function init(config) {
  settings = configure(config, defaults);
  const { percent, columns, seed } = settings;
  if (!(typeof percent === "number" && percent > 0 && percent <= 100)) {
    throw "config: `percent` is a number above 0 and up to 100";
  }
  const named = Array.isArray(columns) && columns.length > 0 && columns.every(isText);
  if (columns !== undefined && !named) throw "config: `columns` is a list of column names";
  if (!Number.isInteger(seed)) throw "config: `seed` is a whole number";
  limit = percent / 100 * 2 ** 32;
}

function isText(value) {
  return typeof value === "string";
}

/** A table that cannot be sampled is refused: silence would let every row through, or none. */
export function subscribe(table) {
  const named = `${table.schema}.${table.name}`;
  const key = table.columns.filter((column) => column.key).map((column) => column.name);
  const chosen = settings.columns ?? key;
  if (chosen.length === 0) throw `${named} has no key; say by which \`columns\` it is sampled`;
  const known = (name) => table.columns.some((column) => column.name === name);
  const missing = chosen.find((name) => !known(name));
  if (missing !== undefined) throw `${named} has no column ${missing}`;
  const columns = chosen.map((column) => ({ column, old: false, form: "packed" }));
  return { columns, ops: false, positions: false, times: false };
}

export function process(batch) {
  const columns = batch.columns.map(texts);
  const unsent = new Set(batch.columns.flatMap((column) => [...(column.unchanged ?? [])]));
  const discard = [], faults = [];
  for (let row = 0; row < batch.rows; row++) {
    if (unsent.has(row)) {
      const message = "PostgreSQL did not send the value that decides; sample by other columns";
      faults.push({ row, message, retryable: false });
    } else if (hash(columns, row) >= limit) {
      discard.push(row);
    }
  }
  return { discard, edits: [], faults };
}

/** FNV-1a over the units of the values, with MurmurHash3's ending, which spreads neighbours. */
function hash(columns, row) {
  let hash = 0x811c9dc5 ^ settings.seed;
  const add = (unit) => { hash = Math.imul(hash ^ unit, 0x01000193); };
  for (const values of columns) {
    const value = values[row];
    // Neither is a unit of text, so neighbours cannot be taken for each other.
    add(value === null ? 0x10000 : 0x10001);
    for (let at = 0; value !== null && at < value.length; at++) add(value.charCodeAt(at));
  }
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return (hash ^ hash >>> 16) >>> 0;
}
