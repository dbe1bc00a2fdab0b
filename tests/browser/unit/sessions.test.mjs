/** Sessions of the page's script: how they are minted, shared, kept and renewed, and that no call leaves the gateway. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deferred, denial, fake, jwt, session, settle } from '../support/fake.mjs';

test('an anonymous visitor gets a session with the embed key alone, and keeps it', async () => {
  const gateway = fake();
  gateway.init();
  assert.equal(await session(await gateway.client.fetch('/a')), 1);
  assert.equal(await session(await gateway.client.fetch('/b')), 1);
  assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789' }]);
  assert.deepEqual(
    gateway.calls.map((call) => call.url),
    ['https://gw.test/a', 'https://gw.test/b'],
  );
});

test('a user id and a token travel to the mint; traits stay here', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify('user_1', { token: 'abc', traits: { plan: 'pro' } });
  await gateway.client.fetch('/');
  assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789', user_id: 'user_1', identity_token: 'abc' }]);
  assert.deepEqual(gateway.client.user(), { userId: 'user_1', traits: { plan: 'pro' } });
});

test('a token alone names its user, in UTF-8 and as a number too', async () => {
  const gateway = fake({ userToken: jwt({ sub: 'ädä' }) });
  gateway.init();
  await gateway.client.fetch('/');
  assert.equal(gateway.mints[0].user_id, undefined);
  assert.equal(gateway.client.user().userId, 'ädä');
  gateway.client.identify(jwt({ user_id: 42 }));
  assert.equal(gateway.client.user().userId, '42');
  gateway.client.identify('v2.' + Buffer.from('{"user_id":"k"}').toString('base64url') + '.00');
  assert.equal(gateway.client.user().userId, 'k');
});

test('an opaque token is nothing to show', () => {
  const gateway = fake({ userToken: 'opaque' });
  gateway.init();
  assert.equal(gateway.client.user().userId, null);
});

test('every call is CORS, without cookies or redirects, whatever the page asks', async () => {
  const gateway = fake();
  gateway.init();
  await gateway.client.fetch('/', {
    credentials: 'include',
    redirect: 'follow',
    mode: 'no-cors',
    method: 'PUT',
    headers: { Authorization: 'Bearer mine', 'X-Own': '1' },
  });
  const { init } = gateway.calls[0];
  assert.deepEqual([init.credentials, init.redirect, init.mode, init.method], ['omit', 'error', 'cors', 'PUT']);
  assert.match(init.headers.get('authorization'), /^Bearer ey/);
  assert.equal(init.headers.get('x-own'), '1');
});

test('no URL leaves the gateway, and none is minted for', async () => {
  const gateway = fake();
  gateway.init();
  for (const path of [
    '//evil.test/',
    'https://evil.test/',
    'https://gw.test:444/',
    'http://gw.test/',
    '\\\\evil.test/',
    'data:,x',
    'blob:https://gw.test/1',
    'https://a:b@gw.test/',
    '/\t/evil.test/',
  ]) {
    await assert.rejects(gateway.client.fetch(path), TypeError, path);
    await assert.rejects(gateway.client.stream(path).next(), TypeError, path);
    await assert.rejects(gateway.client.socket(path), TypeError, path);
  }
  assert.equal(gateway.mints.length + gateway.calls.length + gateway.sockets.length, 0);
  await gateway.client.fetch('https://gw.test/x');
  await gateway.client.fetch(new URL('https://gw.test/y'));
  assert.equal(gateway.calls.length, 2);
});

test('init wants a gateway and a key, and a mint that is on the gateway', () => {
  const { client } = fake();
  assert.throws(() => client.init({ gateway: 'ftp://x', embedKey: 'k' }), TypeError);
  assert.throws(() => client.init({ gateway: 'https://gw.test' }), TypeError);
  assert.throws(() => client.init({ gateway: '/relative', embedKey: 'k' }), TypeError);
  assert.throws(() => client.init({ gateway: 'https://gw.test', embedKey: 'k', sessionPath: '//evil.test/' }), TypeError);
});

test('a session counts as expiring 30 s early', async () => {
  const gateway = fake();
  gateway.init();
  await gateway.client.fetch('/');
  gateway.advance(869);
  assert.equal(await session(await gateway.client.fetch('/')), 1);
  gateway.advance(1);
  assert.equal(await session(await gateway.client.fetch('/')), 2);
});

test('concurrent callers share one mint', async () => {
  const gateway = fake();
  gateway.init();
  const responses = await Promise.all(Array.from({ length: 20 }, () => gateway.client.fetch('/')));
  assert.equal(gateway.mints.length, 1);
  assert.equal(gateway.calls.length, 20);
  assert.deepEqual(new Set(await Promise.all(responses.map(session))), new Set([1]));
});

test('a mint that is refused surfaces its reason to everybody, and the next call tries again', async () => {
  const gateway = fake({ onMint: (_, n) => n === 1 && denial(429, 'rate_limited', { 'retry-after': '7' }) });
  gateway.init();
  const results = await Promise.allSettled([gateway.client.fetch('/'), gateway.client.fetch('/')]);
  for (const { reason: error } of results) {
    assert.deepEqual([error.name, error.reason, error.status, error.retryAfter], ['DoorwardError', 'rate_limited', 429, 7]);
    assert.equal((await error.response.clone().json()).reason, 'rate_limited');
  }
  assert.deepEqual([gateway.mints.length, gateway.calls.length], [1, 0]);
  assert.equal((await gateway.client.fetch('/')).status, 200);
});

test('a caller that gives up waiting does not take the mint with it', async () => {
  const answer = deferred();
  const gateway = fake({ onMint: () => answer.promise });
  gateway.init();
  const impatient = new AbortController();
  const first = gateway.client.fetch('/1', { signal: impatient.signal });
  const second = gateway.client.fetch('/2');
  await settle();
  impatient.abort();
  await assert.rejects(first, { name: 'AbortError' });
  answer.resolve(gateway.session(1));
  assert.equal((await second).status, 200);
  assert.deepEqual([gateway.mints.length, gateway.calls.length], [1, 1]);
});

test('an aborted signal stops a call before it starts, and a call under way', async () => {
  const gateway = fake({ onCall: () => deferred().promise });
  gateway.init();
  await assert.rejects(gateway.client.fetch('/', { signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.equal(gateway.calls.length, 0);
  const stop = new AbortController();
  const call = gateway.client.fetch('/', { signal: stop.signal });
  await settle();
  await settle();
  stop.abort();
  await assert.rejects(call, { name: 'AbortError' });
});

for (const code of ['session_expired', 'session_invalid', 'session_revoked', 'token_expired']) {
  test(`${code}: one more attempt with a fresh session and the same body`, async () => {
    const gateway = fake({ onCall: (_, n) => n === 1 && denial(401, code) });
    gateway.init();
    const response = await gateway.client.fetch('/', { method: 'POST', body: 'hello' });
    assert.deepEqual([response.status, response.reason], [200, null]);
    assert.deepEqual(
      gateway.calls.map((call) => [call.session, call.init.body]),
      [
        [1, 'hello'],
        [2, 'hello'],
      ],
    );
  });
}

test('the second refusal is the answer', async () => {
  const gateway = fake({ onCall: () => denial(401, 'session_expired') });
  gateway.init();
  const response = await gateway.client.fetch('/');
  assert.deepEqual([response.status, response.reason, gateway.calls.length, gateway.mints.length], [401, 'session_expired', 2, 2]);
});

for (const [status, code] of [
  [401, 'step_up_required'],
  [403, 'origin_not_allowed'],
  [403, 'subject_mismatch'],
  [403, 'tenant_mismatch'],
  [401, 'token_missing'],
  [401, 'token_signature_invalid'],
  [429, 'rate_limited'],
  [403, 'claim_not_allowed'],
]) {
  test(`${code} is an answer, not a reason to try again`, async () => {
    const gateway = fake({ onCall: () => denial(status, code, { 'www-authenticate': 'Bearer error="x"' }) });
    gateway.init();
    const response = await gateway.client.fetch('/');
    assert.deepEqual([response.status, response.reason, gateway.calls.length, gateway.mints.length], [status, code, 1, 1]);
    assert.equal(response.headers.get('www-authenticate'), 'Bearer error="x"');
  });
}

test("the agent's own 401 is the agent's", async () => {
  const gateway = fake({ onCall: () => new Response('no', { status: 401 }) });
  gateway.init();
  const response = await gateway.client.fetch('/');
  assert.deepEqual([response.status, response.reason, gateway.calls.length], [401, null, 1]);
});

test('a body that can be read once is not sent twice', async () => {
  const gateway = fake({ onCall: () => denial(401, 'session_expired') });
  gateway.init();
  const body = new ReadableStream();
  const response = await gateway.client.fetch('/', { method: 'POST', body, duplex: 'half' });
  assert.deepEqual([response.reason, gateway.calls.length], ['session_expired', 1]);
});

test('many calls refused for one session renew it once', async () => {
  const gateway = fake({ onCall: (call) => call.session === 1 && denial(401, 'session_revoked') });
  gateway.init();
  const responses = await Promise.all(Array.from({ length: 10 }, () => gateway.client.fetch('/')));
  assert.ok(responses.every((response) => response.status === 200));
  assert.deepEqual([gateway.mints.length, gateway.calls.length], [2, 20]);
});

test('a refusal of an old session that comes late does not cost the new one', async () => {
  const late = deferred();
  const gateway = fake({
    onCall: (call) =>
      call.url.endsWith('/late') && call.session === 1 ? late.promise : call.session === 1 && denial(401, 'session_expired'),
  });
  gateway.init();
  const slow = gateway.client.fetch('/late');
  assert.equal(await session(await gateway.client.fetch('/')), 2);
  late.resolve(denial(401, 'session_expired'));
  assert.equal(await session(await slow), 2);
  assert.equal(gateway.mints.length, 2);
});
