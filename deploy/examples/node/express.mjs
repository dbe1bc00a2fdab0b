// Express behind Doorward: the middleware, and an application that says who is talking.
//
//   DOORWARD_ASSERTION_KEY=… node express.mjs 3000
//
// A request that the gateway did not sign is answered 401 and reaches no route. A body is held here only where its digest was
// signed, up to `maxBody`; any other streams through as it comes. Mount it first: what reads bodies comes after it, and what
// must answer without the gateway (a health check) before it. WebSocket servers hang on the HTTP server, not on Express: call
// `verifyHead(received(request), expected)` in their "upgrade" listener.

import express from "express";
import { Refused, verifyBody, verifyHead } from "./verify.mjs";

// After it, `request.identity` is what verifyHead says. Of a body that was held, `request.rawBody` is the bytes, and
// `request.body` the value where it is JSON; parsers that come later, such as express.json(), leave it alone.
export function doorward({ maxBody = 1024 * 1024, ...expected }) {
  return async (request, response, next) => {
    try {
      const identity = verifyHead(received(request), expected);
      if (identity.bodyDigest !== undefined) {
        const body = await read(request, maxBody);
        if (body === undefined) return response.status(413).set("Connection", "close").json({ refused: "the body is too large" });
        verifyBody(identity, body);
        request.rawBody = body;
        request.body = body.length > 0 && request.is("application/json") ? JSON.parse(body) : body;
      }
      request.identity = identity;
    } catch (why) {
      if (why instanceof Refused) return response.status(401).json({ refused: why.message });
      if (why instanceof SyntaxError) return response.status(400).json({ refused: "the body is no JSON" });
      return next(why);
    }
    next();
  };
}

// A request as verifyHead wants it: `request.url` may be another one by now, and `request.headers` joins doubled ones.
export function received(request) {
  const [path, ...query] = (request.originalUrl ?? request.url).split("?");
  const raw = request.rawHeaders;
  const headers = raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1]]] : []));
  return { method: request.method, path, query: query.join("?"), headers };
}

// The body, or nothing where it is longer than it may be.
async function read(request, most) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > most) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const key = Buffer.from(process.env.DOORWARD_ASSERTION_KEY);
const app = express();
app.disable("x-powered-by");
app.use(doorward({ keyId: "a1", key, audience: "agent", mapped: ["X-User-Email"] }));

app.all("/{*path}", async (request, response) => {
  let bytes = request.rawBody?.length ?? 0;
  if (request.rawBody === undefined) for await (const chunk of request) bytes += chunk.length;
  const { level, tenant, subject = null, claims } = request.identity;
  response.json({ level, tenant, subject, claims, bytes });
});

app.listen(Number(process.argv[2]), "127.0.0.1");
