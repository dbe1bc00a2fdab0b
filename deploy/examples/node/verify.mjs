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
const REQUIRED = ["x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"];
const HAS_SUBJECT = new Map([["anonymous", false], ["claimed", false], ["verified", true], ["stepped_up", true]]);
// The one way in which the gateway writes it; another label, or a second one, does not match.
const INPUT = new RegExp(
  '^doorward=(?<params>\\((?<names>"[a-z0-9@-]+"(?: "[a-z0-9@-]+")*)\\)' +
    ';created=(?<created>[0-9]{1,12});expires=(?<expires>[0-9]{1,12});nonce="[A-Za-z0-9_-]+"' +
    ';keyid="(?<keyid>[A-Za-z0-9_.-]+)";alg="hmac-sha256";tag="doorward")$',
);
const SIGNATURE = /^doorward=:(?<mac>[A-Za-z0-9+/]{43}=):$/;

export class Refused extends Error {
  name = "Refused";
}

// Head and body in one.
export const verify = (request, expected) => verifyBody(verifyHead(request, expected), request.body);

// Where the answer has a `bodyDigest`, call verifyBody before you believe it. `mapped`: names of [upstream.headers] that you
// read; `now`: Unix seconds.
export function verifyHead(request, { keyId, key, audience, mapped = [], now = Date.now() / 1000 }) {
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
  if (new Set(names).size !== names.length || !["@method", "@path", "@query", ...REQUIRED].every((name) => names.includes(name)))
    throw new Refused("a required component is not covered");
  if (signed.keyid !== keyId || key.length === 0) throw new Refused("an unknown key");
  const [created, expires] = [Number(signed.created), Number(signed.expires)];
  const fresh = created - SKEW <= now && now <= expires + SKEW && created < expires && expires <= created + MAX_LIFETIME;
  if (!fresh) throw new Refused("expired, or signed in the future");
  // A signature protects what it covers. A header that was added on the way, in any spelling, is found here only.
  const fold = (name) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
  const ours = mapped.map(fold);
  for (const name of fields.keys()) {
    const identity = /^x(identity|doorward)/.test(fold(name)) || ours.includes(fold(name));
    if (identity && !names.includes(name)) throw new Refused("an identity header is not covered");
  }

  const derived = new Map([["@method", request.method], ["@path", request.path], ["@query", `?${request.query ?? ""}`]]);
  const lines = names.map((name) => `"${name}": ${derived.get(name) ?? one(name)}`);
  const base = [...lines, `"@signature-params": ${signed.params}`].join("\n");
  const expected = Buffer.from(createHmac("sha256", key).update(base, "latin1").digest("base64"));
  if (!timingSafeEqual(expected, Buffer.from(mac))) throw new Refused("the signature does not match");
  if (one("x-identity-audience") !== audience) throw new Refused("made for another audience");
  // From here on the gateway speaks. An empty header does not apply: behind a forward-auth listener every name is there.
  const told = (name) => (names.includes(`x-identity-${name}`) ? decodeURIComponent(one(`x-identity-${name}`)) : "") || undefined;
  let identity;
  try {
    identity = {
      level: told("level"),
      tenant: told("tenant"),
      requestId: told("request-id"),
      origin: told("origin"),
      subject: told("subject"),
      claims: JSON.parse(Buffer.from(told("claims") ?? "e30", "base64url").toString()),
      method: told("method"),
      sessionId: told("session-id"),
      steppedUpAt: told("stepped-up-at") && Number(told("stepped-up-at")),
      aal: told("aal"),
      claimedSubject: told("claimed-subject"),
      bodyDigest: names.includes("content-digest") ? one("content-digest") : undefined,
    };
  } catch {
    throw new Refused("an identity header does not decode");
  }
  if (REQUIRED.some((name) => one(name) === "")) throw new Refused("a required header is empty");
  if (HAS_SUBJECT.get(identity.level) !== (identity.subject !== undefined))
    throw new Refused("level and subject contradict each other");
  return identity;
}

// Compares the whole body with its digest, where that was signed.
export function verifyBody(identity, body) {
  const digest = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
  if (![undefined, digest].includes(identity.bodyDigest)) throw new Refused("the body is not the one that was signed");
  return identity;
}
