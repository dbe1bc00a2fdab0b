/**
 * The page's side of Doorward: attaches a session to calls, renews it, and lets go of everything when the user changes.
 *
 * Decides nothing about anybody: the gateway does. What it reads from a token (subject, expiry) only tells when to ask for
 * another one and whether the user is still the same. Keeps everything in memory: no storage, no cookies, no message
 * listener, no request to any origin but the gateway's.
 *
 * Every user gets a *person*, an object that owns the token, the session and an AbortController. A changed user is a new
 * person; whatever still arrives for the old one finds that it is not `me` any more and is thrown away.
 *
 * ES2020 syntax, no dependency; needs AbortSignal.any (Chrome 116, Firefox 124, Safari 17.4). Types: doorward.d.ts.
 */

/** A session counts as expiring this early, so that it is still good when the request arrives. */
const MARGIN = 30_000;
/** An identity token is renewed this early, in seconds, unless `skew` says otherwise. */
const SKEW = 300;
/** A mint that takes longer has failed: every call waits for it. */
const MINT_TIMEOUT = 30_000;
/** What no caller can change: no cookies, no redirect that would carry a token elsewhere, always CORS. */
const FIXED = { mode: 'cors', credentials: 'omit', redirect: 'error' };
/** Worth one more attempt with a fresh session. Step-up, origin and mismatch would only be refused again. */
const RENEWABLE = /^(token_expired|session_\w+)$/;

/** Why a call did not happen or was refused; `reason` is the gateway's code, or `identity_changed`. */
export class DoorwardError extends Error {
  constructor(reason, message, response) {
    super(`doorward: ${message}`);
    this.name = 'DoorwardError';
    this.reason = reason;
    this.response = response;
    this.status = response?.status;
    this.retryAfter = Number(response?.headers.get('retry-after')) || undefined;
  }
}

