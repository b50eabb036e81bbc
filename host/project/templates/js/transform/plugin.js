// Takes the blanks off both ends of text columns.

import { configure, mapped } from "./columns.js";

/** The plugin's `config`. `columns`: what to trim; what a table does not have is passed over. */
let settings = { columns: ["name"] };

export function init(config) {
  settings = configure(config, settings);
}

/** Which columns it wants to see of a table; undefined: it never sees a row of it. */
export function subscribe(table) {
  const has = (name) => table.columns.some((column) => column.name === name);
  const columns = settings.columns.filter(has).map((column) => ({ column, old: false, form: "packed" }));
  if (columns.length === 0) return undefined;
  return { columns, ops: false, positions: false, times: false };
}

/** What changes in a batch. */
export function process(batch) {
  const edits = [];
  batch.columns.forEach((column, index) => {
    const values = mapped(column, trim);
    if (values !== undefined) edits.push({ column: index, rows: undefined, values });
  });
  return { discard: [], edits, faults: [] };
}

/** Without a pattern: one that looks for the last blanks begins anew at each of those inside. */
function trim(text) {
  let start = 0, end = text.length;
  while (start < end && text[start] === " ") start++;
  while (end > start && text[end - 1] === " ") end--;
  return text.slice(start, end);
}
