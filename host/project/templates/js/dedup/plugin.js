// Drops updates that leave the columns that count as they were.

import { configure, packed, texts } from "./columns.js";

/** The plugin's `config`. `columns`: those that count; a table that lacks one is passed over. */
let settings = { columns: ["name"] };

export function init(config) {
  settings = configure(config, settings);
  // Without a column every update would say nothing new.
  if (settings.columns.length === 0) throw "config: `columns` names one column at least";
}

/** Which columns it wants to see of a table; undefined: it never sees a row of it. */
export function subscribe(table) {
  const has = (name) => table.columns.some((column) => column.name === name);
  if (!settings.columns.every(has)) return undefined;
  const columns = settings.columns.map((column) => ({ column, old: false, form: "packed" }));
  return { columns, ops: false, positions: false, times: false };
}

/**
 * The key of each row: a change whose key equals the one before of its row is dropped. A row without
 * a key stays.
 */
export function keys(batch) {
  const columns = batch.columns.map(texts);
  const values = Array.from({ length: batch.rows }, (_, row) => key(columns, row));
  return { values: packed(values), faults: [] };
}

function key(columns, row) {
  const values = columns.map((column) => column[row]);
  // Without a value it is not known whether anything changed. No text of PostgreSQL's holds a zero.
  return values.includes(null) ? null : values.join("\0");
}