/** A client of its own. Pages use the one that this module exports; tests and pages with two gateways make theirs. */
export function create(env = globalThis) {
  let settings;
  let fetcher;
  let begin;
  let me = person();
  const begun = new Promise((resolve) => {
    begin = resolve;
  });
  const listeners = new Set();

  const now = () => env.Date.now();

  /** Lets go of the user at once: session, token, calls, streams, sockets. */
  function change() {
    const old = me;
    me = person();
    old.abort.abort(new DoorwardError('identity_changed', 'the user has changed'));
  }

  /** Throws for whoever is not the user any more. */
  function current(who) {
    if (who !== me) throw who.abort.signal.reason;
  }

  /** Puts another token, or the promise of one, in force. The session of the one before goes: a step-up must show at once. */
  function hold(who, token, fetched) {
    if (token === who.token) return;
    const { exp, iat } = claims(token);
    const expires = exp * 1000 || Infinity;
    const left = expires - now();
    // The skew counts up to half of a token's life: a short step-up must not be renewed away at once. A token that has just
    // been fetched is not asked for again at once either, whatever this machine's clock says.
    const life = fetched || !iat ? left : (exp - iat) * 1000;
    const early = left > 0 ? life / 2 : fetched ? -Infinity : Infinity;
    Object.assign(who, { token, expires, early, session: undefined, stale: false, quiet: false });
  }

  const canAsk = (who) => fetcher && !who.quiet;
  const due = (who) => canAsk(who) && (!who.token || who.stale || now() >= who.expires - Math.min(settings.skew, who.early));

  /** Asks the page for a token. Nothing, null and '' mean that nobody is signed in. */
  async function ask(who) {
    const before = who.token;
    const token = (await fetcher()) || undefined;
    current(who);
    if (who.token !== before) return; // identify() was faster
    const same = before && token && subject(before) === subject(token);
    const user = !token ? null : same ? who.user : (subject(token) ?? (who.user || token));
    if (who.used && user !== who.user) {
      change();
      who = me;
    }
    who.user = user;
    if (!token) who.id = undefined;
    hold(who, token, true);
  }

  function expired(who) {
    if (who.told === who.token) return;
    who.told = who.token;
    listeners.forEach((listener) => queueMicrotask(listener));
  }

  /** Exchanges what is known of the user for a session. Runs once at a time per person. */
  async function mint(who) {
    for (let asked = false; ;) {
      const given = who.token;
      const token = (await given) || undefined; // a pending identify(); and one that follows in the same task goes first
      current(who);
      if (given !== who.token) continue;
      if (token !== given) {
        who.user = who.user ?? subject(token) ?? token ?? null;
        hold(who, token);
      }
      if (!asked && due(who)) {
        asked = true;
        try {
          await ask(who);
        } catch (error) {
          current(who);
          if (!who.token || who.stale || now() >= who.expires) throw error;
          who.early = 0; // the old one is still good; it serves to its end
        }
        current(who);
        continue;
      }
      who.user = who.user ?? null;
      who.used = true;
      const response = await env.fetch(settings.mint, {
        ...FIXED,
        method: 'POST',
        cache: 'no-store',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ embed_key: settings.embedKey, user_id: who.id, identity_token: token }),
        signal: AbortSignal.any([who.abort.signal, AbortSignal.timeout(MINT_TIMEOUT)]),
      });
      const answer = response.ok && (await response.json());
      current(who);
      if (who.token !== token) continue; // the same user, with a newer token
      if (answer) {
        // The gateway may let an expired user go on as nobody.
        if (now() >= who.expires && !subject(answer.token)) expired(who);
        who.session = { token: answer.token, from: token, until: now() + answer.expires_in * 1000 - MARGIN };
        return who.session;
      }
      if (reasonOf(response) === 'token_expired') {
        if (!asked && canAsk(who)) {
          asked = true;
          await ask(who);
          current(who);
          if (who.token !== token) continue;
        }
        expired(who);
      }
      report(response);
      throw refused(response);
    }
  }

  /** The session, or the one mint that everybody waits for. */
  async function session(who) {
    current(who);
    if (who.session && now() < who.session.until && !(who.token && due(who))) return who.session;
    who.minting =
      who.minting ??
      mint(who).finally(() => {
        who.minting = undefined;
      });
    return who.minting;
  }

  /** A URL on the gateway, whatever was asked for. */
  function locate(path) {
    const url = new URL(path, settings.origin);
    // Not `url.origin`: that of a blob: URL is its maker's.
    if (!url.href.startsWith(`${settings.origin}/`)) throw new TypeError(`doorward: ${url.origin} is not the gateway`);
    return url;
  }

  /** Waits for a session, but not past an abort. */
  async function join(who, signal) {
    const signals = [who.abort.signal];
    if (signal) signals.push(signal);
    const either = AbortSignal.any(signals);
    const aborted = new Promise((_, reject) => {
      const stop = () => reject(either.reason);
      either.aborted ? stop() : either.addEventListener('abort', stop);
    });
    return { signal: either, held: await Promise.race([aborted, session(who)]) };
  }

  async function call(who, path, init = {}, again = true) {
    await begun;
    const url = locate(path);
    const { signal, held } = await join(who, init.signal);
    const headers = new Headers(init.headers);
    headers.set('authorization', `Bearer ${held.token}`);
    const response = await env.fetch(url.href, { ...init, ...FIXED, headers, signal });
    current(who);
    const reason = reasonOf(response);
    if (again && RENEWABLE.test(reason) && !(init.body instanceof ReadableStream)) {
      if (who.session === held) who.session = undefined; // else somebody has renewed it already
      if (reason === 'token_expired' && who.token === held.from) who.stale = true;
      response.body?.cancel().catch(() => {});
      return call(who, path, init, false);
    }
    response.reason = reason;
    if (reason) report(response);
    return response;
  }

  async function* events(who, path, init = {}) {
    const headers = new Headers(init.headers);
    if (!headers.has('accept')) headers.set('accept', 'text/event-stream');
    const response = await call(who, path, { ...init, headers });
    if (!response.ok) throw refused(response);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    const event = parser();
    try {
      for (let rest = ''; ;) {
        const { done, value } = await reader.read();
        const text = rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }));
        const lines = text.split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
        rest = lines.pop();
        if (done && rest.endsWith('\r')) lines.push(rest.slice(0, -1));
        for (const line of lines) {
          const complete = event(line);
          current(who);
          if (complete?.event === 'doorward-expired') {
            who.session = undefined;
            throw new DoorwardError(JSON.parse(complete.data).reason, 'the stream outlived its session', response);
          }
          if (complete) yield complete;
        }
        if (done) return;
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  const client = {
    init({ gateway, embedKey, userToken, getUserToken, skew = SKEW, sessionPath = '/v1/embed/session-tokens' }) {
      const { origin, protocol } = new URL(gateway);
      if (!/^https?:$/.test(protocol) || !embedKey) throw new TypeError('doorward: init needs gateway and embedKey');
      if (settings) change();
      settings = { origin, embedKey, skew: skew * 1000 };
      settings.mint = locate(sessionPath).href;
      if (getUserToken) client.setIdentityTokenFetcher(getUserToken);
      if (userToken) client.identify(userToken);
      begin();
    },

    identify(...args) {
      let [token] = args;
      let id;
      let traits;
      if (args.length > 1) {
        id = String(token);
        ({ token, traits } = args[1] || {});
      } else if (!token) {
        return client.logout();
      }
      token = token || undefined;
      // Until a promise says who it is, it is somebody else.
      const user = id ?? (token.then ? undefined : (subject(token) ?? token));
      const same = me.user === user || (!id && me.token && subject(token) !== undefined && subject(me.token) === subject(token));
      if (!same && (me.user !== undefined || me.used)) change();
      if (token?.then) token.then(null, () => {}); // whoever calls gets the error
      if (!same) me.user = user;
      me.id = id ?? me.id;
      me.traits = traits ?? me.traits;
      me.quiet = false;
      if (token || !same) hold(me, token);
    },

    setIdentityTokenFetcher(fetch) {
      fetcher = fetch;
      if (me.user === null) change();
      me.quiet = false;
      if (!me.token) me.session = undefined;
    },

    onIdentityExpired(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    user: () => ({ userId: me.id ?? subject(me.token) ?? null, traits: me.traits }),

    fetch: (path, init) => call(me, path, init),

    stream: (path, init) => events(me, path, init),

    async socket(path, protocols = []) {
      const who = me;
      await begun;
      const url = locate(path);
      const { held, signal } = await join(who);
      url.protocol = url.protocol.replace('http', 'ws');
      const socket = new env.WebSocket(url.href, ['doorward.v1', `doorward.token.${held.token}`].concat(protocols));
      const leave = () => socket.close(4000, 'identity_changed');
      signal.addEventListener('abort', leave);
      socket.addEventListener('close', ({ code }) => {
        signal.removeEventListener('abort', leave);
        if (code === 4401 && who.session === held) who.session = undefined;
      });
      return socket;
    },

    logout() {
      change();
      me.user = null;
      me.quiet = true; // the host may still be signing out: nobody asks its fetcher until it says so
    },
  };
  return Object.freeze(client);
}

