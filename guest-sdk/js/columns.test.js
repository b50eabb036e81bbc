import assert from "node:assert";
import test from "node:test";

import { configure, mapped, packed, texts } from "./columns.ts";

const there = (values) => ({ values: packed(values) });
const back = (values) => texts({ values });

test("texts come back as they were packed", () => {
  const columns = [[], ["ann", null, "", "bob"], [null, null], ["é", "😀", null, "\uFEFFx"]];
  for (const column of columns) assert.deepEqual(texts(there(column)), column);
});

test("a column that starts within a buffer is read from there", () => {
  const { ends, data, nulls } = packed(["ann", "bob"]).val;
  const wider = new Uint8Array([120, ...data, 120]).subarray(1, 1 + data.length);
  assert.deepEqual(back({ tag: "packed", val: { ends, data: wider, nulls } }), ["ann", "bob"]);
});

test("halves of a character in two values do not become one", () => {
  assert.deepEqual(texts(there(["a\uD83D", "\uDE00b"])), ["a\uFFFD", "\uFFFDb"]);
});

test("a mapped column has a value for each that was there", () => {
  const values = mapped(there(["ann", null, "élodie", ""]), (text) => text + "!");
  assert.deepEqual(back(values), ["ann!", null, "élodie!", "!"]);
});

test("a value that is mapped to null is NULL", () => {
  const values = mapped(there(["ann", null, "bob"]), (text) => text === "bob" ? null : text);
  assert.deepEqual(back(values), ["ann", null, null]);
});

test("of a column that is all NULL nothing is mapped", () => {
  for (const count of [1, 7, 8, 9, 17]) {
    const nulls = new Array(count).fill(null);
    assert.equal(mapped(there(nulls), () => assert.fail()), undefined);
    assert.deepEqual(back(mapped(there([...nulls, ""]), (text) => text)), [...nulls, ""]);
    assert.deepEqual(back(mapped(there(["", ...nulls]), (text) => text)), ["", ...nulls]);
  }
});

test("a setting is of the type that its default has", () => {
  const defaults = { columns: ["email"], percent: 10, strict: false, rules: [], seed: undefined };
  const config = { columns: ["a"], percent: 5, strict: true, rules: [1, "b"], seed: [2] };
  assert.deepEqual(configure(JSON.stringify(config), defaults), config);
  assert.deepEqual(configure("{}", defaults), defaults);
  const refused = {
    columns: ["email", null, [1], { a: "b" }],
    percent: ["5", null, [5]],
    strict: [1, "true"],
    rules: [{}, "a", 1],
  };
  for (const [name, values] of Object.entries(refused)) {
    for (const value of values) {
      const known = (why) => why.startsWith(`config: \`${name}\` is `);
      assert.throws(() => configure(JSON.stringify({ [name]: value }), defaults), known);
    }
  }
  const column = (why) => why === "config: `columns` is a list, of which each is a text";
  assert.throws(() => configure('{"columns": "email"}', defaults), column);
  assert.throws(() => configure('{"column": []}', defaults), (why) => why.includes("unknown field `column`"));
});
