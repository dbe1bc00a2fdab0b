/** The script on a page, as tests drive it. */

import assert from 'node:assert/strict';
import { KEY } from './gateway.mjs';

/** Opens a page of a gateway's host and starts the script with more options. */
export async function start(on, from, options = {}, path = '/') {
  await on.goto(from.host.allowed + path);
  await on.evaluate((all) => window.doorward.init(all), { gateway: from.url, embedKey: KEY, ...options });
}

/** What the page gets for a path: status, reason and the level that the backend was told. */
export const call = (on, path = '/echo') =>
  on.evaluate(async (to) => {
    try {
      const response = await window.doorward.fetch(to);
      const { headers = {} } = response.ok ? await response.json() : {};
      return {
        status: response.status,
        reason: response.reason,
        level: headers['x-identity-level'],
        subject: headers['x-identity-subject'],
      };
    } catch (error) {
      return { thrown: error.name, reason: error.reason };
    }
  }, path);

/** Repeats a call until it gives what is waited for, at most ten seconds. */
export async function until(what, check) {
  const end = Date.now() + 10_000;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < end, `waited ten seconds for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
