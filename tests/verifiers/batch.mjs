// Reads captured requests as JSON, one or a list, and says of each whether a verifier takes it.
//
// One: prints ok and exits 0, or prints why and exits 1. A list: prints a list of null or why, and exits 0.

import { readFileSync } from "node:fs";

export async function run(verify) {
  const given = JSON.parse(readFileSync(0, "utf8"));
  const answers = [];
  for (const one of [given].flat()) answers.push(await judge(verify, one));
  if (Array.isArray(given)) {
    process.stdout.write(JSON.stringify(answers));
  } else {
    console.log(answers[0] ?? "ok");
    process.exitCode = answers[0] === null ? 0 : 1;
  }
}

async function judge(verify, one) {
  try {
    await verify(one);
    return null;
  } catch (why) {
    return `${why?.name}: ${why?.message}`; // whatever a library throws is its way to refuse
  }
}

export const body = (one) => Buffer.from(one.body_b64 ?? "", "base64");
export const key = (one) => Buffer.from(one.key_b64, "base64");

// Header fields by lower-case name; doubled ones as a list.
export function grouped(one) {
  const fields = {};
  for (const [name, value] of one.headers) {
    const lower = name.toLowerCase();
    fields[lower] = lower in fields ? [fields[lower], value].flat() : value;
  }
  return fields;
}
