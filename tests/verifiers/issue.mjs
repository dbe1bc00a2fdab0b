// An issuer made of npm jose: makes the keys that it is asked for, and signs tokens with them.
//
// Reads {keys: [{kid, alg}], tokens: [{kid, header?, claims}]}; prints {keys: {KID: public JWK}, pem: {KID: SPKI}, tokens}.

import { readFileSync } from "node:fs";
import { SignJWT, exportJWK, exportSPKI, generateKeyPair } from "jose";

const asked = JSON.parse(readFileSync(0, "utf8"));
const pairs = {};
const answer = { keys: {}, pem: {}, tokens: [] };
for (const { kid, alg } of asked.keys) {
  const pair = await generateKeyPair(alg, { extractable: true });
  pairs[kid] = { ...pair, alg };
  answer.keys[kid] = { ...(await exportJWK(pair.publicKey)), kid, alg, use: "sig" };
  answer.pem[kid] = await exportSPKI(pair.publicKey);
}
for (const { kid, header, claims } of asked.tokens) {
  const { privateKey, alg } = pairs[kid];
  answer.tokens.push(await new SignJWT(claims).setProtectedHeader({ alg, kid, ...header }).sign(privateKey));
}
process.stdout.write(JSON.stringify(answer));
