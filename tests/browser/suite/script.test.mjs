/** /doorward.js in a real browser, served by the real gateway, on pages of several origins. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach } from 'node:test';
import { launch, open, test } from '../support/browser.mjs';
import { KEY, gateway } from '../support/gateway.mjs';
import { root } from '../support/modules.mjs';

let browser;
let gw;
let context;
let page;

before(async () => {
  browser = await launch();
  gw = await gateway({
    tenant: `
step_up_max_age = "3s"

[tenant.sessions]
in_query = true

[[tenant.claims.step_up]]
claim = "amr"
values = ["mfa"]

[[tenant.route]]
path = "/approvals/*"
require = "stepped_up"
`,
  });
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

/** Opens a page and starts the script with more options. */
async function start(options = {}, path = '/', on = page, from = gw) {
  await on.goto(from.host.allowed + path);
  await on.evaluate((all) => window.doorward.init(all), { gateway: from.url, embedKey: KEY, ...options });
}

/** What the page gets for a path: status, reason and the level that the backend was told. */
const call = (path = '/echo', on = page) =>
  on.evaluate(async (to) => {
    try {
      const response = await window.doorward.fetch(to);
      const { headers = {} } = response.ok ? await response.json() : {};
      return { status: response.status, reason: response.reason, level: headers['x-identity-level'], subject: headers['x-identity-subject'] };
    } catch (error) {
      return { thrown: error.name, reason: error.reason };
    }
  }, path);

