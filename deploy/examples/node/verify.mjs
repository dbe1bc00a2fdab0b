// Reads who is talking from a request that Doorward signed. No dependencies.
//
//   const identity = verify({ method, path, query, headers, body }, { keyId: "a1", key, audience: "agent" });
//
// `path` and `query` as they stand in the request line, not decoded; `headers` as a list of [name, value] (pair up
// `request.rawHeaders`: `request.headers` hides doubled ones); `body` and `key` as Buffers. Throws Refused for anything that
// is not exactly what the gateway signs (RFC 9421, RFC 9530), and for every identity header that the signature does not
// cover: read identity from this function's answer and from nowhere else.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";

const SKEW = 5; // seconds of clock difference that are forgiven
const MAX_LIFETIME = 60; // seconds
const REQUIRED = [
  "@method",
  "@path",
  "@query",
  "x-identity-level",
  "x-identity-tenant",
  "x-identity-audience",
  "x-identity-request-id",
];
// The one way in which the gateway writes it; another label, or a second one, does not match.
const INPUT = new RegExp(
  '^doorward=(?<params>\\((?<names>"[a-z0-9@-]+"(?: "[a-z0-9@-]+")*)\\)' +
    ';created=(?<created>[0-9]{1,12});expires=(?<expires>[0-9]{1,12});nonce="(?<nonce>[A-Za-z0-9_-]+)"' +
    ';keyid="(?<keyid>[A-Za-z0-9_.-]+)";alg="hmac-sha256";tag="doorward")$',
);
const SIGNATURE = /^doorward=:(?<mac>[A-Za-z0-9+/]{43}=):$/;

export class Refused extends Error {
  name = "Refused";
}

// `mapped`: names of [upstream.headers] that you read; `now`: Unix seconds.
export function verify(request, { keyId, key, audience, mapped = [], now = Date.now() / 1000 }) {
  const fields = new Map();
  for (const [name, value] of request.headers) {
    const lower = name.toLowerCase();
    fields.set(lower, [...(fields.get(lower) ?? []), value]);
  }
  const one = (name) => {
    const values = fields.get(name) ?? [];
    if (values.length !== 1) throw new Refused(`${name} is missing or was sent twice`);
    return values[0];
  };

  const signed = INPUT.exec(one("signature-input"))?.groups;
  const mac = SIGNATURE.exec(one("signature"))?.groups.mac;
  if (!signed || !mac) throw new Refused("not the gateway's signature");
  const names = signed.names.split(" ").map((name) => name.slice(1, -1));
  if (new Set(names).size !== names.length || !REQUIRED.every((name) => names.includes(name))) {
    throw new Refused("a required component is not covered");
  }
  if (signed.keyid !== keyId) throw new Refused("an unknown key");
  const [created, expires] = [Number(signed.created), Number(signed.expires)];
  const fresh = created - SKEW <= now && now <= expires + SKEW && created < expires && expires <= created + MAX_LIFETIME;
  if (!fresh) throw new Refused("expired, or signed in the future");

  // A signature protects what it covers. A header that was added on the way is found here only.
  const ours = mapped.map((name) => name.toLowerCase());
  for (const name of fields.keys()) {
    const identity = /^x(identity|doorward)/.test(name.replace(/[^a-z0-9]/g, "")) || ours.includes(name);
    if (identity && !names.includes(name)) throw new Refused("an identity header is not covered");
  }

  const derived = { "@method": request.method, "@path": request.path, "@query": `?${request.query ?? ""}` };
  const lines = names.map((name) => `"${name}": ${Object.hasOwn(derived, name) ? derived[name] : one(name)}`);
  const base = [...lines, `"@signature-params": ${signed.params}`].join("\n");
  const expected = Buffer.from(createHmac("sha256", key).update(base, "latin1").digest("base64"));
  if (!timingSafeEqual(expected, Buffer.from(mac))) throw new Refused("the signature does not match");
  if (one("x-identity-audience") !== audience) throw new Refused("made for another audience");
  const bodyCovered = names.includes("content-digest");
  if (bodyCovered) {
    const digest = createHash("sha256").update(request.body).digest("base64");
    if (one("content-digest") !== `sha-256=:${digest}:`) throw new Refused("the body is not the one that was signed");
  }

  // An empty header does not apply: behind a forward-auth listener every name is there.
  const told = (name) => (fields.has(name) ? one(name) : "") || undefined;
  const text = (name) => (told(name) === undefined ? undefined : decodeURIComponent(told(name)));
  const claims = told("x-identity-claims") === undefined ? "{}" : Buffer.from(told("x-identity-claims"), "base64url").toString();
  const steppedUpAt = told("x-identity-stepped-up-at");
  const identity = {
    level: told("x-identity-level"),
    tenant: text("x-identity-tenant"),
    requestId: text("x-identity-request-id"),
    origin: text("x-identity-origin"),
    subject: text("x-identity-subject"),
    claims: JSON.parse(claims),
    method: text("x-identity-method"),
    steppedUpAt: steppedUpAt === undefined ? undefined : Number(steppedUpAt),
    aal: text("x-identity-aal"),
    claimedSubject: text("x-identity-claimed-subject"),
    bodyCovered,
  };
  if (identity.level === undefined || identity.tenant === undefined || identity.requestId === undefined) {
    throw new Refused("a required header is empty");
  }
  if ((identity.subject !== undefined) !== ["verified", "stepped_up"].includes(identity.level)) {
    throw new Refused("level and subject contradict each other");
  }
  return identity;
}
