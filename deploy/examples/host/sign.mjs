// Signs who the user is, for your page to send to the gateway. No dependencies.
//
//   echo '{"format": "jwt", "claims": {"sub": "user_123"}}' | IDENTITY_SECRET=… node sign.mjs
//
// Only for the user of your own login session: never an id that came from the page. One secret signs one format.

import { createHmac } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

// Format `hmac`. It never expires: prefer userToken where your client can carry one.
export function userHash(secret, userId) {
  return mac(secret, real(userId), "hex");
}

// Format `karta-v2`: the user confirmed who they are, at this time (Unix seconds) and in this way, such as "mfa".
export function kartaToken(secret, userId, steppedUpAt, aal) {
  const payload = encoded({ user_id: real(userId), stepped_up_at: steppedUpAt, aal });
  return `v2.${payload}.${mac(secret, payload, "hex")}`;
}

// Format `jwt`, HS256: the claims, with `sub` or `user_id` among them, good for `lifetime` seconds.
export function userToken(secret, claims, now = Math.floor(Date.now() / 1000), lifetime = 300) {
  real(claims.user_id ?? claims.sub);
  const signed = `${encoded({ alg: "HS256", typ: "JWT" })}.${encoded({ ...claims, iat: now, exp: now + lifetime })}`;
  return `${signed}.${mac(secret, signed, "base64url")}`;
}

// Refuses what comes out where nobody is signed in.
function real(userId) {
  if (typeof userId !== "string" || ["", "undefined", "null", "None"].includes(userId)) throw new Error("nobody is signed in");
  return userId;
}

function mac(secret, message, encoding) {
  return createHmac("sha256", secret).update(message).digest(encoding);
}

function encoded(value) {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

// A line of JSON in, a token out.
if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const secret = process.env.IDENTITY_SECRET;
  for (const line of readFileSync(0, "utf8").trim().split("\n")) {
    const { format, user_id: userId, claims, aal, now = Math.floor(Date.now() / 1000) } = JSON.parse(line);
    if (format === "hmac") console.log(userHash(secret, userId));
    else if (format === "karta-v2") console.log(kartaToken(secret, userId, now, aal));
    else console.log(userToken(secret, claims, now));
  }
}
