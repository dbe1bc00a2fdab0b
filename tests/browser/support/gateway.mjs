/** `doorward run` in front of a test's backend, and pages on several origins beside it. */

import { createHmac, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { agent } from './agent.mjs';
import { directory, run } from './process.mjs';

export const KEY = 'pk_test_0123456789abcdef';

/**
 * A page server. Each path of `pages` is `{ html, policy }`; reached as `localhost` and as `127.0.0.1`, which are two origins.
 */
export async function pages(content) {
  const server = createServer((request, response) => {
    const page = content[request.url];
    const headers = { 'content-type': 'text/html; charset=utf-8' };
    if (page?.policy) headers['content-security-policy'] = page.policy;
    response.writeHead(page ? 200 : 404, headers).end(page?.html);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  return {
    content,
    allowed: `http://localhost:${port}`,
    other: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(resolve);
      }),
  };
}

/** Starts agent, pages and gateway; `tenant` is more of the tenant's table, `lifetime` that of sessions. */
export async function gateway({ tenant = '', lifetime = '15m' } = {}) {
  const upstream = await agent();
  const host = await pages({});
  const files = directory();
  const identity = randomBytes(32).toString('hex');
  const write = (name, text) => writeFileSync(join(files.path, name), text);
  write('identity.key', identity);
  write('session.key', randomBytes(32).toString('hex'));
  write('assertion.key', randomBytes(32).toString('hex'));
  write('revoked.txt', '');
  write(
    'doorward.toml',
    `
revocations = "revoked.txt"

[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"

[upstream]
address = "${upstream.address}"

[assertion]
audience = "agent"
keys = [{ id = "a1", file = "assertion.key" }]

[session]
keys = [{ id = "s1", file = "session.key" }]
lifetime = "${lifetime}"

[[tenant]]
id = "acme"
preset = "none"
embed_keys = ["${KEY}"]
origins = ["${host.allowed}"]
secrets = [{ id = "i1", format = "jwt", file = "identity.key" }]
${tenant}
`,
  );
  const address = /listen=(\S+) admin=(\S+)/;
  const process = await run(['run', '-c', join(files.path, 'doorward.toml')], (output) => address.exec(output));
  const [, listen, admin] = process.found;
  const url = `http://${listen}`;
  host.content['/'] = { html: `<!doctype html><title>t</title><script src="${url}/doorward.js"></script>` };
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return {
    url,
    admin: `http://${admin}`,
    host,
    upstream,
    /** What the host's backend would sign. */
    sign(claims) {
      const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
      return `${text}.${createHmac('sha256', identity).update(text).digest('base64url')}`;
    },
    revoke: (line) => write('revoked.txt', `${line}\n`),
    async close() {
      await process.close();
      await Promise.all([upstream.close(), host.close()]);
      files.close();
    },
  };
}
