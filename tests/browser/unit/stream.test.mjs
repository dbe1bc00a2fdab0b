/** Event streams as the page's script reads them: the format (HTML, 9.2.6) however it is cut, refusals and ends. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { denial, eventStream, fake, settle } from '../support/fake.mjs';

async function read(chunks) {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init();
  for (const chunk of chunks) events.write(chunk);
  events.end();
  const all = [];
  for await (const event of gateway.client.stream('/s')) all.push(event);
  return all;
}

const TEXT =
  '\uFEFF: comment\nid: 7\nevent: grü\u00dfe\ndata: one\ndata:two\ndata\n\ndata:  spaced\nretry: 5\nunknown: x\nnofield\n\nid: 1\0\ndata: 3\n\nevent: empty\n\nid\ndata: 4\n\ndata: incomplete';
const EVENTS = [
  { event: 'grü\u00dfe', data: 'one\ntwo\n', id: '7' },
  { event: 'message', data: ' spaced', id: '7' },
  { event: 'message', data: '3', id: '7' },
  { event: 'message', data: '4', id: '' },
];

for (const [name, end] of [
  ['LF', '\n'],
  ['CRLF', '\r\n'],
  ['CR', '\r'],
]) {
  test(`lines that end with ${name}, cut after every byte and not at all`, async () => {
    const bytes = new TextEncoder().encode(TEXT.replaceAll('\n', end));
    assert.deepEqual(await read([bytes]), EVENTS);
    assert.deepEqual(await read(Array.from(bytes, (byte) => Uint8Array.of(byte))), EVENTS);
  });
}

test('a last event that ends in CR CR is complete', async () => {
  assert.deepEqual(await read(['data: x\r\r']), [{ event: 'message', data: 'x', id: '' }]);
});

test('a stream without events ends', async () => {
  assert.deepEqual(await read(['']), []);
});

test('events arrive before the stream ends', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init();
  const stream = gateway.client.stream('/s', { method: 'POST', body: '{}' });
  const first = stream.next();
  await settle();
  events.write('data: now\n\n');
  assert.equal((await first).value.data, 'now');
  assert.equal(gateway.calls[0].init.headers.get('accept'), 'text/event-stream');
});

test('a page that stops reading stops the stream', async () => {
  const cancelled = mock.fn();
  const body = new ReadableStream({ pull: (c) => c.enqueue(new TextEncoder().encode('data: x\n\n')), cancel: cancelled });
  const gateway = fake({ onCall: () => new Response(body) });
  gateway.init();
  for await (const event of gateway.client.stream('/s')) {
    assert.equal(event.data, 'x');
    break;
  }
  await settle();
  assert.equal(cancelled.mock.callCount(), 1);
});

test('a refused stream throws its reason; an expired session is renewed first', async () => {
  const gateway = fake({
    onCall: (_, n) => denial(401, n === 1 ? 'session_expired' : 'step_up_required', { 'www-authenticate': 'Bearer max_age=300' }),
  });
  gateway.init();
  await assert.rejects(
    gateway.client.stream('/s').next(),
    (error) =>
      error.reason === 'step_up_required' &&
      error.status === 401 &&
      error.response.headers.get('www-authenticate') === 'Bearer max_age=300',
  );
  assert.equal(gateway.calls.length, 2);
});

test('a stream that outlives its session says so, and the next call has a new session', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: (_, n) => n === 1 && events.response() });
  gateway.init();
  events.write('data: 1\n\nevent: doorward-expired\ndata: {"reason":"session_expired"}\n\n');
  events.end();
  const stream = gateway.client.stream('/s');
  assert.equal((await stream.next()).value.data, '1');
  await assert.rejects(stream.next(), (error) => error.name === 'DoorwardError' && error.reason === 'session_expired');
  await gateway.client.fetch('/');
  assert.equal(gateway.mints.length, 2);
});

test('a connection that breaks is an error, not an end', async () => {
  const events = eventStream();
  const gateway = fake({ onCall: () => events.response() });
  gateway.init();
  const next = gateway.client.stream('/s').next();
  await settle();
  events.fail(new TypeError('network'));
  await assert.rejects(next, /network/);
});
