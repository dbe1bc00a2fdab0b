// Runs ../vectors.json through verify.mjs: node test_verify.mjs

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Refused, verify } from "./verify.mjs";

const vectors = JSON.parse(readFileSync(new URL("../vectors.json", import.meta.url)));
for (const vector of vectors.requests) {
  const request = { ...vector, body: Buffer.from(vector.body_base64, "base64") };
  const key = Buffer.from(vector.key_base64 ?? vectors.key_base64, "base64");
  const expected = { keyId: vectors.key_id, key, audience: vectors.audience, mapped: vectors.mapped, now: vector.now };
  let told;
  try {
    const { level, tenant, subject = null, claimedSubject = null, claims } = verify(request, expected);
    told = { level, tenant, subject, claimed_subject: claimedSubject, claims };
  } catch (why) {
    if (!(why instanceof Refused)) throw why;
    told = why.message;
  }
  assert.deepEqual(told, vector.accepted ?? vector.refused, vector.name);
}
console.log(`${vectors.requests.length} vectors`);
