/** /doorward.js in a real browser, served by the real gateway, on pages of several origins. */

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach } from 'node:test';
import { launch, open, test } from '../support/browser.mjs';
import { KEY, gateway } from '../support/gateway.mjs';
import { call, start, until } from '../support/script.mjs';

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

test('anonymous, claimed and verified', async () => {
  await start(page, gw);
  assert.deepEqual(await call(page), { status: 200, reason: null, level: 'anonymous', subject: undefined });
  await page.evaluate((token) => window.doorward.identify('ada', { token }), gw.sign({ sub: 'ada' }));
  assert.deepEqual(await call(page), { status: 200, reason: null, level: 'verified', subject: 'ada' });
  await page.evaluate(() => window.doorward.identify('ada2', {}));
  assert.deepEqual(await call(page), { thrown: 'DoorwardError', reason: 'token_missing' });
  await page.evaluate(() => window.doorward.logout());
  assert.equal((await call(page)).level, 'anonymous');
});

test('a forged token is refused, and never taken for nobody', async () => {
  const [header, , signature] = gw.sign({ sub: 'ada' }).split('.');
  const forged = [header, Buffer.from('{"sub":"root","exp":4102444800}').toString('base64url'), signature].join('.');
  await start(page, gw, { userToken: forged });
  assert.deepEqual(await call(page), { thrown: 'DoorwardError', reason: 'token_signature_invalid' });
});

test('an expired token is renewed without a lost call, and said once where it cannot be', async () => {
  const expired = gw.sign({ sub: 'ada', exp: Math.floor(Date.now() / 1000) - 600 });
  await start(page, gw, { userToken: expired });
  await page.evaluate(() => {
    window.expiries = 0;
    window.doorward.onIdentityExpired(() => {
      window.expiries += 1;
    });
  });
  assert.deepEqual(await call(page), { thrown: 'DoorwardError', reason: 'token_expired' });
  assert.deepEqual(await call(page), { thrown: 'DoorwardError', reason: 'token_expired' });
  assert.equal(await page.evaluate(() => window.expiries), 1);
  await page.evaluate(
    (token) =>
      window.doorward.setIdentityTokenFetcher(async () => {
        window.asked = (window.asked ?? 0) + 1;
        return token;
      }),
    gw.sign({ sub: 'ada' }),
  );
  const statuses = await page.evaluate(() =>
    Promise.all(Array.from({ length: 10 }, async (_, n) => (await window.doorward.fetch(`/echo?${n}`)).status)),
  );
  assert.deepEqual([statuses, await page.evaluate(() => window.asked)], [Array(10).fill(200), 1]);
});

test('a fetcher that returns null leaves an anonymous visitor', async () => {
  await start(page, gw);
  await page.evaluate(() => window.doorward.setIdentityTokenFetcher(async () => null));
  assert.equal((await call(page)).level, 'anonymous');
});

test('a session that is revoked is minted anew, once', async () => {
  await start(page, gw, { userToken: gw.sign({ sub: 'ada' }) });
  const session = await page.evaluate(async () => (await (await window.doorward.fetch('/echo')).json()).headers['x-identity-session-id']);
  gw.revoke(`session ${session}`);
  const renewed = await until('another session', () =>
    page.evaluate(async (old) => {
      const now = (await (await window.doorward.fetch('/echo')).json()).headers['x-identity-session-id'];
      return now !== old && now;
    }, session),
  );
  assert.match(renewed, /^[0-9a-f]{32}$/);
});

test('step-up: a challenge to act on, a pass, and its end', async () => {
  await start(page, gw, { userToken: gw.sign({ sub: 'ada' }) });
  const challenge = await page.evaluate(async () => {
    const response = await window.doorward.fetch('/approvals/7', { method: 'POST' });
    return [response.reason, response.headers.get('www-authenticate')];
  });
  assert.equal(challenge[0], 'step_up_required');
  assert.match(challenge[1], /error="insufficient_user_authentication".*max_age=3/);
  const stepped = gw.sign({ sub: 'ada', amr: ['mfa'], auth_time: Math.floor(Date.now() / 1000) });
  await page.evaluate((token) => window.doorward.identify('ada', { token }), stepped);
  assert.deepEqual(await call(page, '/approvals/7'), { status: 200, reason: null, level: 'stepped_up', subject: 'ada' });
  const ended = await until('the end of the step-up', async () => {
    const answer = await call(page, '/approvals/7');
    return answer.status === 401 && answer;
  });
  assert.equal(ended.reason, 'step_up_required');
  assert.equal((await call(page)).level, 'verified');
});

test('an origin that is not allowed: the browser keeps everything from the page', async () => {
  await page.goto(gw.host.other);
  await page.evaluate((all) => window.doorward.init(all), { gateway: gw.url, embedKey: KEY });
  assert.deepEqual(await call(page), { thrown: 'TypeError', reason: undefined });
  assert.ok(
    page.said.some((text) => text.includes('blocked by CORS policy')),
    page.said.join('\n'),
  );
});

