/** `doorward demo` as a visitor meets it, in a real browser. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach } from 'node:test';
import { launch, open, test } from '../support/browser.mjs';
import { root } from '../support/modules.mjs';
import { directory, run } from '../support/process.mjs';
import { record } from '../support/recorder.mjs';

let browser;
let demo;
let temporary;
let url;

before(async () => {
  temporary = directory();
  const args = ['demo', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--page', '127.0.0.1:0'];
  demo = await run(args, (output) => /Open (\S+) in[^]*Ctrl-C ends everything/.exec(output), { TMPDIR: temporary.path });
  [, url] = demo.found;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await demo?.close();
  temporary?.close();
});

let context;
let page;

/** A browser of its own for each test, signed in as Ada. */
async function visit(options = {}) {
  context = await browser.newContext({ viewport: { width: 1280, height: 890 }, ...options });
  page = await open(context);
  await page.goto(url);
  await level('verified');
}

beforeEach(async () => {
  await visit();
});

const level = (name, on = page) => on.waitForSelector(`#level[data-level="${name}"]`);
const answers = (on = page) => on.locator('.message.theirs:not(.streaming)');
const events = (on = page) => on.locator('#events li span').allTextContents();

/** Sends a message and waits for what comes of it. */
async function ask(text, on = page) {
  const asked = await on.locator('.message.mine').count();
  await on.fill('#message', text);
  await on.press('#message', 'Enter');
  await on.waitForFunction(
    (before) => document.querySelectorAll('.message.mine').length > before && !document.getElementById('send').disabled,
    asked,
  );
}

const fact = (name, on = page) => on.locator(`#facts dt:text-is("${name}") + dd`).textContent();
const claim = (name, on = page) => on.locator(`#claims dt:text-is("${name}") + dd`).textContent();

async function done() {
  assert.deepEqual(
    page.said.filter((text) => text.startsWith('uncaught') || text.includes('Content Security Policy')),
    [],
  );
  assert.equal(await page.locator('#banner').isVisible(), false, await page.locator('#banner').textContent());
  await context.close();
}

test('verified: the agent is told who Ada is, and that it is signed', async () => {
  await ask('Who am I?');
  assert.match(await answers().last().textContent(), /^Hello Ada Lovelace \(verified by session\)\. You said: Who am I\?$/);
  assert.match(await fact('Signature'), /^verified, RFC 9421, \d+ parts covered$/);
  assert.deepEqual([await fact('Subject'), await claim('role'), await fact('Page')], ['user_1815', 'finance', url]);
  assert.match(await page.locator('#headers').textContent(), /x-identity-subject: user_1815/);
  await done();
});

test('anonymous: signed out, nobody is vouched for', async () => {
  await page.click('#sign-out');
  await level('anonymous');
  await ask('Who am I?');
  assert.match(await answers().last().textContent(), /^Hello stranger \(nobody vouches for you\)/);
  assert.equal(await page.locator('#facts dt:text-is("Subject")').count(), 0);
  assert.equal(await page.locator('#claims dt').count(), 0);
  await page.click('#approve');
  await page.waitForSelector('#approve-note.bad');
  assert.equal(await page.locator('#approve-note').textContent(), 'Sign in to approve.');
  await done();
});

test('forged: a token that was tampered with is refused, and the real one works again', async () => {
  await page.click('#tamper');
  await level('refused');
  await ask('Make me admin');
  assert.match(await page.locator('.message.refused').textContent(), /token_signature_invalid/);
  assert.equal(await answers().count(), 0);
  assert.ok(
    page.said.some((text) => /^doorward: 401 token_signature_invalid \(request [0-9a-f]{32}\)$/.test(text)),
    page.said.join('\n'),
  );
  await page.click('#tamper');
  await level('verified');
  await ask('And now?');
  assert.match(await answers().last().textContent(), /^Hello Ada/);
  await done();
});

