/** The fetcher of the page's script: when it is asked, what its answers and failures do, and what is said when a token ends. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { changed, deferred, denial, eventStream, fake, jwt, reason, session, settle } from '../support/fake.mjs';

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
  assert.deepEqual(
    gateway.mints.map((mint) => mint.identity_token),
    [token],
  );
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
  for (const [skew, left, asked] of [
    [undefined, 299, 1],
    [undefined, 302, 0],
    [60, 59, 1],
    [60, 62, 0],
  ]) {
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
  const gateway = fake({
    onCall: (call) => call.url.endsWith('/s') && events.response(),
    onMint: () => gateway.session(gateway.mints.length, 7200),
  });
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

test("a clock that is ahead by nearly a token's life does not ask at every call", async () => {
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
  assert.deepEqual(
    gateway.mints.map((mint) => mint.identity_token),
    tokens,
  );
  assert.deepEqual(
    gateway.calls.map((call) => call.init.body),
    ['message', 'message'],
  );
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
  gateway.init({
    getUserToken: async () => {
      if (!works) throw new Error('host is down');
      return jwt({ sub: 'ada' });
    },
  });
  await assert.rejects(gateway.client.fetch('/'), /host is down/);
  assert.equal(gateway.mints.length, 0);
  works = true;
  assert.equal((await gateway.client.fetch('/')).status, 200);
});

test('a fetcher that fails while the old token is good lets it serve to its end', async () => {
  const gateway = fake();
  const fetcher = mock.fn(async () => {
    throw new Error('host is down');
  });
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

test('a fetcher that returns nobody overrules an id that was only claimed', async () => {
  const gateway = fake({ getUserToken: async () => null });
  gateway.init();
  gateway.client.identify('ada', {});
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.deepEqual(gateway.mints, [{ embed_key: 'pk_test_0123456789' }]);
});

test('a fetcher that is set for a claimed user is asked at the next call', async () => {
  const gateway = fake();
  gateway.init();
  gateway.client.identify('ada', {});
  await gateway.client.fetch('/');
  gateway.client.setIdentityTokenFetcher(async () => 'aa');
  await gateway.client.fetch('/');
  assert.deepEqual(
    gateway.mints.map((mint) => [mint.user_id, mint.identity_token]),
    [
      ['ada', undefined],
      ['ada', 'aa'],
    ],
  );
});

test('a subject that is not the id: the same subject is the same user', async () => {
  const gateway = fake();
  gateway.init({ getUserToken: async () => jwt({ sub: 'u1', n: 2 }) });
  gateway.client.identify('ada@acme.test', { token: jwt({ sub: 'u1', exp: gateway.seconds(600), n: 1 }) });
  await gateway.client.fetch('/');
  gateway.advance(900);
  assert.equal((await gateway.client.fetch('/')).status, 200);
  gateway.client.identify(jwt({ sub: 'u1', n: 3 }));
  await gateway.client.fetch('/');
  assert.deepEqual(
    gateway.mints.map((mint) => mint.user_id),
    Array(3).fill('ada@acme.test'),
  );
});

test('token_expired for a token that has been replaced costs the new one nothing', async () => {
  const late = deferred();
  const fetcher = mock.fn(async () => jwt({ sub: 'ada', n: 9 }));
  const gateway = fake({ onCall: (_, n) => n === 1 && late.promise, getUserToken: fetcher });
  gateway.init({ userToken: jwt({ sub: 'ada', n: 1 }) });
  const slow = gateway.client.fetch('/late');
  await settle();
  gateway.client.identify(jwt({ sub: 'ada', n: 2 }));
  late.resolve(denial(401, 'token_expired'));
  assert.equal((await slow).status, 200);
  assert.deepEqual([gateway.mints.length, fetcher.mock.callCount()], [2, 0]);
});

test('hex tokens: the id stays when the fetcher renews them', async () => {
  const gateway = fake({ onCall: (_, n) => n === 1 && denial(401, 'token_expired') });
  const tokens = ['aa', 'bb'];
  gateway.init({ getUserToken: async () => tokens.shift() });
  gateway.client.identify('ada', {});
  assert.equal((await gateway.client.fetch('/')).status, 200);
  assert.deepEqual(
    gateway.mints.map((mint) => [mint.user_id, mint.identity_token]),
    [
      ['ada', 'aa'],
      ['ada', 'bb'],
    ],
  );
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
  assert.deepEqual(
    gateway.mints.map((mint) => mint.identity_token),
    [token],
  );
});

test('a fetcher that is set after anonymous calls begins anew', async () => {
  const gateway = fake();
  gateway.init();
  await gateway.client.fetch('/');
  gateway.client.setIdentityTokenFetcher(async () => jwt({ sub: 'ada' }));
  await gateway.client.fetch('/');
  assert.deepEqual([gateway.mints.length, gateway.client.user().userId], [2, 'ada']);
});

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
  gateway.init({
    userToken: jwt({ sub: 'ada', exp: gateway.seconds(-1) }),
    getUserToken: async () => jwt({ sub: 'ada', exp: gateway.seconds(600) }),
  });
  gateway.client.onIdentityExpired(listener);
  await gateway.client.fetch('/');
  assert.equal(listener.mock.callCount(), 0);
});
