/** What install.sh put under target/browser: Node looks for modules beside the importing file only, and nothing is installed there. */

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../../', import.meta.url));
export const installed = `${root}target/browser/`;
const require = createRequire(installed);

export const esbuild = () => require('esbuild');
export const chromium = () => require('playwright-core').chromium;
export const ws = () => require('ws');
export const typescript = () => require('typescript');
