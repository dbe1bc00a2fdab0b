/**
 * Builds the committed files of /doorward.js: `node tests/browser/build.mjs` writes them, and the tests compare. Run
 * install.sh first.
 */

import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { esbuild, root } from './support/modules.mjs';

/** The limit of each, in bytes. */
export const LIMIT = 6000;

/** What esbuild makes of the source: path of the committed file to its text. */
export function build() {
  const make = (entry, format) => {
    const { outputFiles } = esbuild().buildSync({
      entryPoints: [`${root}src/client/${entry}`],
      bundle: true,
      minify: true,
      format,
      target: 'es2020',
      charset: 'utf8',
      legalComments: 'none',
      write: false,
    });
    return outputFiles[0].text;
  };
  return { 'src/client/doorward.min.js': make('classic.js', 'iife'), 'src/client/doorward.min.mjs': make('doorward.js', 'esm') };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of Object.entries(build())) {
    writeFileSync(root + path, text);
    console.log(`${path}: ${Buffer.byteLength(text)} bytes`);
  }
}