/** Nobody yet: `user` is undefined until something says who it is, and null for an anonymous visitor. */
function person() {
  return { abort: new AbortController(), used: false, expires: Infinity, early: Infinity };
}

/** What a token says, unverified; nothing of what cannot be read. JWT and v2 both have their payload in the middle. */
function claims(token) {
  try {
    const text = atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0)))) || {};
  } catch {
    return {};
  }
}

function subject(token) {
  const { sub, user_id, external_id } = claims(token);
  const id = sub ?? user_id ?? external_id;
  return id === undefined ? id : String(id);
}

/** Collects lines of an event stream (HTML, 9.2.6) and returns the event that a blank line completes. */
function parser() {
  let data = [];
  let event = '';
  let id = '';
  return (line) => {
    if (!line) {
      const complete = data.length ? { event: event || 'message', data: data.join('\n'), id } : undefined;
      data = [];
      event = '';
      return complete;
    }
    const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line);
    if (field === 'data') data.push(value);
    if (field === 'event') event = value;
    if (field === 'id' && !value.includes('\0')) id = value;
  };
}

const reasonOf = (response) => response.headers.get('x-doorward-reason');

const describe = (response) => `${response.status} ${reasonOf(response) ?? ''} (request ${response.headers.get('x-request-id')})`;

const refused = (response) => new DoorwardError(reasonOf(response), describe(response), response);

/** Says in the console what the gateway refused: the first place where a developer looks. */
function report(response) {
  console.warn(`doorward: ${describe(response)}`);
}

export const doorward = create();
export default doorward;
