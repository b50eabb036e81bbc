// What the plugin exports, each function of the contract with a guard round it.
//
// An error that the plugin does not catch would end in a trap that says nothing. Here it becomes the error that
// the call answers: its type and the way to where it was made, but never its message, which may hold a row's value.

import * as plugin from "./plugin.js";

export * from "./plugin.js";

export const init = guarded(plugin.init);
export const subscribe = guarded(plugin.subscribe);
export const process = guarded(plugin.process);
export const keys = guarded(plugin.keys);
export const reshape = guarded(plugin.reshape);
export const rewrite = guarded(plugin.rewrite);

/** Functions that are told, the innermost first; the rest of a recursion says nothing more. */
const PLACES_MAX = 6;

/** Lines of a stack that are of this module, and of what calls it. */
const MACHINERY = /[@/](tailwater-guard|sources\/initializer)\.js:\d+:\d+$/;

/** What the plugin does not export stays so. */
function guarded(call) {
  if (typeof call !== "function") return call;
  return (given) => {
    try {
      const answer = call(given);
      return answer instanceof Promise ? answer.catch(fail) : answer;
    } catch (thrown) {
      fail(thrown);
    }
  };
}

function fail(thrown) {
  throw isAnswer(thrown) ? thrown : told(thrown);
}

/** A text is one, and so is what a function of the host's fails with. */
function isAnswer(thrown) {
  const answer = thrown?.constructor?.name === "ComponentError" ? thrown.payload : thrown;
  return typeof answer === "string";
}

function told(thrown) {
  if (!(thrown instanceof Error)) return `it threw what is no Error (${typeof thrown}) and knows no place`;
  return `it threw ${thrown.constructor.name} in ${way(thrown.stack)}`;
}

/** Function, file and line of what was running, of lines like `mask@modules/plugin.js:31:12`. */
function way(stack) {
  const lines = stack.split("\n").filter((line) => !MACHINERY.test(line));
  const places = lines.flatMap((line) => {
    const place = /^(.*)@(?:.*\/)?([^/]+:\d+):\d+$/.exec(line);
    return place ? [`${place[1]} (${place[2]})`] : [];
  });
  return places.slice(0, PLACES_MAX).join(" < ");
}
