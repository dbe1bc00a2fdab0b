/** The committed builds are what esbuild makes of the source, small enough, and what the declarations say. */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { doorward } from '../../../src/client/doorward.js';
import { LIMIT, build } from '../build.mjs';
import { installed, root, typescript } from '../support/modules.mjs';

const read = (path) => readFileSync(root + path, 'utf8');

test('the committed builds are those of the source', () => {
  for (const [path, text] of Object.entries(build())) {
    assert.equal(read(path), text, `${path} is old: run node tests/browser/build.mjs`);
    assert.ok(Buffer.byteLength(text) <= LIMIT, `${path} has ${Buffer.byteLength(text)} bytes, more than ${LIMIT}`);
  }
});

test('the script has no use for storage, messages, cookies, code from text or markup', () => {
  for (const path of ['src/client/doorward.min.js', 'src/client/doorward.min.mjs']) {
    for (const banned of [
      'localStorage',
      'sessionStorage',
      'indexedDB',
      'postMessage',
      'onmessage',
      'Listener("message"',
      'cookie',
      'eval',
      'Function(',
      'innerHTML',
      'import(',
      'document',
      'XMLHttpRequest',
      'sendBeacon',
      'http:',
      'https:',
    ]) {
      assert.ok(!read(path).includes(banned), `${path} contains ${banned}`);
    }
  }
});

test('the declarations declare exactly what is there, and take what the manual shows', () => {
  const ts = typescript();
  const [usage, declarations] = [`${root}tests/browser/unit/usage.ts`, `${root}src/client/doorward.d.ts`];
  const manual = [...read('src/manual/browser.md').matchAll(/^```js\n([^]*?)^```$/gm)].map(([, block], number) => {
    const file = `${installed}manual-${number}.ts`;
    writeFileSync(file, `import doorward from '${root}src/client/doorward';\n${block}`);
    return file;
  });
  assert.equal(manual.length, 3, 'the blocks of the manual');
  const options = {
    strict: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
    types: [],
  };
  const program = ts.createProgram([usage, ...manual], options);
  const problems = ts
    .getPreEmitDiagnostics(program)
    .map((d) => `${d.file?.fileName}: ${ts.flattenDiagnosticMessageText(d.messageText, '\n')}`);
  assert.deepEqual(problems, []);
  const members = [];
  ts.forEachChild(program.getSourceFile(declarations), (node) => {
    if (ts.isInterfaceDeclaration(node) && node.name.text === 'Doorward') members.push(...node.members.map((member) => member.name.text));
  });
  assert.deepEqual([...new Set(members)].sort(), Object.keys(doorward).sort());
});