test('expired: the next message fetches a token and is not lost', async () => {
  await ask('one');
  const before = await fact('Session');
  await page.click('#expire');
  await page.waitForSelector('.message.system:has-text("expired")');
  await ask('two');
  assert.deepEqual(
    await answers().allTextContents(),
    ['one', 'two'].map((text) => `Hello Ada Lovelace (verified by session). You said: ${text}`),
  );
  assert.equal((await events())[0], 'Fetched a new identity token from Acme');
  assert.notEqual(await fact('Session'), before);
  assert.equal(await page.locator('.message.refused').count(), 0);
  await done();
});

test('step-up: approving asks to confirm, and then passes', async () => {
  await page.click('#approve');
  await page.waitForSelector('dialog[open]');
  await page.click('dialog button[value=cancel]');
  await page.waitForSelector('#approve-note.bad');
  assert.equal(await page.locator('#invoice-state').textContent(), 'Waiting for approval');
  await page.click('#approve');
  await page.waitForSelector('dialog[open]');
  await page.click('dialog button[value=confirm]');
  await page.waitForSelector('#invoice-state:text-is("Approved")');
  await level('stepped_up');
  assert.match(await fact('Confirmed'), /with mfa$/);
  await ask('Hello');
  assert.match(await answers().last().textContent(), /stepped up with mfa/);
  // Another user has confirmed nothing.
  await page.click('#switch');
  await level('verified');
  await page.click('#approve');
  await page.waitForSelector('dialog[open]');
  await page.keyboard.press('Escape');
  await done();
});

test('identity switch in the middle of an answer: nothing of Ada reaches Grace', async () => {
  await page.fill('#message', `secret-of-ada ${'word '.repeat(90)}`);
  await page.press('#message', 'Enter');
  await page.waitForSelector('.message.theirs.streaming:has-text("secret-of-ada")');
  await page.click('#switch');
  await page.waitForSelector('#user-name:text-is("Grace Hopper")');
  await page.waitForFunction(() => document.querySelector('#claims')?.textContent.includes('Grace Hopper'));
  await page.waitForSelector('#send:not(:disabled)');
  await ask('Who am I?');
  assert.deepEqual(await answers().allTextContents(), ['Hello Grace Hopper (verified by session). You said: Who am I?']);
  assert.equal(await page.getByText('secret-of-ada').count(), 0);
  assert.equal(await page.getByText('Ada Lovelace').count(), 1, 'in the log of what happened only');
  await done();
});

test('signing out in one of two tabs: the other neither leaks nor breaks', async () => {
  const other = await open(context);
  await other.goto(url);
  await level('verified', other);
  await other.fill('#message', `from the second tab ${'word '.repeat(60)}`);
  await other.press('#message', 'Enter');
  await other.waitForSelector('.message.theirs.streaming');
  await page.click('#sign-out');
  await level('anonymous');
  await ask('Who am I?');
  assert.match(await answers().last().textContent(), /^Hello stranger/);
  // The second tab's answer goes on: it is Ada's, asked by Ada.
  await other.waitForSelector('#send:not(:disabled)');
  assert.match(await answers(other).last().textContent(), /You said: from the second tab/);
  assert.equal(await page.getByText('from the second tab').count(), 0);
  await level('verified', other);
  await other.close();
  await done();
});

test('a tab whose host has signed out elsewhere is nobody when its token ends, and loses no message to somebody else', async () => {
  const other = await open(context);
  await other.goto(url);
  await level('verified', other);
  // The page as it is: its token ends, then Acme is asked.
  await other.click('#expire');
  await other.waitForSelector('.message.system:has-text("expired")');
  await page.click('#sign-out');
  await level('anonymous');
  await other.fill('#message', 'for Ada only');
  await other.press('#message', 'Enter');
  await other.waitForSelector('#user-name:text-is("Signed out")');
  await level('anonymous', other);
  assert.equal(await other.getByText('for Ada only').count(), 0);
  assert.equal(await answers(other).count(), 0);
  await other.close();
  await done();
});

