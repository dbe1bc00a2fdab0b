/** Compiled, never run: what pages write against the declarations, and what they must not. */

import doorward, { DoorwardError, create, type StreamEvent } from '../../../src/client/doorward';

doorward.init({ gateway: 'https://chat.example.com', embedKey: 'pk_live_1', skew: 60, getUserToken: async () => null });
doorward.identify('user_1', { token: 'x', traits: { plan: 'pro' } });
doorward.identify(1, { token: Promise.resolve('x') });
doorward.identify('token');
doorward.identify(null);
doorward.setIdentityTokenFetcher(() => fetch('/token').then((response) => response.text()));
const stop: () => void = doorward.onIdentityExpired(() => {});
stop();
const who: string | null = doorward.user().userId;
void who;

export async function chat(message: string): Promise<string> {
  const response = await doorward.fetch('/chat', { method: 'POST', body: message });
  if (response.reason === 'step_up_required') return response.headers.get('www-authenticate') ?? '';
  let text = '';
  try {
    for await (const event of doorward.stream('/chat')) text += (event satisfies StreamEvent).data;
  } catch (error) {
    if (error instanceof DoorwardError && error.retryAfter) return String(error.reason);
  }
  const socket: WebSocket = await create().socket('/ws', ['chat.v1']);
  socket.close();
  window.doorward.logout();
  return text;
}

// @ts-expect-error: no key
doorward.init({ gateway: 'https://chat.example.com' });
// @ts-expect-error: no such place
doorward.identify('user_1', { hmac: 'x' });
// @ts-expect-error: a fetcher returns a string
doorward.setIdentityTokenFetcher(() => 1);
