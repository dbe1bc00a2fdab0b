/** The rules of the page's script, one by one, against a gateway in memory: sessions, refreshes, generations, streams. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { create } from '../../../src/client/doorward.js';
import { deferred, denial, eventStream, fake, jwt, settle } from '../support/fake.mjs';

mock.method(console, 'warn', () => {});

const reason = (code) => (error) => error.name === 'DoorwardError' && error.reason === code;
const changed = reason('identity_changed');
const session = async (response) => (await response.json()).session;

// Sessions

test('an anonymous visitor gets a session with the embed key alone, and keeps it', async () => {
  const gateway = fake();
  gateway.init();
  assert.equal(await session(await gateway.client.fetch('/a')), 1);
  assert.equal(await session(await gateway.client.fetch('/b')), 1);
  assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789' }]);
  assert.deepEqual(gateway.calls.map((call) => call.url), ['https://gw.test/a', 'https://gw.test/b']);
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
    credentials: 'include', redirect: 'follow', mode: 'no-cors', method: 'PUT', headers: { Authorization: 'Bearer mine', 'X-Own': '1' },
  });
  const { init } = gateway.calls[0];
  assert.deepEqual([init.credentials, init.redirect, init.mode, init.method], ['omit', 'error', 'cors', 'PUT']);
  assert.match(init.headers.get('authorization'), /^Bearer ey/);
  assert.equal(init.headers.get('x-own'), '1');
});

test('no URL leaves the gateway, and none is minted for', async () => {
  const gateway = fake();
  gateway.init();
  for (const path of ['//evil.test/', 'https://evil.test/', 'https://gw.test:444/', 'http://gw.test/', '\\\\evil.test/', 'data:,x', 'blob:https://gw.test/1', 'https://a:b@gw.test/', '/\t/evil.test/']) {
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

// Retries

for (const code of ['session_expired', 'session_invalid', 'session_revoked', 'token_expired']) {
  test(`${code}: one more attempt with a fresh session and the same body`, async () => {
    const gateway = fake({ onCall: (_, n) => n === 1 && denial(401, code) });
    gateway.init();
    const response = await gateway.client.fetch('/', { method: 'POST', body: 'hello' });
    assert.deepEqual([response.status, response.reason], [200, null]);
    assert.deepEqual(gateway.calls.map((call) => [call.session, call.init.body]), [[1, 'hello'], [2, 'hello']]);
  });
}

test('the second refusal is the answer', async () => {
  const gateway = fake({ onCall: () => denial(401, 'session_expired') });
  gateway.init();
  const response = await gateway.client.fetch('/');
  assert.deepEqual([response.status, response.reason, gateway.calls.length, gateway.mints.length], [401, 'session_expired', 2, 2]);
});

for (const [status, code] of [
  [401, 'step_up_required'], [403, 'origin_not_allowed'], [403, 'subject_mismatch'], [403, 'tenant_mismatch'], [401, 'token_missing'],
  [401, 'token_signature_invalid'], [429, 'rate_limited'], [403, 'claim_not_allowed'],
]) {
  test(`${code} is an answer, not a reason to try again`, async () => {
    const gateway = fake({ onCall: () => denial(status, code, { 'www-authenticate': 'Bearer error="x"' }) });
    gateway.init();
    const response = await gateway.client.fetch('/');
    assert.deepEqual([response.status, response.reason, gateway.calls.length, gateway.mints.length], [status, code, 1, 1]);
    assert.equal(response.headers.get('www-authenticate'), 'Bearer error="x"');
  });
}

test('the agent\'s own 401 is the agent\'s', async () => {
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
    onCall: (call) => (call.url.endsWith('/late') && call.session === 1 ? late.promise : call.session === 1 && denial(401, 'session_expired')),
  });
  gateway.init();
  const slow = gateway.client.fetch('/late');
  assert.equal(await session(await gateway.client.fetch('/')), 2);
  late.resolve(denial(401, 'session_expired'));
  assert.equal(await session(await slow), 2);
  assert.equal(gateway.mints.length, 2);
});

// The fetcher

test('the fetcher is asked when there is no token, once for all that wait', async () => {
  const answer = deferred();
  const fetcher = mock.fn(() => answer.promise);
  const gateway = fake({ getUserToken: fetcher });
  gateway.init();
  const calls = [gateway.client.fetch('/1'), gateway.client.fetch('/2'), gateway.client.stream('/3').next()];
  await settle();
  assert.equal(gateway.mints.length, 0);
  const token = jwt({ sub: 'ada', exp: gateway.seconds(3600) });
  answer.resolve(token);
  await Promise.all(calls);
  assert.equal(fetcher.mock.callCount(), 1);
  assert.deepEqual(gateway.mints.map((mint) => mint.identity_token), [token]);
});

for (const nobody of [null, '', undefined]) {
  test(`a fetcher that returns ${JSON.stringify(nobody)} leaves an anonymous visitor`, async () => {
    const fetcher = mock.fn(async () => nobody);
    const gateway = fake({ getUserToken: fetcher });
    gateway.init();
    await gateway.client.fetch('/');
    await gateway.client.fetch('/');
    assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789' }]);
    assert.equal(fetcher.mock.callCount(), 1);
    assert.equal(gateway.client.user().userId, null);
  });
}

test('a token within the skew of its expiry is renewed before it is used', async () => {
  for (const [skew, left, asked] of [[undefined, 299, 1], [undefined, 302, 0], [60, 59, 1], [60, 62, 0]]) {
    const gateway = fake({ skew });
    const fetcher = mock.fn(async () => jwt({ sub: 'ada', exp: gateway.seconds(3600) }));
    const old = jwt({ sub: 'ada', iat: gateway.seconds(-3000), exp: gateway.seconds(left) });
    gateway.init({ getUserToken: fetcher, userToken: old });
    await gateway.client.fetch('/');
    assert.equal(fetcher.mock.callCount(), asked, `${skew} ${left}`);
    assert.equal(gateway.mints[0].identity_token !== old, asked === 1);
  }
});

test('a live session too is renewed when its token nears expiry, and streams stay', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: (call) => call.url.endsWith('/s') && events.response(), onMint: () => gateway.session(gateway.mints.length, 7200) });
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', exp: gateway.seconds(3600) }));
  gateway.init({ getUserToken: fetcher });
  const stream = gateway.client.stream('/s');
  const first = stream.next();
  await settle();
  gateway.advance(3301);
  assert.equal(await session(await gateway.client.fetch('/')), 2);
  assert.equal(fetcher.mock.callCount(), 2);
  events.write('data: still here\n\n');
  assert.equal((await first).value.data, 'still here');
});

test('a fetched token that is shorter than the skew is not asked for at every call', async () => {
  const gateway = fake();
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', exp: gateway.seconds(120) }));
  gateway.init({ getUserToken: fetcher });
  for (let i = 0; i < 5; i += 1) await gateway.client.fetch('/');
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length], [1, 1]);
  gateway.advance(61);
  await gateway.client.fetch('/');
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length], [2, 2]);
});

test('a step-up that is shorter than the skew is not renewed away', async () => {
  for (const iat of [undefined, 0]) {
    const gateway = fake();
    const fetcher = mock.fn(async () => jwt({ sub: 'ada', exp: gateway.seconds(3600) }));
    gateway.init({ getUserToken: fetcher });
    const stepped = jwt({ sub: 'ada', amr: ['mfa'], exp: gateway.seconds(300), iat: iat === 0 ? gateway.seconds(0) : iat });
    gateway.client.identify('ada', { token: stepped });
    await gateway.client.fetch('/');
    gateway.advance(149);
    await gateway.client.fetch('/');
    assert.deepEqual([fetcher.mock.callCount(), gateway.mints.map((mint) => mint.identity_token)], [0, [stepped]]);
    gateway.advance(1);
    await gateway.client.fetch('/');
    assert.equal(fetcher.mock.callCount(), 1);
  }
});

test('a clock that is ahead by nearly a token\'s life does not ask at every call', async () => {
  const gateway = fake();
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', iat: gateway.seconds(-240), exp: gateway.seconds(60) }));
  gateway.init({ getUserToken: fetcher });
  for (let i = 0; i < 5; i += 1) await gateway.client.fetch('/');
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length], [1, 1]);
});

test('a clock that is wrong by a day neither loops nor locks anybody out', async () => {
  const gateway = fake();
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', exp: gateway.seconds(-86_400) }));
  gateway.init({ getUserToken: fetcher });
  for (let i = 0; i < 5; i += 1) assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length], [1, 1]);
});

test('token_expired from a call: the fetcher is asked, and the call made again', async () => {
  const gateway = fake({ onCall: (_, n) => n === 1 && denial(401, 'token_expired') });
  const tokens = [jwt({ sub: 'ada', n: 1 }), jwt({ sub: 'ada', n: 2 })];
  const rest = [...tokens];
  gateway.init({ getUserToken: async () => rest.shift() });
  assert.equal((await gateway.client.fetch('/', { method: 'POST', body: 'message' })).status, 200);
  assert.deepEqual(gateway.mints.map((mint) => mint.identity_token), tokens);
  assert.deepEqual(gateway.calls.map((call) => call.init.body), ['message', 'message']);
});

test('token_expired from the mint: the fetcher is asked once, and the mint made again', async () => {
  const gateway = fake({ onMint: (_, n) => n === 1 && denial(401, 'token_expired') });
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', n: 2 }));
  const listener = mock.fn();
  gateway.init({ userToken: jwt({ sub: 'ada', n: 1 }), getUserToken: fetcher });
  gateway.client.onIdentityExpired(listener);
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length, listener.mock.callCount()], [1, 2, 0]);
});

test('a fetcher whose tokens are always expired ends in an error, not a loop', async () => {
  const gateway = fake({ onMint: () => denial(401, 'token_expired') });
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', n: fetcher.mock.callCount() }));
  gateway.init({ getUserToken: fetcher });
  await assert.rejects(gateway.client.fetch('/'), reason('token_expired'));
  assert.deepEqual([fetcher.mock.callCount(), gateway.mints.length], [1, 1]);
});

test('a fetcher that fails makes the call fail, never anonymous, and is asked again', async () => {
  let works = false;
  const gateway = fake();
  gateway.init({ getUserToken: async () => { if (!works) throw new Error('host is down'); return jwt({ sub: 'ada' }); } });
  await assert.rejects(gateway.client.fetch('/'), /host is down/);
  assert.equal(gateway.mints.length, 0);
  works = true;
  assert.equal((await gateway.client.fetch('/')).status, 200);
});

test('a fetcher that fails while the old token is good lets it serve to its end', async () => {
  const gateway = fake();
  const fetcher = mock.fn(async () => { throw new Error('host is down'); });
  gateway.init({ userToken: jwt({ sub: 'ada', iat: gateway.seconds(-3000), exp: gateway.seconds(200) }), getUserToken: fetcher });
  for (let i = 0; i < 3; i += 1) assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.equal(fetcher.mock.callCount(), 1);
  gateway.advance(201);
  await assert.rejects(gateway.client.fetch('/'), /host is down/);
});

test('a fetcher that returns another user drops the old one, not the message into the new', async () => {
  const gateway = fake();
  const users = ['ada', 'grace'];
  gateway.init({ getUserToken: async () => jwt({ sub: users.shift(), exp: gateway.seconds(600) }) });
  await gateway.client.fetch('/');
  gateway.advance(900);
  await assert.rejects(gateway.client.fetch('/', { method: 'POST', body: 'from ada' }), changed);
  assert.equal(gateway.calls.length, 1);
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.equal(gateway.client.user().userId, 'grace');
  assert.equal(gateway.mints.length, 2);
});

test('a fetcher that returns nobody later drops the user', async () => {
  const gateway = fake();
  const tokens = [jwt({ sub: 'ada', exp: gateway.seconds(600) }), null, null];
  gateway.init({ getUserToken: async () => tokens.shift() });
  await gateway.client.fetch('/');
  gateway.advance(900);
  await assert.rejects(gateway.client.fetch('/'), changed);
  await gateway.client.fetch('/');
  assert.equal(gateway.mints.at(-1).identity_token, undefined);
});

test('hex tokens: the id stays when the fetcher renews them', async () => {
  const gateway = fake({ onCall: (_, n) => n === 1 && denial(401, 'token_expired') });
  const tokens = ['aa', 'bb'];
  gateway.init({ getUserToken: async () => tokens.shift() });
  gateway.client.identify('ada', {});
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.deepEqual(gateway.mints.map((mint) => [mint.user_id, mint.identity_token]), [['ada', 'aa'], ['ada', 'bb']]);
});

test('identify() is faster than the fetcher: what the fetcher answers late is dropped', async () => {
  const answer = deferred();
  const gateway = fake({ getUserToken: () => answer.promise });
  gateway.init();
  const call = gateway.client.fetch('/');
  await settle();
  const token = jwt({ sub: 'grace' });
  gateway.client.identify(token);
  answer.resolve(jwt({ sub: 'ada' }));
  assert.equal((await call).status, 200);
  assert.deepEqual(gateway.mints.map((mint) => mint.identity_token), [token]);
});

test('a fetcher that is set after anonymous calls begins anew', async () => {
  const gateway = fake();
  gateway.init();
  await gateway.client.fetch('/');
  gateway.client.setIdentityTokenFetcher(async () => jwt({ sub: 'ada' }));
  await gateway.client.fetch('/');
  assert.deepEqual([gateway.mints.length, gateway.client.user().userId], [2, 'ada']);
});

// Expiry

test('onIdentityExpired: once per token, however many calls fail', async () => {
  const gateway = fake({ onMint: (body) => body.identity_token && denial(401, 'token_expired') });
  const listener = mock.fn();
  gateway.init({ userToken: jwt({ sub: 'ada', n: 1 }) });
  const stop = gateway.client.onIdentityExpired(listener);
  await Promise.allSettled([gateway.client.fetch('/'), gateway.client.fetch('/')]);
  await assert.rejects(gateway.client.fetch('/'), reason('token_expired'));
  assert.equal(listener.mock.callCount(), 1);
  gateway.client.identify(jwt({ sub: 'ada', n: 2 }));
  await assert.rejects(gateway.client.fetch('/'), reason('token_expired'));
  assert.equal(listener.mock.callCount(), 2);
  stop();
  gateway.client.identify(jwt({ sub: 'ada', n: 3 }));
  await assert.rejects(gateway.client.fetch('/'), reason('token_expired'));
  assert.equal(listener.mock.callCount(), 2);
});

test('onIdentityExpired: also where the gateway lets an expired user go on as nobody', async () => {
  const gateway = fake({ onMint: () => Response.json({ token: jwt({}), expires_in: 900 }) });
  const listener = mock.fn();
  gateway.init({ userToken: jwt({ sub: 'ada', exp: gateway.seconds(-1) }) });
  gateway.client.onIdentityExpired(listener);
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.equal(listener.mock.callCount(), 1);
});

test('onIdentityExpired: not for a token that is renewed', async () => {
  const gateway = fake();
  const listener = mock.fn();
  gateway.init({ userToken: jwt({ sub: 'ada', exp: gateway.seconds(-1) }), getUserToken: async () => jwt({ sub: 'ada', exp: gateway.seconds(600) }) });
  gateway.client.onIdentityExpired(listener);
  await gateway.client.fetch('/');
  assert.equal(listener.mock.callCount(), 0);
});

// Generations

test('the first mint waits for a pending identify', async () => {
  for (const identify of [(c, t) => c.identify(t), (c, t) => c.identify('ada', { token: t })]) {
    const pending = deferred();
    const gateway = fake();
    gateway.init();
    identify(gateway.client, pending.promise);
    const call = gateway.client.fetch('/');
    await settle();
    assert.equal(gateway.mints.length, 0);
    const token = jwt({ sub: 'ada' });
    pending.resolve(token);
    assert.equal((await call).status, 200);
    assert.deepEqual(gateway.mints.map((mint) => mint.identity_token), [token]);
  }
});

test('a pending identify that fails makes calls fail until somebody is identified: never anonymous', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify(Promise.reject(new Error('host is down')));
  await settle();
  await assert.rejects(gateway.client.fetch('/'), /host is down/);
  await assert.rejects(gateway.client.fetch('/'), /host is down/);
  assert.equal(gateway.mints.length, 0);
  gateway.client.identify(jwt({ sub: 'ada' }));
  assert.equal((await gateway.client.fetch('/')).status, 200);
});

test('a pending identify is overtaken by the next one', async () => {
  const slow = deferred();
  const gateway = fake();
  gateway.init();
  gateway.client.identify(slow.promise);
  const call = gateway.client.fetch('/');
  const token = jwt({ sub: 'grace' });
  gateway.client.identify(token);
  slow.resolve(jwt({ sub: 'ada' }));
  await call;
  assert.deepEqual([gateway.mints.map((mint) => mint.identity_token), gateway.client.user().userId], [[token], 'grace']);
});

test('identify in the same task as the first call comes first', async () => {
  const gateway = fake();
  gateway.init();
  const call = gateway.client.fetch('/');
  gateway.client.identify('ada', { token: 't' });
  await call;
  assert.deepEqual(gateway.mints.map((mint) => mint.user_id), ['ada']);
});

test('the same user with another token: a new session at once, calls and streams stay', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: (call) => call.url.endsWith('/s') && events.response() });
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  const stream = gateway.client.stream('/s');
  const first = stream.next();
  await settle();
  const stepped = jwt({ sub: 'ada', amr: ['mfa'] });
  gateway.client.identify('ada', { token: stepped });
  assert.equal(await session(await gateway.client.fetch('/')), 2);
  assert.equal(gateway.mints[1].identity_token, stepped);
  events.write('data: x\n\n');
  assert.equal((await first).value.data, 'x');
});

test('the same user with a newer token while a mint is under way: the newer one counts', async () => {
  const answers = [deferred(), deferred()];
  const gateway = fake({ onMint: (_, n) => answers[n - 1].promise });
  gateway.init({ userToken: jwt({ sub: 'ada', n: 1 }) });
  const call = gateway.client.fetch('/');
  await settle();
  gateway.client.identify(jwt({ sub: 'ada', n: 2 }));
  answers[0].resolve(gateway.session(1));
  await settle();
  answers[1].resolve(gateway.session(2));
  assert.equal(await session(await call), 2);
});

test('the same user and the same token change nothing', async () => {
  const gateway = fake();
  const token = jwt({ sub: 'ada' });
  gateway.init({ userToken: token });
  await gateway.client.fetch('/');
  gateway.client.identify(token);
  gateway.client.identify('ada', { token });
  gateway.client.identify('ada', { traits: { plan: 'pro' } });
  await gateway.client.fetch('/');
  assert.equal(gateway.mints.length, 1);
});

test('another user: calls, streams and sockets of the old one fail at once', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: (call) => (call.url.endsWith('/s') ? events.response() : call.session === 1 ? deferred().promise : undefined) });
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  const stream = gateway.client.stream('/s');
  const first = stream.next();
  const call = gateway.client.fetch('/slow');
  const socket = await gateway.client.socket('/ws');
  await settle();
  events.write('data: for ada\n\n');
  assert.equal((await first).value.data, 'for ada');
  const second = stream.next();
  gateway.client.identify(jwt({ sub: 'grace' }));
  assert.deepEqual(socket.closedWith, { code: 4000, reason: 'identity_changed' });
  await assert.rejects(call, changed);
  await assert.rejects(second, changed);
  assert.equal(await session(await gateway.client.fetch('/')), 2);
});

test('events that had arrived for the old user are not shown to the new one', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  const stream = gateway.client.stream('/s');
  const first = stream.next();
  await settle();
  events.write('data: 1\n\ndata: 2\n\n');
  await first;
  gateway.client.identify(jwt({ sub: 'grace' }));
  await assert.rejects(stream.next(), changed);
});

test('a body that is still arriving fails when the user changes', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  const response = await gateway.client.fetch('/');
  const text = response.text();
  gateway.client.identify(jwt({ sub: 'grace' }));
  await assert.rejects(text, changed);
});

test('a mint that answers for the old user is thrown away', async () => {
  const slow = deferred();
  const gateway = fake({ onMint: (_, n) => n === 1 && slow.promise });
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  const old = gateway.client.fetch('/');
  await settle();
  gateway.client.identify(jwt({ sub: 'grace' }));
  await assert.rejects(old, changed);
  slow.resolve(gateway.session(1));
  await settle();
  assert.equal(await session(await gateway.client.fetch('/')), 2);
});

test('a fetcher that answers for the old user is thrown away', async () => {
  const slow = deferred();
  const gateway = fake({ getUserToken: () => slow.promise });
  gateway.init();
  gateway.client.identify('ada', {});
  const old = gateway.client.fetch('/');
  await settle();
  gateway.client.identify('grace', { token: 'g' });
  await assert.rejects(old, changed);
  slow.resolve('a');
  await settle();
  await gateway.client.fetch('/');
  assert.deepEqual(gateway.mints.map((mint) => [mint.user_id, mint.identity_token]), [['grace', 'g']]);
});

test('calls between two users belong to the first, also before init', async () => {
  const gateway = fake();
  const zero = gateway.client.fetch('/0');
  gateway.client.identify(jwt({ sub: 'ada' }));
  const first = gateway.client.fetch('/1');
  gateway.client.identify(jwt({ sub: 'grace' }));
  const second = gateway.client.fetch('/2');
  gateway.init();
  await assert.rejects(zero, changed); // became ada's
  await assert.rejects(first, changed);
  assert.equal((await second).status, 200);
  assert.deepEqual(gateway.calls.map((call) => call.url), ['https://gw.test/2']);
});

test('an anonymous visitor who signs in is another user', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init();
  const next = gateway.client.stream('/').next();
  await settle();
  gateway.client.identify(jwt({ sub: 'ada' }));
  await assert.rejects(next, changed);
});

test('a claimed id goes without a token, and takes one later', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify('ada', {});
  await gateway.client.fetch('/');
  gateway.client.identify('ada', { token: 'aa' });
  await gateway.client.fetch('/');
  assert.deepEqual(gateway.mints.map((mint) => [mint.user_id, mint.identity_token]), [['ada', undefined], ['ada', 'aa']]);
});

test('another user takes neither id nor traits nor token of the old one along', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify('ada', { token: 'aa', traits: { plan: 'pro' } });
  await gateway.client.fetch('/');
  gateway.client.identify('grace', {});
  await gateway.client.fetch('/');
  assert.deepEqual(gateway.mints[1], { embed_key: 'pk_test_0123456789', user_id: 'grace' });
  assert.deepEqual(gateway.client.user(), { userId: 'grace', traits: undefined });
});

test('a claimed id does not inherit a token that was pending', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify(Promise.resolve(jwt({ sub: 'ada' })));
  gateway.client.identify('grace', {});
  await gateway.client.fetch('/');
  assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789', user_id: 'grace' }]);
});

for (const leave of [(c) => c.logout(), (c) => c.identify(null), (c) => c.identify('')]) {
  test(`signing out: ${leave}`, async () => {
    const events = eventStream();
    const gateway = fake({ onCall: (call) => call.url.endsWith('/s') && events.response() });
    const fetcher = mock.fn(async () => jwt({ sub: 'ada' }));
    gateway.init({ getUserToken: fetcher });
    const next = gateway.client.stream('/s').next();
    await settle();
    await settle();
    leave(gateway.client);
    await assert.rejects(next, changed);
    await gateway.client.fetch('/');
    // The host may still be signing out: its fetcher is not asked for whoever is there now.
    assert.deepEqual([fetcher.mock.callCount(), gateway.mints.at(-1).identity_token], [1, undefined]);
    gateway.client.identify('ada', {});
    await gateway.client.fetch('/');
    assert.equal(fetcher.mock.callCount(), 2);
  });
}

test('calls before init run after it, in the identity that was queued', async () => {
  const gateway = fake();
  const call = gateway.client.fetch('/early');
  const next = gateway.client.stream('/s').next();
  gateway.client.identify('ada', { token: 't' });
  const socket = gateway.client.socket('/ws');
  await settle();
  assert.equal(gateway.mints.length, 0);
  gateway.init();
  await Promise.all([call, next, socket]);
  assert.deepEqual(gateway.mints.map((mint) => mint.user_id), ['ada']);
});

test('a second init is another gateway for another user', async () => {
  const gateway = fake({ onCall: () => deferred().promise });
  gateway.init();
  const call = gateway.client.fetch('/');
  await settle();
  gateway.init();
  await assert.rejects(call, changed);
});

test('two clients share nothing', async () => {
  const one = fake();
  const two = fake();
  one.init({ userToken: jwt({ sub: 'ada' }) });
  two.init();
  await Promise.all([one.client.fetch('/'), two.client.fetch('/')]);
  one.client.logout();
  await two.client.fetch('/');
  assert.deepEqual([one.mints.length, two.mints.length, two.mints[0].identity_token], [1, 1, undefined]);
});

// Sockets

test('a socket carries the session as a subprotocol beside the page\'s own', async () => {
  const gateway = fake();
  gateway.init();
  await gateway.client.socket('/ws?x=1', ['chat.v2']);
  await gateway.client.socket('/ws', 'chat.v1');
  const [first, second] = gateway.sockets;
  assert.equal(first.url, 'wss://gw.test/ws?x=1');
  assert.deepEqual([first.protocols[0], first.protocols[2]], ['doorward.v1', 'chat.v2']);
  assert.match(first.protocols[1], /^doorward\.token\.ey/);
  assert.deepEqual(second.protocols.slice(2), ['chat.v1']);
});

test('a socket that was closed for an expired session: the next one has a new session', async () => {
  const gateway = fake();
  gateway.init();
  (await gateway.client.socket('/ws')).serverCloses(1000);
  await gateway.client.socket('/ws');
  assert.equal(gateway.mints.length, 1);
  gateway.sockets[1].serverCloses(4401);
  await gateway.client.socket('/ws');
  assert.equal(gateway.mints.length, 2);
  gateway.client.logout();
  assert.deepEqual(gateway.sockets.map((socket) => socket.closedWith?.code), [undefined, undefined, 4000]);
});

// The real thing has no clock or network of ours.
test('a client of its own is made without arguments', () => {
  assert.equal(typeof create().fetch, 'function');
  assert.ok(Object.isFrozen(create()));
});
