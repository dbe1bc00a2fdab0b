// Verifies captured requests with this repository's Node example.

import { verify } from "./verify.mjs";
import * as batch from "./batch.mjs";

await batch.run((one) => {
  const [path, ...query] = one.target.split("?");
  const request = { method: one.method, path, query: query.join("?"), headers: one.headers, body: batch.body(one) };
  verify(request, { keyId: one.key_id, key: batch.key(one), audience: "agent" });
});