test('an origin that is allowed reads the reason, in code and in the console', async () => {
  await start(page, gw, { embedKey: 'pk_test_wrong_0123456789' });
  assert.deepEqual(await call(page), { thrown: 'DoorwardError', reason: 'embed_key_unknown' });
  assert.ok(
    page.said.some((text) => /^doorward: 403 embed_key_unknown \(request [0-9a-f]{32}\)$/.test(text)),
    page.said.join('\n'),
  );
});

test('preflights are remembered by the browser', async () => {
  const preflights = async () => {
    const text = await (await fetch(`${gw.admin}/metrics`)).text();
    return [...text.matchAll(/^doorward_requests_total\{.*outcome="preflight".*\} (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
  };
  await start(page, gw);
  const before = await preflights();
  for (let i = 0; i < 5; i += 1) assert.equal((await call(page)).status, 200);
  assert.equal((await preflights()) - before, 2, 'one for the mint, one for the path');
});

test('an event stream comes in as it is sent, and stops with its reader', async () => {
  await start(page, gw);
  const read = await page.evaluate(async () => {
    const all = [];
    for await (const event of window.doorward.stream('/events')) {
      all.push(event);
      if (all.length === 3) break;
    }
    return all;
  });
  assert.deepEqual(
    read,
    [0, 1, 2].map((n) => ({ event: 'message', data: String(n), id: String(n) })),
  );
});

test('a changed user drops streams and sockets at once', async () => {
  await start(page, gw, { userToken: gw.sign({ sub: 'ada' }) });
  const outcome = await page.evaluate(
    async (token) => {
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
    },
    gw.sign({ sub: 'grace' }),
  );
  assert.deepEqual(outcome, [2, 'identity_changed', 4000]);
  assert.equal((await call(page)).subject, 'grace');
});

test('a WebSocket carries the session, and the backend never sees it', async () => {
  await start(page, gw, { userToken: gw.sign({ sub: 'ada' }) });
  const outcome = await page.evaluate(async () => {
    const socket = await window.doorward.socket('/ws?room=1', ['chat.v1']);
    const next = () => new Promise((resolve) => socket.addEventListener('message', ({ data }) => resolve(data), { once: true }));
    const hello = JSON.parse(await next());
    socket.send('hi');
    const echo = await next();
    const plain = await window.doorward.socket('/ws');
    await new Promise((resolve, reject) => {
      plain.addEventListener('open', resolve);
      plain.addEventListener('error', reject);
    });
    return { hello, echo, protocols: [socket.protocol, plain.protocol] };
  });
  assert.deepEqual([outcome.echo, outcome.protocols], ['echo hi', ['chat.v1', 'doorward.v1']]);
  assert.deepEqual([outcome.hello.url, outcome.hello.headers['x-identity-subject']], ['/ws?room=1', 'ada']);
  assert.ok(!JSON.stringify(outcome.hello).includes('eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9u'), 'the session token reached the backend');
});

test('EventSource carries a session in the query where the tenant allows it', async () => {
  await start(page, gw);
  const first = await page.evaluate(
    async ({ url, key }) => {
      const mint = await fetch(`${url}/v1/embed/session-tokens`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ embed_key: key }),
      });
      const { token } = await mint.json();
      const source = new EventSource(`${url}/events?session_token=${token}`);
      const data = await new Promise((resolve, reject) => {
        source.onmessage = (event) => resolve(event.data);
        source.onerror = reject;
      });
      source.close();
      return data;
    },
    { url: gw.url, key: KEY },
  );
  assert.equal(first, '0');
  assert.equal(gw.upstream.seen.at(-1), 'GET /events', 'the token is removed');
});

test('streams and sockets end with their session, in words that a page can act on', async () => {
  const short = await gateway({
    lifetime: '2s',
    tenant: '[tenant.streams]\nevents = "close"\ngrace = "0s"\n\n[tenant.sessions]\nin_query = true',
  });
  try {
    await start(page, short, {});
    const outcome = await page.evaluate(
      async ({ url, key }) => {
        const socket = await window.doorward.socket('/ws');
        const closed = new Promise((resolve) => socket.addEventListener('close', ({ code, wasClean }) => resolve([code, wasClean])));
        const mint = await fetch(`${url}/v1/embed/session-tokens`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ embed_key: key }),
        });
        const source = new EventSource(`${url}/events?session_token=${(await mint.json()).token}`);
        const last = new Promise((resolve) =>
          source.addEventListener('doorward-expired', (event) => {
            source.close();
            resolve(event.data);
          }),
        );
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
      },
      { url: short.url, key: KEY },
    );
    assert.deepEqual(outcome, {
      socket: [4401, true],
      stream: ['DoorwardError', 'session_expired'],
      flowed: true,
      source: { reason: 'session_expired' },
      again: '0',
    });
  } finally {
    await short.close();
  }
});

test('signing out in one of two tabs does not touch the other', async () => {
  const other = await open(context);
  const token = gw.sign({ sub: 'ada' });
  await start(page, gw, { userToken: token });
  await start(other, gw, { userToken: token });
  assert.deepEqual([(await call(page)).subject, (await call(other)).subject], ['ada', 'ada']);
  await page.evaluate(() => window.doorward.logout());
  assert.deepEqual([(await call(page)).level, (await call(other)).subject], ['anonymous', 'ada']);
});
