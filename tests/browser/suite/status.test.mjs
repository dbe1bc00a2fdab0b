/** The status page as an operator's browser shows it, and as a stranger's page does not get it. */

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { after, afterEach, before, beforeEach } from 'node:test';
import { launch, open, test } from '../support/browser.mjs';
import { KEY, gateway } from '../support/gateway.mjs';
import { root } from '../support/modules.mjs';

const OTHER_KEY = 'pk_other_0123456789abcdef';
const HOSTILE = ['/<script>window.hit=1</script>', '/"onmouseover="window.hit=1', '/\u202egpj.exe', '/&lt;b&gt;', "/'><img/src=x/onerror=window.hit=1>"];

let browser;
let gw;
let port;
let context;
let page;

before(async () => {
  browser = await launch({ more: ['--host-resolver-rules=MAP rebound.example 127.0.0.1'] });
  gw = await gateway({
    tenant: `mode = "monitor"
[[tenant]]
id = "other"
embed_keys = ["${OTHER_KEY}"]
origins = ["https://other.example"]
secrets = []`,
  });
  port = new URL(gw.admin).port;
  await traffic();
});

after(async () => {
  await browser?.close();
  await gw?.close();
});

beforeEach(async () => {
  context = await browser.newContext();
  page = await open(context);
});

afterEach(() => context.close());

const times = (count, act) => Promise.all(Array.from({ length: count }, act));

/** 5 verified, 3 anonymous, 4 that enforce would deny, 2 denied of the other tenant, and whatever becomes of hostile paths. */
async function traffic() {
  const call = (key, origin, more = {}) => fetch(`${gw.url}/chat`, { headers: { 'x-embed-key': key, origin, ...more } });
  const mine = (token) => call(KEY, gw.host.allowed, token ? { 'x-user-token': token } : {});
  await times(5, () => mine(gw.sign({ sub: 'ada' })));
  await times(3, () => mine());
  await times(4, () => mine(`${gw.sign({ sub: 'ada' }).slice(0, -8)}AAAAAAAA`));
  await times(2, () => call(OTHER_KEY, 'https://evil.example'));
  await times(HOSTILE.length, (_, index) => raw(`GET ${HOSTILE[index]} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`));
}

const raw = (bytes) =>
  new Promise((resolve) => {
    const socket = connect(new URL(gw.url).port, '127.0.0.1', () => socket.write(bytes));
    socket.on('close', resolve).on('error', () => {}).resume();
  });

/** Opens the page once everything was counted. */
async function visit(on = page, url = gw.admin) {
  for (let tries = 0; tries < 200; tries += 1) {
    await on.goto(url);
    const rows = await cells(on, '#tenants');
    if (rows.some(([id, , forwarded]) => id === 'acme' && forwarded === '12') && rows.some(([id, , , denied]) => id === 'other' && denied === '2')) return;
  }
  assert.fail(`not counted: ${await on.textContent('#tenants')}`);
}

/** The text of a section's table, cell by cell. */
const cells = (on, section) =>
  on.$$eval(`${section} table >> nth=0 >> tbody tr`, (rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/\s+/g, ' '))));

test('the numbers are those of the traffic, and the page says nothing to the console', async () => {
  const violations = [];
  await page.exposeFunction('violated', (what) => violations.push(what));
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => window.violated(event.violatedDirective)));
  await visit();
  const traffic = await cells(page, '#traffic');
  const counted = (outcome, what) => traffic.find((row) => row[0] === outcome && row[1].startsWith(what))?.[2];
  assert.deepEqual(
    [counted('forwarded', 'verified'), counted('forwarded', 'anonymous'), counted('would deny', 'token_signature_invalid'), counted('denied', 'origin_not_allowed')],
    ['5', '7', '4', '2'],
  );
  const tenants = await cells(page, '#tenants');
  assert.deepEqual(
    tenants.map((row) => row.slice(0, 5)),
    [
      ['acme', 'monitor', '12', '0', '4 token_signature_invalid Signature does not match'],
      ['other', 'enforce', '0', '2', 'none'],
    ],
  );
  assert.match(tenants[0][5], /^not yet Enforce would have denied 4 of 12 requests in the last hour/);
  const [secret] = await cells(page, '#secrets');
  assert.deepEqual([secret[0], secret[3], secret[5].startsWith('in use')], ['i1 jwt', '5', true]);
  assert.deepEqual([page.said, violations], [[], []]);
  // The policy is in force: what it forbids is seen.
  await page.evaluate(() => fetch('/status').catch(() => {}));
  await page.evaluate(() => document.body.setAttribute('style', 'color: red'));
  for (let tries = 0; violations.length < 2 && tries < 500; tries += 1) await page.evaluate(() => new Promise(requestAnimationFrame));
  assert.deepEqual(violations, ['connect-src', 'style-src-attr']);
});