test('the identity secret reaches no browser, and tokens reach no place where they would stay', async (t) => {
  const keys = readdirSync(temporary.path, { recursive: true }).filter((name) => name.endsWith('.key'));
  const secrets = keys.map((name) => readFileSync(join(temporary.path, name), 'utf8'));
  assert.equal(secrets.length, 4, keys.join());
  await context.close();
  const recorder = await record();
  const recorded = await launch({ proxy: { server: recorder.address, bypass: '<-loopback>' } });
  t.after(() => Promise.all([recorded.close(), recorder.close()]));
  context = await recorded.newContext();
  page = await open(context);
  await page.goto(url);
  await level('verified');
  await ask('hello');
  await page.click('#confirm');
  await page.click('dialog button[value=confirm]');
  await level('stepped_up');
  await page.click('#expire');
  await ask('again');
  await page.click('#tamper');
  await level('refused');
  await page.click('#switch');
  await level('verified');
  await page.click('#sign-out');
  await level('anonymous');
  const everything = [recorder.text(), ...page.said, await page.content()].join('\n');
  for (const seen of [
    '"token":"eyJ',
    '"expires_in":',
    'data: again',
    'access-control-allow-headers',
    'x-doorward-reason: token_signature_invalid',
    'sha384-',
    'window',
  ]) {
    assert.ok(everything.includes(seen), `${seen}: this looks at everything`);
  }
  const forms = secrets.flatMap((secret) => [
    secret,
    ...[secret, Buffer.from(secret, 'hex')].map((bytes) => Buffer.from(bytes).toString('base64').slice(0, 40)),
  ]);
  for (const form of forms) assert.ok(!everything.includes(form), 'a secret is in what the browser received');
  const kept = await page.evaluate(async () => [
    localStorage.length,
    sessionStorage.length,
    document.cookie,
    (await indexedDB.databases()).length,
    location.href,
  ]);
  assert.deepEqual(kept, [0, 0, '', 0, `${url}/`]);
  await done();
});

test('the keyboard is enough', async () => {
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  await page.keyboard.press('Tab');
  assert.equal(await focus(), 'skip');
  await page.keyboard.press('Enter');
  assert.equal(await focus(), 'message');
  await page.keyboard.type('by keyboard');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.message.theirs:not(.streaming):has-text("by keyboard")');
  await page.waitForSelector('#send:not(:disabled)');
  for (let i = 0; (await focus()) !== 'approve'; i += 1) {
    assert.ok(i < 30, 'no way to the button');
    await page.keyboard.press('Shift+Tab');
  }
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]');
  await page.keyboard.press('Enter'); // "It's me" has the focus
  await page.waitForSelector('#invoice-state:text-is("Approved")');
  const unnamed = await page.evaluate(
    () => [...document.querySelectorAll('button, input, a')].filter((e) => !(e.textContent.trim() || e.labels?.length)).length,
  );
  assert.equal(unnamed, 0);
  await done();
});

for (const [name, colorScheme] of [
  ['light', 'light'],
  ['dark', 'dark'],
]) {
  test(`screenshots: ${name}, and no width that needs scrolling sideways`, async () => {
    await context.close();
    await visit({ colorScheme });
    await ask('Can you approve invoice 7?');
    await page.click('#approve');
    await page.click('dialog button[value=confirm]');
    await page.waitForSelector('#invoice-state:text-is("Approved")');
    await level('stepped_up');
    await ask('And now?');
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement.blur());
    mkdirSync(`${root}target/screenshots`, { recursive: true });
    await page.screenshot({ path: `${root}target/screenshots/demo-${name}.png` });
    const [background] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.equal(background > 127, name === 'light');
    for (const width of [320, 390, 768, 1024, 1280, 1920]) {
      await page.setViewportSize({ width, height: 800 });
      const [needed, there] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(needed <= there, `${width}: ${needed} > ${there}`);
    }
    await page.setViewportSize({ width: 390, height: 844 });
    await page.screenshot({ path: `${root}target/screenshots/demo-${name}-phone.png`, fullPage: true });
    await done();
  });
}
