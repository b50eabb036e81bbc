// Throws on rows whose name says how.

import { spoil } from "./spoiled.js";

export function init(config) {
  if (config !== "{}") throw new RangeError(config);
}

export function subscribe() {
  const columns = [{ column: "name", old: false, form: "strings" }];
  return { columns, ops: false, positions: false, times: false };
}

export function process(batch) {
  const names = batch.columns[0].values.val;
  for (const name of names) taste(name);
  return names.includes("later poison") ? later(names) : { discard: [], edits: [], faults: [] };
}

async function later(names) {
  await null;
  spoil(names[0]);
}

function taste(name) {
  if (name === "poison") spoil(name);
  if (name === "{poison") JSON.parse(name);
  if (name === "poisoned") recurse(name);
  if (name === "refused") throw "the plugin's own sentence";
  if (name === "object") throw { name };
}

function recurse(name) {
  return recurse(name) + 1;
}