test('what clients wrote is text', async () => {
  await visit();
  assert.equal(await page.evaluate(() => window.hit), undefined);
  assert.equal(await page.locator('script, img, form, input, iframe').count(), 0);
  const shown = await page.innerText('#denials');
  assert.ok(!shown.includes('\u202e'));
  assert.ok(shown.includes('/&lt;b&gt;'), shown);
});

test('another site neither reads it, nor frames it, nor links to it', async () => {
  const answers = [];
  page.on('response', (response) => response.url().includes(`:${port}/`) && answers.push(response.status()));
  const here = new URL(gw.host.allowed).port;
  gw.host.content['/stranger'] = { html: `<!doctype html><title>t</title><a href="http://127.0.0.1:${port}/">status</a>` };
  // Another site, and another port of the same one.
  for (const origin of [`http://localhost:${here}`, `http://127.0.0.1:${here}`]) {
    await page.goto(`${origin}/stranger`);
    for (const options of [{}, { mode: 'no-cors' }, { method: 'POST', mode: 'no-cors' }]) {
      const got = await page.evaluate(([url, how]) => fetch(url, how).then((r) => r.text(), () => ''), [`${gw.admin}/`, options]);
      assert.equal(got, '');
    }
    await page.evaluate((url) => {
      const frame = document.createElement('iframe');
      frame.src = url;
      document.body.append(frame);
      return new Promise((resolve) => frame.addEventListener('load', resolve));
    }, `${gw.admin}/`);
    for (const frame of page.frames().slice(1)) assert.ok(!(await frame.content()).includes('safe to enforce'));
    await page.click('a');
    assert.ok(!(await page.content()).includes('safe to enforce'), 'a link');
  }
  assert.ok(answers.length >= 4 && answers.every((status) => status === 403), answers.join());
});

test('a name that was pointed here is refused', async () => {
  const answer = await page.goto(`http://rebound.example:${port}/`);
  assert.equal(answer.status(), 421);
  assert.match(await page.innerText('body'), /server\.admin_hosts/);
  for (const path of ['/status', '/metrics']) assert.equal((await page.goto(`http://rebound.example:${port}${path}`)).status(), 421);
  assert.equal((await page.goto(`http://localhost:${port}/`)).status(), 200);
});

test('it can be kept refreshing, and left alone', async () => {
  await visit();
  assert.equal(await page.locator('meta[http-equiv=refresh]').count(), 0, 'nothing moves by itself');
  await page.click('text=Keep refreshing');
  await page.waitForURL(`${gw.admin}/live`);
  assert.equal(await page.getAttribute('meta[http-equiv=refresh]', 'content'), '15');
  await page.click('text=Stop');
  await page.waitForURL(`${gw.admin}/`);
  assert.deepEqual(page.said, []);
});

test('the keyboard and a screen reader are enough', async () => {
  await visit();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  const named = await page.evaluate(() => ({
    tables: [...document.querySelectorAll('table')].filter((table) => !table.caption?.textContent.trim()).length,
    headers: [...document.querySelectorAll('th')].filter((th) => !th.scope).length,
    sections: [...document.querySelectorAll('section')].filter((s) => !s.ariaLabel && !document.getElementById(s.getAttribute('aria-labelledby'))).length,
    chart: document.querySelector('svg[role=img]').getAttribute('aria-label'),
    language: document.documentElement.lang,
  }));
  assert.match(named.chart, /^Requests in each of the last 60 minutes: \d+ in all\. The busiest was /);
  assert.deepEqual([named.tables, named.headers, named.sections, named.language], [0, 0, 0, 'en']);
  for (let presses = 0; (await page.evaluate(() => document.activeElement.tagName)) !== 'SUMMARY'; presses += 1) {
    assert.ok(presses < 20, 'no way to the minutes');
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  assert.ok(await page.locator('details table').isVisible());
});

for (const colorScheme of ['light', 'dark']) {
  test(`screenshots: ${colorScheme}, and no width that needs scrolling sideways`, async () => {
    await context.close();
    context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 900 } });
    page = await open(context);
    await visit();
    mkdirSync(`${root}target/screenshots`, { recursive: true });
    await page.screenshot({ path: `${root}target/screenshots/status-${colorScheme}.png` });
    const [background] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.equal(background > 127, colorScheme === 'light');
    await page.click('summary');
    for (const width of [320, 400, 768, 1024, 1280, 1920]) {
      await page.setViewportSize({ width, height: 800 });
      const wide = await page.evaluate(() =>
        [...document.querySelectorAll('body, .card, .card > *')]
          .filter((element) => element.tagName !== 'PRE' && element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== 'inline')
          .map((element) => `${element.tagName}.${element.className} ${element.scrollWidth} > ${element.clientWidth}`),
      );
      assert.deepEqual(wide, [], `at ${width}`);
    }
    await page.setViewportSize({ width: 400, height: 844 });
    await page.screenshot({ path: `${root}target/screenshots/status-${colorScheme}-phone.png`, fullPage: true });
    assert.deepEqual(page.said, []);
  });
}
