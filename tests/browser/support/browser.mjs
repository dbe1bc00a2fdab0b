/** The system's Chromium, driven by playwright-core. */

import { existsSync } from 'node:fs';
import { test as nodeTest } from 'node:test';
import { chromium } from './modules.mjs';

const CANDIDATES = [
  process.env.CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export async function launch({ proxy, more = [] } = {}) {
  const executablePath = CANDIDATES.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error('no Chromium here: sh .ci/deps test, or CHROMIUM=/path');
  return chromium().launch({ executablePath, proxy, args: [...ARGS, ...(proxy ? [] : ['--no-proxy-server']), ...more] });
}

/** A test that gives up after a minute: a page that waits for what never comes would wait for ever. */
export const test = (name, body) => nodeTest(name, { timeout: 60_000 }, body);

/** A page that keeps what its console says and fails nothing silently. */
export async function open(context) {
  const page = await context.newPage();
  page.said = [];
  page.on('console', (message) => page.said.push(message.text()));
  page.on('pageerror', (error) => page.said.push(`uncaught: ${error}`));
  return page;
}
