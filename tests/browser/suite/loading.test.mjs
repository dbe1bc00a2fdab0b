/** How a page gets /doorward.js: under the strictest policy, as a module, before it has loaded, beside what is in its way. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach } from 'node:test';
import { launch, open, test } from '../support/browser.mjs';
import { KEY, gateway } from '../support/gateway.mjs';
import { root } from '../support/modules.mjs';
import { call, start } from '../support/script.mjs';

let browser;
let gw;
let context;
let page;

before(async () => {
  browser = await launch();
  gw = await gateway();
});

after(async () => {
  await browser?.close();
  await gw?.close();
});

beforeEach(async () => {
  context = await browser.newContext();
  page = await open(context);
});

afterEach(() => context.close());

test('the strictest policy of a page is enough: nothing inline, no other host, trusted types', async () => {
  const policy = (connect) => `default-src 'none'; script-src ${gw.url}; connect-src ${connect}; require-trusted-types-for 'script'`;
  const { html } = gw.host.content['/'];
  gw.host.content['/strict'] = { policy: policy(gw.url), html };
  // `http:` does not cover `ws:` (CSP 3, 6.7.2.8): a page with sockets names both.
  gw.host.content['/sockets'] = { policy: policy(`${gw.url} ${gw.url.replace('http', 'ws')}`), html };
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  await start(page, gw, { userToken: gw.sign({ sub: 'ada' }) }, '/strict');
  assert.equal((await call(page)).subject, 'ada');
  assert.equal(await page.evaluate(async () => (await window.doorward.stream('/events').next()).value.data), '0');
  assert.deepEqual(await page.evaluate(() => window.violations), []);
  // The policy is in force: what it forbids is seen.
  await page.evaluate((url) => fetch(url).catch(() => {}), gw.host.other);
  assert.equal((await page.evaluate(() => window.violations)).length, 1);
  await start(page, gw, {}, '/sockets');
  await page.evaluate(async () => {
    const socket = await window.doorward.socket('/ws');
    await new Promise((resolve, reject) => {
      socket.addEventListener('message', resolve);
      socket.addEventListener('error', reject);
    });
  });
  assert.deepEqual(await page.evaluate(() => window.violations), []);
});

test('as a module, with integrity, from the gateway', async () => {
  const status = await (await fetch(`${gw.admin}/status`)).text();
  const module = await fetch(`${gw.url}/doorward.mjs`);
  assert.equal(await module.text(), readFileSync(`${root}src/client/doorward.min.mjs`, 'utf8'));
  const integrity = /sha384-[A-Za-z0-9+/=]+/.exec(module.headers.get('etag'))[0];
  assert.ok(status.includes(integrity), status);
  gw.host.content['/module'] = {
    html: `<!doctype html><link rel="modulepreload" href="${gw.url}/doorward.mjs" integrity="${integrity}" crossorigin>
      <script type="module">import doorward, { create, DoorwardError } from '${gw.url}/doorward.mjs'; window.doorward = doorward; window.others = [typeof create, typeof DoorwardError];</script>`,
  };
  await page.goto(`${gw.host.allowed}/module`);
  await page.waitForFunction(() => window.doorward);
  assert.deepEqual(await page.evaluate(() => window.others), ['function', 'function']);
  await page.evaluate((all) => window.doorward.init(all), { gateway: gw.url, embedKey: KEY });
  assert.equal((await call(page)).level, 'anonymous');
});

test('calls that the stub took before the script was there run in order when it is', async () => {
  const stub = readFileSync(`${root}src/client/stub.js`, 'utf8');
  gw.host.content['/stub'] = { html: `<!doctype html><div id="doorward"></div><script>${stub}</script>` };
  await page.goto(`${gw.host.allowed}/stub`);
  await page.evaluate(
    ({ url, key, token }) => {
      const { doorward } = window;
      const [called, streamed, socket] = [doorward.fetch('/echo'), doorward.stream('/events').next(), doorward.socket('/ws')];
      doorward.identify('ada', { token });
      doorward.onIdentityExpired(() => {});
      doorward.init({ gateway: url, embedKey: key });
      window.outcome = Promise.all([called, streamed, socket]).then(async ([response, event, { url: to }]) => [
        (await response.json()).headers['x-identity-subject'],
        event.value.data,
        to,
      ]);
    },
    { url: gw.url, key: KEY, token: gw.sign({ sub: 'ada' }) },
  );
  await page.addScriptTag({ url: `${gw.url}/doorward.js` });
  assert.deepEqual(await page.evaluate(() => window.outcome), ['ada', '0', `${gw.url.replace('http', 'ws')}/ws`]);
  assert.ok(await page.evaluate(() => Object.isFrozen(window.doorward)));
});

test('an element of the same name is not taken for a queue', async () => {
  gw.host.content['/clobbered'] = {
    html: `<!doctype html><form id="doorward"><input name="q"></form><script src="${gw.url}/doorward.js"></script>`,
  };
  await start(page, gw, {}, '/clobbered');
  assert.equal((await call(page)).level, 'anonymous');
});
