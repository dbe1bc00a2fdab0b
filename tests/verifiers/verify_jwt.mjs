// Verifies captured assertions with npm's jose (RFC 7519).

import { createLocalJWKSet, jwtVerify } from "jose";
import * as batch from "./batch.mjs";

async function verify(one) {
  const fields = batch.grouped(one);
  const key = one.jwks ? createLocalJWKSet(one.jwks) : batch.key(one);
  const { payload, protectedHeader } = await jwtVerify(fields["x-identity-assertion"], key, {
    algorithms: [one.algorithm],
    audience: "agent",
    issuer: "doorward",
    typ: "doorward-assertion+jwt",
    requiredClaims: ["iat", "exp", "jti", "level", "tenant", "htm", "htu", "request_id"],
  });
  if (protectedHeader.kid !== one.key_id) throw new Error("another kid");
  const told = [payload.htm, payload.htu, payload.request_id];
  const here = [one.method, one.target, fields["x-identity-request-id"]];
  if (told.some((value, index) => value !== here[index])) throw new Error("made for another request");
}

await batch.run(verify);