/** Repeats a call until it gives what is waited for, at most ten seconds. */
async function until(what, check) {
  const end = Date.now() + 10_000;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < end, `waited ten seconds for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('anonymous, claimed and verified', async () => {
  await start();
  assert.deepEqual(await call(), { status: 200, reason: null, level: 'anonymous', subject: undefined });
  await page.evaluate((token) => window.doorward.identify('ada', { token }), gw.sign({ sub: 'ada' }));
  assert.deepEqual(await call(), { status: 200, reason: null, level: 'verified', subject: 'ada' });
  await page.evaluate(() => window.doorward.identify('ada2', {}));
  assert.deepEqual(await call(), { thrown: 'DoorwardError', reason: 'token_missing' });
  await page.evaluate(() => window.doorward.logout());
  assert.equal((await call()).level, 'anonymous');
});

test('a forged token is refused, and never taken for nobody', async () => {
  const [header, , signature] = gw.sign({ sub: 'ada' }).split('.');
  const forged = [header, Buffer.from('{"sub":"root","exp":4102444800}').toString('base64url'), signature].join('.');
  await start({ userToken: forged });
  assert.deepEqual(await call(), { thrown: 'DoorwardError', reason: 'token_signature_invalid' });
});

test('an expired token is renewed without a lost call, and said once where it cannot be', async () => {
  const expired = gw.sign({ sub: 'ada', exp: Math.floor(Date.now() / 1000) - 600 });
  await start({ userToken: expired });
  await page.evaluate(() => {
    window.expiries = 0;
    window.doorward.onIdentityExpired(() => { window.expiries += 1; });
  });
  assert.deepEqual(await call(), { thrown: 'DoorwardError', reason: 'token_expired' });
  assert.deepEqual(await call(), { thrown: 'DoorwardError', reason: 'token_expired' });
  assert.equal(await page.evaluate(() => window.expiries), 1);
  await page.evaluate((token) => window.doorward.setIdentityTokenFetcher(async () => { window.asked = (window.asked ?? 0) + 1; return token; }), gw.sign({ sub: 'ada' }));
  const statuses = await page.evaluate(() => Promise.all(Array.from({ length: 10 }, async (_, n) => (await window.doorward.fetch(`/echo?${n}`)).status)));
  assert.deepEqual([statuses, await page.evaluate(() => window.asked)], [Array(10).fill(200), 1]);
});

test('a fetcher that returns null leaves an anonymous visitor', async () => {
  await start();
  await page.evaluate(() => window.doorward.setIdentityTokenFetcher(async () => null));
  assert.equal((await call()).level, 'anonymous');
});

test('a session that is revoked is minted anew, once', async () => {
  await start({ userToken: gw.sign({ sub: 'ada' }) });
  const session = await page.evaluate(async () => (await (await window.doorward.fetch('/echo')).json()).headers['x-identity-session-id']);
  gw.revoke(`session ${session}`);
  const renewed = await until('another session', () =>
    page.evaluate(async (old) => {
      const now = (await (await window.doorward.fetch('/echo')).json()).headers['x-identity-session-id'];
      return now !== old && now;
    }, session));
  assert.match(renewed, /^[0-9a-f]{32}$/);
});

test('step-up: a challenge to act on, a pass, and its end', async () => {
  await start({ userToken: gw.sign({ sub: 'ada' }) });
  const challenge = await page.evaluate(async () => {
    const response = await window.doorward.fetch('/approvals/7', { method: 'POST' });
    return [response.reason, response.headers.get('www-authenticate')];
  });
  assert.equal(challenge[0], 'step_up_required');
  assert.match(challenge[1], /error="insufficient_user_authentication".*max_age=3/);
  const stepped = gw.sign({ sub: 'ada', amr: ['mfa'], auth_time: Math.floor(Date.now() / 1000) });
  await page.evaluate((token) => window.doorward.identify('ada', { token }), stepped);
  assert.deepEqual(await call('/approvals/7'), { status: 200, reason: null, level: 'stepped_up', subject: 'ada' });
  const ended = await until('the end of the step-up', async () => {
    const answer = await call('/approvals/7');
    return answer.status === 401 && answer;
  });
  assert.equal(ended.reason, 'step_up_required');
  assert.equal((await call()).level, 'verified');
});

test('an origin that is not allowed: the browser keeps everything from the page', async () => {
  await page.goto(gw.host.other);
  await page.evaluate((all) => window.doorward.init(all), { gateway: gw.url, embedKey: KEY });
  assert.deepEqual(await call(), { thrown: 'TypeError', reason: undefined });
  assert.ok(page.said.some((text) => text.includes('blocked by CORS policy')), page.said.join('\n'));
});

test('an origin that is allowed reads the reason, in code and in the console', async () => {
  await start({ embedKey: 'pk_test_wrong_0123456789' });
  assert.deepEqual(await call(), { thrown: 'DoorwardError', reason: 'embed_key_unknown' });
  assert.ok(page.said.some((text) => /^doorward: 403 embed_key_unknown \(request [0-9a-f]{32}\)$/.test(text)), page.said.join('\n'));
});

test('preflights are remembered by the browser', async () => {
  const preflights = async () => {
    const text = await (await fetch(`${gw.admin}/metrics`)).text();
    return [...text.matchAll(/^doorward_requests_total\{.*outcome="preflight".*\} (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  };
  await start();
  const before = await preflights();
  for (let i = 0; i < 5; i += 1) assert.equal((await call()).status, 200);
  assert.equal((await preflights()) - before, 2, 'one for the mint, one for the path');
});

test('an event stream comes in as it is sent, and stops with its reader', async () => {
  await start();
  const read = await page.evaluate(async () => {
    const all = [];
    for await (const event of window.doorward.stream('/events')) {
      all.push(event);
      if (all.length === 3) break;
    }
    return all;
  });
  assert.deepEqual(read, [0, 1, 2].map((n) => ({ event: 'message', data: String(n), id: String(n) })));
});

test('a changed user drops streams and sockets at once', async () => {
  await start({ userToken: gw.sign({ sub: 'ada' }) });
  const outcome = await page.evaluate(async (token) => {
    const socket = await window.doorward.socket('/ws');
    await new Promise((resolve) => socket.addEventListener('message', resolve, { once: true }));
    const closed = new Promise((resolve) => socket.addEventListener('close', ({ code }) => resolve(code)));
    let count = 0;
    try {
      for await (const event of window.doorward.stream('/events')) {
        count = Number(event.data);
        if (count === 2) window.doorward.identify(token);
      }
    } catch (error) {
      return [count, error.reason, await closed];
    }
    return 'the stream ended';
  }, gw.sign({ sub: 'grace' }));
  assert.deepEqual(outcome, [2, 'identity_changed', 4000]);
  assert.equal((await call()).subject, 'grace');
});

test('a WebSocket carries the session, and the backend never sees it', async () => {
  await start({ userToken: gw.sign({ sub: 'ada' }) });
  const outcome = await page.evaluate(async () => {
    const socket = await window.doorward.socket('/ws?room=1', ['chat.v1']);
    const next = () => new Promise((resolve) => socket.addEventListener('message', ({ data }) => resolve(data), { once: true }));
    const hello = JSON.parse(await next());
    socket.send('hi');
    const echo = await next();
    const plain = await window.doorward.socket('/ws');
    await new Promise((resolve, reject) => { plain.addEventListener('open', resolve); plain.addEventListener('error', reject); });
    return { hello, echo, protocols: [socket.protocol, plain.protocol] };
  });
  assert.deepEqual([outcome.echo, outcome.protocols], ['echo hi', ['chat.v1', 'doorward.v1']]);
  assert.deepEqual([outcome.hello.url, outcome.hello.headers['x-identity-subject']], ['/ws?room=1', 'ada']);
  assert.ok(!JSON.stringify(outcome.hello).includes('eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9u'), 'the session token reached the backend');
});

test('EventSource carries a session in the query where the tenant allows it', async () => {
  await start();
  const first = await page.evaluate(async ({ url, key }) => {
    const mint = await fetch(`${url}/v1/embed/session-tokens`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ embed_key: key }) });
    const { token } = await mint.json();
    const source = new EventSource(`${url}/events?session_token=${token}`);
    const data = await new Promise((resolve, reject) => { source.onmessage = (event) => resolve(event.data); source.onerror = reject; });
    source.close();
    return data;
  }, { url: gw.url, key: KEY });
  assert.equal(first, '0');
  assert.equal(gw.upstream.seen.at(-1), 'GET /events', 'the token is removed');
});

test('streams and sockets end with their session, in words that a page can act on', async () => {
  const short = await gateway({ lifetime: '2s', tenant: '[tenant.streams]\nevents = "close"\ngrace = "0s"\n\n[tenant.sessions]\nin_query = true' });
  try {
    await start({}, '/', page, short);
    const outcome = await page.evaluate(async ({ url, key }) => {
      const socket = await window.doorward.socket('/ws');
      const closed = new Promise((resolve) => socket.addEventListener('close', ({ code, wasClean }) => resolve([code, wasClean])));
      const mint = await fetch(`${url}/v1/embed/session-tokens`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ embed_key: key }) });
      const source = new EventSource(`${url}/events?session_token=${(await mint.json()).token}`);
      const last = new Promise((resolve) => source.addEventListener('doorward-expired', (event) => { source.close(); resolve(event.data); }));
      let events = 0;
      const stream = await (async () => {
        try {
          for await (const _ of window.doorward.stream('/events')) events += 1;
          return 'it just ended';
        } catch (error) {
          return [error.name, error.reason];
        }
      })();
      const again = await window.doorward.stream('/events').next();
      return { socket: await closed, stream, flowed: events > 5, source: JSON.parse(await last), again: again.value.data };
    }, { url: short.url, key: KEY });
    assert.deepEqual(outcome, { socket: [4401, true], stream: ['DoorwardError', 'session_expired'], flowed: true, source: { reason: 'session_expired' }, again: '0' });
  } finally {
    await short.close();
  }
});

test('signing out in one of two tabs does not touch the other', async () => {
  const other = await open(context);
  const token = gw.sign({ sub: 'ada' });
  await start({ userToken: token });
  await start({ userToken: token }, '/', other);
  assert.deepEqual([(await call()).subject, (await call('/echo', other)).subject], ['ada', 'ada']);
  await page.evaluate(() => window.doorward.logout());
  assert.deepEqual([(await call()).level, (await call('/echo', other)).subject], ['anonymous', 'ada']);
});

test('the strictest policy of a page is enough: nothing inline, no other host, trusted types', async () => {
  const policy = (connect) => `default-src 'none'; script-src ${gw.url}; connect-src ${connect}; require-trusted-types-for 'script'`;
  const { html } = gw.host.content['/'];
  gw.host.content['/strict'] = { policy: policy(gw.url), html };
  // `http:` does not cover `ws:` (CSP 3, 6.7.2.8): a page with sockets names both.
  gw.host.content['/sockets'] = { policy: policy(`${gw.url} ${gw.url.replace('http', 'ws')}`), html };
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await start({ userToken: gw.sign({ sub: 'ada' }) }, '/strict');
  assert.equal((await call()).subject, 'ada');
  assert.equal(await page.evaluate(async () => (await window.doorward.stream('/events').next()).value.data), '0');
  assert.deepEqual(await page.evaluate(() => window.violations), []);
  // The policy is in force: what it forbids is seen.
  await page.evaluate((url) => fetch(url).catch(() => {}), gw.host.other);
  assert.equal((await page.evaluate(() => window.violations)).length, 1);
  await start({}, '/sockets');
  await page.evaluate(async () => {
    const socket = await window.doorward.socket('/ws');
    await new Promise((resolve, reject) => { socket.addEventListener('message', resolve); socket.addEventListener('error', reject); });
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
  assert.equal((await call()).level, 'anonymous');
});

test('calls that the stub took before the script was there run in order when it is', async () => {
  const stub = readFileSync(`${root}src/client/stub.js`, 'utf8');
  gw.host.content['/stub'] = { html: `<!doctype html><div id="doorward"></div><script>${stub}</script>` };
  await page.goto(`${gw.host.allowed}/stub`);
  await page.evaluate(({ url, key, token }) => {
    const { doorward } = window;
    const [called, streamed, socket] = [doorward.fetch('/echo'), doorward.stream('/events').next(), doorward.socket('/ws')];
    doorward.identify('ada', { token });
    doorward.onIdentityExpired(() => {});
    doorward.init({ gateway: url, embedKey: key });
    window.outcome = Promise.all([called, streamed, socket]).then(async ([response, event, { url: to }]) => [(await response.json()).headers['x-identity-subject'], event.value.data, to]);
  }, { url: gw.url, key: KEY, token: gw.sign({ sub: 'ada' }) });
  await page.addScriptTag({ url: `${gw.url}/doorward.js` });
  assert.deepEqual(await page.evaluate(() => window.outcome), ['ada', '0', `${gw.url.replace('http', 'ws')}/ws`]);
  assert.ok(await page.evaluate(() => Object.isFrozen(window.doorward)));
});

test('an element of the same name is not taken for a queue', async () => {
  gw.host.content['/clobbered'] = { html: `<!doctype html><form id="doorward"><input name="q"></form><script src="${gw.url}/doorward.js"></script>` };
  await start({}, '/clobbered');
  assert.equal((await call()).level, 'anonymous');
});
