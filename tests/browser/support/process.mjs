/** Starts the real binary and waits until it serves; ends it by its own id. */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './modules.mjs';

const BINARY = process.env.DOORWARD ?? `${root}target/debug/doorward`;

/** A directory that is gone with `close()`. */
export function directory() {
  const path = mkdtempSync(join(tmpdir(), 'doorward-browser-'));
  return { path, close: () => rmSync(path, { recursive: true, force: true }) };
}

/** Runs `doorward ARGS` until `ready` finds what it looks for in its output. */
export async function run(args, ready, env = {}) {
  const child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env, NO_COLOR: '1' } });
  const started = { child, output: '' };
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill); // also when a test runner gives up
  const exited = new Promise((resolve) => child.on('exit', resolve));
  started.close = async () => {
    process.off('exit', kill);
    kill();
    await exited;
  };
  started.found = await new Promise((resolve, reject) => {
    const read = (chunk) => {
      started.output += chunk;
      const found = ready(started.output);
      if (found) resolve(found);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`doorward ended with ${code}:\n${started.output}`)));
  });
  return started;
}
