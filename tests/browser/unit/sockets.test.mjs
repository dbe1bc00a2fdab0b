/** WebSockets of the page's script, and clients of one's own. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '../../../src/client/doorward.js';
import { fake } from '../support/fake.mjs';

test("a socket carries the session as a subprotocol beside the page's own", async () => {
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
  assert.deepEqual(
    gateway.sockets.map((socket) => socket.closedWith?.code),
    [undefined, undefined, 4000],
  );
});

test('a client of its own is made without arguments', () => {
  assert.equal(typeof create().fetch, 'function');
  assert.ok(Object.isFrozen(create()));
});
