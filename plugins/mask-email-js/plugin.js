// Masks e-mail addresses: jane@example.com becomes j***@example.com.
//
// The same plugin as plugins/mask-email.

import { configure, packed, texts } from "./columns.js";

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
    const addresses = texts(column);
    if (addresses.every((address) => address === null)) return;
    edits.push({ column: index, rows: undefined, values: packed(addresses.map(mask)) });
  });
  return { discard: [], edits, faults: [] };
}

/** Keeps the first character and the domain; text without an `@` keeps its first character only. */
function mask(address) {
  if (address === null) return null;
  const at = address.lastIndexOf("@");
  const local = at < 0 ? address : address.slice(0, at);
  const domain = at < 0 ? "" : address.slice(at);
  // A character outside the first plane is two units of a string.
  const first = local.codePointAt(0);
  return (first === undefined ? "" : String.fromCodePoint(first)) + "***" + domain;
}
