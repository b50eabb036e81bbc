// What a row may be, with types, which are taken away.

class Spoiled extends Error {}

export function spoil(name: string): never {
  throw new Spoiled(`it is ${name}`);
}
