// Verifies captured requests with npm's http-message-signatures (RFC 9421).

import { createHash } from "node:crypto";
import signatures from "http-message-signatures";
import * as batch from "./batch.mjs";

const { createVerifier, httpbis } = signatures;

async function verify(one) {
  const message = { method: one.method, url: `http://${one.host}${one.target}`, headers: batch.grouped(one) };
  const known = { id: one.key_id, algs: ["hmac-sha256"], verify: createVerifier(batch.key(one), "hmac-sha256") };
  const verified = await httpbis.verifyMessage(
    {
      keyLookup: async ({ keyid }) => (keyid === one.key_id ? known : null),
      all: true,
      tolerance: 5,
      requiredParams: ["created", "expires", "nonce", "keyid", "alg", "tag"],
      requiredFields: ["@method", "@path", "@query", "x-identity-level", "x-identity-audience"],
    },
    message,
  );
  if (verified !== true) throw new Error("the signature does not match");
  const digest = message.headers["content-digest"];
  if (digest !== undefined) {
    const expected = createHash("sha256").update(batch.body(one)).digest("base64");
    if (digest !== `sha-256=:${expected}:`) throw new Error("the body is not the one that was signed");
  }
}

await batch.run(verify);
