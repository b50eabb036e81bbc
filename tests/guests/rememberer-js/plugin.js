// Counts in its state how often each row was changed and writes the count into the row.

import { get, set } from "tailwater:plugin/state@0.1.0";

export function init() {}

export function subscribe() {
  const want = (column) => ({ column, old: false, form: "strings" });
  return { columns: [want("id"), want("name")], ops: false, positions: false, times: false };
}

export function process(batch) {
  const counts = batch.columns[0].values.val.map((id) => {
    const [before] = get([id]);
    const count = String(Number(before ?? 0) + 1);
    set([[id, count]]);
    return count;
  });
  const edits = [{ column: 1, rows: undefined, values: { tag: "strings", val: counts } }];
  return { discard: [], edits, faults: [] };
}
