/** A gateway in memory for the client's unit tests: answers `env.fetch`, keeps what it was asked, and lets a test hold an answer back. */

import { mock } from 'node:test';
import { create } from '../../../src/client/doorward.js';

mock.method(console, 'warn', () => {}); // every refusal is in the console

// Node 18 has no AbortSignal.any; browsers that the script supports do.
AbortSignal.any ??= (signals) => {
  const either = new AbortController();
  for (const signal of signals) {
    const abort = () => either.abort(signal.reason);
    signal.aborted ? abort() : signal.addEventListener('abort', abort, { once: true });
  }
  return either.signal;
};

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token that the client can read; nobody here checks a signature. */
export const jwt = (claims) => `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}.c2ln`;

export const denial = (status, reason, headers = {}) =>
  new Response(JSON.stringify({ status, reason }), { status, headers: { 'x-doorward-reason': reason, 'x-request-id': 'r1', ...headers } });

/** What a DoorwardError with this reason matches. */
export const reason = (code) => (error) => error.name === 'DoorwardError' && error.reason === code;
export const changed = reason('identity_changed');

/** The number of the session that a call carried. */
export const session = async (response) => (await response.json()).session;

/** A promise that the test settles. */
export function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

/** Lets everything that is ready run. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** An event stream that the test writes. */
export function eventStream() {
  let controller;
  const body = new ReadableStream({
    start: (c) => {
      controller = c;
    },
  });
  const bytes = (text) => (typeof text === 'string' ? new TextEncoder().encode(text) : text);
  return {
    response: () => new Response(body, { headers: { 'content-type': 'text/event-stream' } }),
    write: (text) => controller.enqueue(bytes(text)),
    end: () => controller.close(),
    fail: (error) => controller.error(error),
  };
}

export class FakeSocket extends EventTarget {
  constructor(url, protocols) {
    super();
    Object.assign(this, { url, protocols, closedWith: undefined });
  }

  close(code, reason) {
    this.closedWith = { code, reason };
  }

  serverCloses(code) {
    this.dispatchEvent(Object.assign(new Event('close'), { code }));
  }
}

/**
 * `onMint(body, number)` and `onCall(request, number)` answer with a Response, or a promise of one; by default sessions live
 * 900 s and every call is answered 200 with what it carried. A `deaf` network does not listen to signals.
 */
export function fake({ onMint, onCall, deaf = false, ...options } = {}) {
  const gateway = { mints: [], signals: [], calls: [], time: 1_800_000_000_000 };
  const token = (number) => jwt({ sub: 'x', session: number });
  gateway.session = (number, expires_in = 900) => Response.json({ token: token(number), expires_in });

  const answer = async (url, init) => {
    if (url === 'https://gw.test/v1/embed/session-tokens') {
      const body = JSON.parse(init.body);
      gateway.mints.push(body);
      gateway.signals.push(init.signal);
      const number = gateway.mints.length;
      return (await onMint?.(body, number)) || gateway.session(number);
    }
    const bearer = /^Bearer (.*)$/.exec(init.headers.get('authorization'))[1];
    const call = { url, init, session: JSON.parse(Buffer.from(bearer.split('.')[1], 'base64url')).session };
    gateway.calls.push(call);
    return (await onCall?.(call, gateway.calls.length)) || Response.json({ session: call.session });
  };
  // What a browser does with a signal: the call fails at once, and so does the body later.
  const fetch = (url, init) =>
    deaf
      ? answer(url, init)
      : new Promise((resolve, reject) => {
          init.signal?.throwIfAborted();
          init.signal?.addEventListener('abort', () => reject(init.signal.reason));
          answer(url, init).then((response) => resolve(abortable(response, init.signal)), reject);
        });

  gateway.sockets = [];
  const WebSocket = class extends FakeSocket {
    constructor(...args) {
      super(...args);
      gateway.sockets.push(this);
    }
  };
  gateway.client = create({ fetch, WebSocket, Date: { now: () => gateway.time } });
  gateway.init = (more) => gateway.client.init({ gateway: 'https://gw.test', embedKey: 'pk_test_0123456789', ...options, ...more });
  gateway.seconds = (count) => Math.floor(gateway.time / 1000) + count;
  gateway.advance = (seconds) => {
    gateway.time += seconds * 1000;
  };
  return gateway;
}

function abortable(response, signal) {
  if (!response.body || !signal) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    start: (controller) =>
      signal.addEventListener('abort', () => {
        try {
          controller.error(signal.reason);
        } catch {
          /* closed */
        }
      }),
    async pull(controller) {
      const { done, value } = await reader.read();
      try {
        done ? controller.close() : controller.enqueue(value);
      } catch {
        /* aborted */
      }
    },
    cancel: (why) => reader.cancel(why),
  });
  return new Response(body, response);
}
