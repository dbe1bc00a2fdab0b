/** Users who come and go: what belongs to whom, and that nothing of one reaches the next. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { changed, deferred, denial, eventStream, fake, jwt, session, settle } from '../support/fake.mjs';

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
    assert.deepEqual(
      gateway.mints.map((mint) => mint.identity_token),
      [token],
    );
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
  await settle();
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
  assert.deepEqual(
    gateway.mints.map((mint) => mint.user_id),
    ['ada'],
  );
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
  gateway.client.identify('ada', { token });
  await gateway.client.fetch('/');
  assert.equal(gateway.mints.length, 1);
  assert.deepEqual(gateway.client.user(), { userId: 'ada', traits: { plan: 'pro' } });
});

test('another user: calls, streams and sockets of the old one fail at once', async () => {
  const events = eventStream();
  const gateway = fake({
    onCall: (call) => (call.url.endsWith('/s') ? events.response() : call.session === 1 ? deferred().promise : undefined),
  });
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
  assert.ok(gateway.signals[0].aborted, 'nobody waits for it');
  slow.resolve(gateway.session(1));
  await settle();
  assert.equal(await session(await gateway.client.fetch('/')), 2);
});

test('answers for the old user are thrown away even where the network does not stop for an abort', async () => {
  const answer = deferred();
  const minted = deferred();
  const gateway = fake({ deaf: true, onMint: (_, n) => n === 2 && minted.promise, onCall: () => answer.promise });
  const listener = mock.fn();
  gateway.init({ userToken: jwt({ sub: 'ada' }) });
  gateway.client.onIdentityExpired(listener);
  const call = gateway.client.fetch('/');
  await settle();
  gateway.client.identify(jwt({ sub: 'grace' }));
  answer.resolve(Response.json({ for: 'ada' }));
  await assert.rejects(call, changed);
  const second = gateway.client.fetch('/');
  await settle();
  gateway.client.identify(jwt({ sub: 'ada' }));
  minted.resolve(denial(401, 'token_expired'));
  await assert.rejects(second, changed);
  await settle();
  assert.deepEqual([gateway.mints.length, listener.mock.callCount()], [2, 0], 'nothing happens in the name of the old user');
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
  assert.deepEqual(
    gateway.mints.map((mint) => [mint.user_id, mint.identity_token]),
    [['grace', 'g']],
  );
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
  assert.deepEqual(
    gateway.calls.map((call) => call.url),
    ['https://gw.test/2'],
  );
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
  assert.deepEqual(
    gateway.mints.map((mint) => [mint.user_id, mint.identity_token]),
    [
      ['ada', undefined],
      ['ada', 'aa'],
    ],
  );
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
  assert.deepEqual(
    gateway.mints.map((mint) => mint.user_id),
    ['ada'],
  );
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
