/** Types of /doorward.js and /doorward.mjs, the page's side of Doorward. */

/** Why a call was refused or dropped. */
export declare class DoorwardError extends Error {
  readonly name: 'DoorwardError';
  /** The gateway's code (`token_signature_invalid`, `step_up_required`, …), `identity_changed`, or null where the answer has none. */
  readonly reason: string | null;
  /** HTTP status of the answer, where there was one. */
  readonly status?: number;
  /** Seconds, where the gateway said how long to wait. */
  readonly retryAfter?: number;
  /** The answer itself: headers such as `WWW-Authenticate`, and the problem document as body. */
  readonly response?: Response;
}

/** Returns an identity token that the host's backend has signed. Nothing, null and '' mean that nobody is signed in. */
export type IdentityTokenFetcher = () => Promise<string | null | undefined> | string | null | undefined;

export interface Options {
  /** URL of the gateway; only its origin counts. */
  gateway: string;
  /** The publishable key, `pk_…`. */
  embedKey: string;
  /** Like `identify(userToken)`. */
  userToken?: string | Promise<string | null> | null;
  /** Like `setIdentityTokenFetcher(getUserToken)`. */
  getUserToken?: IdentityTokenFetcher;
  /** How many seconds before its expiry an identity token is fetched anew, at most half its life. Default 300. */
  skew?: number;
  /** Where sessions are minted. Default `/v1/embed/session-tokens`. */
  sessionPath?: string;
}

export interface Identification<Traits = Record<string, unknown>> {
  /** What the host's backend signed, or the promise of it: calls wait for it. Without one the id is a mere claim. */
  token?: string | Promise<string | null> | null;
  /** Unsigned and never sent: kept for `user()` until the user changes. */
  traits?: Traits;
}

/** An answer and, where the gateway refused the call, its code. */
export type DoorwardResponse = Response & { readonly reason: string | null };

/** One event of a stream (HTML, section 9.2). */
export interface StreamEvent {
  /** `message` where the stream names none. */
  event: string;
  data: string;
  /** The last id seen, for `Last-Event-ID`. */
  id: string;
}

export interface Doorward {
  /** Call once. Whatever was called before runs now. */
  init(options: Options): void;
  /**
   * Says who the user is. The same user with another token starts a new session (step-up); another user drops the old one's
   * session, calls, streams and sockets at once: they fail with `identity_changed`.
   */
  identify(userId: string | number, identification: Identification): void;
  /** The same with a token that names its user (JWT, `v2.`). Null and '' are `logout()`. */
  identify(token: string | Promise<string | null> | null): void;
  /** Called when a token is missing or about to expire, once for all that wait. */
  setIdentityTokenFetcher(fetcher: IdentityTokenFetcher): void;
  /** Called once for each token that expired and could not be renewed. Returns how to stop listening. */
  onIdentityExpired(listener: () => void): () => void;
  /** Who the page says the user is. Unverified: for display only. */
  user(): { userId: string | null; traits?: Record<string, unknown> };
  /**
   * `fetch` on the gateway with a session. Retries once after `token_expired` and `session_*`; a refusal is an answer with
   * `reason`. Throws a DoorwardError when there is no session to be had.
   */
  fetch(path: string | URL, init?: RequestInit): Promise<DoorwardResponse>;
  /** Events of an event stream as they arrive. Throws a DoorwardError when refused, and when the session ends before it. */
  stream(path: string | URL, init?: RequestInit): AsyncGenerator<StreamEvent, void, undefined>;
  /** A WebSocket whose handshake carries the session. Closed with 4401 when the session ends, 4000 when the user changes. */
  socket(path: string | URL, protocols?: string | string[]): Promise<WebSocket>;
  /** Lets go of the user: an anonymous visitor remains. The fetcher rests until the next `identify` or `setIdentityTokenFetcher`. */
  logout(): void;
}

/** A client of its own, for a page with two gateways. */
export declare function create(): Doorward;
/** The page's client. */
export declare const doorward: Doorward;
export default doorward;

declare global {
  interface Window {
    /** Defined by the classic script. */
    doorward: Doorward;
  }
}
