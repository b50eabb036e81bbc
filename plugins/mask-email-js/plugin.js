// Masks e-mail addresses: jane@example.com becomes j***@example.com.
//
// The same plugin as plugins/mask-email.

import { configure, mapped } from "./columns.js";

/** `columns`: the columns that hold addresses; what a table does not have is passed over. */
let settings = { columns: ["email"] };

export function init(config) {
  settings = configure(config, settings);
}

/** The old row is asked for too: it travels on in the envelope's `before`. */
export function subscribe(table) {
  const has = (name) => table.columns.some((column) => column.name === name);
  const present = settings.columns.filter(has);
  if (present.length === 0) return undefined;
  const want = (old) => present.map((column) => ({ column, old, form: "packed" }));
  const columns = [...want(false), ...want(true)];
  return { columns, ops: false, positions: false, times: false };
}

export function process(batch) {
  const edits = [];
  batch.columns.forEach((column, index) => {
    const values = mapped(column, mask);
    if (values !== undefined) edits.push({ column: index, rows: undefined, values });
  });
  return { discard: [], edits, faults: [] };
}

/** Keeps the first character and the domain; text without an `@` keeps its first character only. */
function mask(address) {
  const at = address.lastIndexOf("@");
  // A character outside the first plane is two units of a string.
  const first = at === 0 ? undefined : address.codePointAt(0);
  const domain = at < 0 ? "" : address.slice(at);
  return (first === undefined ? "" : String.fromCodePoint(first)) + "***" + domain;
}
