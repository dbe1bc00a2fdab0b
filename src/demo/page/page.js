/**
 * Acme's page: who is signed in is Acme's business (/host/…), and what the widget may do with it is the gateway's. The page
 * gets identity tokens from Acme's backend and never sees what signs them.
 */

import { clear, converse, say } from '/chat.js';
import { askAgent } from '/told.js';

const { doorward } = window;
const element = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name="doorward-${name}"]`).content;
let user = null;
let tampered = false;

/** Asks Acme's own backend. */
async function host(path, body) {
  const response = await fetch(
    `/host/${path}`,
    body === undefined ? {} : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
  );
  if (!response.ok) throw new Error(`Acme answered ${response.status}`);
  return response.json();
}

function note(text, kind = '') {
  const [item, time, what] = [document.createElement('li'), document.createElement('time'), document.createElement('span')];
  time.textContent = new Date().toLocaleTimeString();
  what.textContent = text;
  what.className = kind;
  item.append(time, what);
  element('events').prepend(item);
}

function fail(text) {
  element('banner').textContent = text;
  element('banner').hidden = false;
}

/** Called by doorward.js when it has no token, or one that is about to expire. */
async function fetchIdentityToken() {
  const { token } = await host('identity-token', {});
  note(token ? 'Fetched a new identity token from Acme' : 'Acme says that nobody is signed in');
  return token;
}

function showUser() {
  element('user-name').textContent = user?.name ?? 'Signed out';
  element('user-email').textContent = user ? `${user.email}, ${user.role}` : 'an anonymous visitor';
  element('avatar').textContent = user
    ? user.name
        .split(' ')
        .map((word) => word[0])
        .join('')
    : '?';
  element('switch').textContent = user ? `Switch to ${user.key === 'ada' ? 'Grace' : 'Ada'}` : 'Sign in as Ada';
  element('sign-out').hidden = !user;
  element('chat-as').textContent = user ? `as ${user.name}` : 'as a visitor';
  for (const id of ['confirm', 'expire', 'tamper']) element(id).disabled = !user;
  element('invoice-state').textContent = 'Waiting for approval';
  element('invoice-state').className = 'chip';
  approval('Approving needs a confirmation that is at most 5 minutes old.');
}

function approval(text, kind = '') {
  element('approve-note').textContent = text;
  element('approve-note').className = `note ${kind}`;
}

function refused(reason, what) {
  if (reason && reason !== 'identity_changed') note(`${what}: ${reason}`, 'bad');
}

/** What the agent sees now; a refusal shows there. */
async function look() {
  if ((await askAgent(doorward)) === 'identity_changed') await catchUp();
}

/** Everything of the old user goes before anything of the new one comes. */
async function become(next) {
  user = next;
  if (user)
    doorward.identify(user.id, {}); // the token comes from fetchIdentityToken, when it is needed
  else doorward.logout();
  genuine();
  note(user ? `Signed in as ${user.name}` : 'Signed out', user ? 'good' : '');
  clear(user ? `New conversation as ${user.name}` : 'New conversation as a visitor');
  showUser();
  await look();
}

/** Another tab may have signed in or out meanwhile. */
async function catchUp() {
  const { user: now } = await host('me');
  if (now?.id !== user?.id) await become(now);
}

async function switchUser() {
  const next = user?.key === 'ada' ? 'grace' : 'ada';
  await become((await host('sign-in', { user: next })).user);
}

async function signOut() {
  await host('sign-out', {});
  await become(null);
}

/** The dialog stands for a passkey; resolves to whether the user confirmed. */
function askToConfirm() {
  const dialog = element('confirm-dialog');
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'confirm'), { once: true }));
}

async function confirm() {
  if (!(await askToConfirm())) return false;
  const { token } = await host('confirm', {});
  if (!token) throw new Error('nobody is signed in');
  doorward.identify(user.id, { token });
  note('Confirmed: Acme signed that it is you, just now', 'good');
  await look();
  return true;
}

/** A call that the gateway lets through after a fresh confirmation only, and what to do about its challenge. */
async function approve() {
  const response = await doorward.fetch('/approvals/7', { method: 'POST' });
  if (response.ok) {
    await response.body?.cancel();
    element('invoice-state').textContent = 'Approved';
    element('invoice-state').className = 'chip done';
    note('Approved invoice 7', 'good');
    return approval('Approved. The agent was told who did it, and when they confirmed it.', 'good');
  }
  refused(response.reason, 'Approval refused');
  if (response.reason === 'step_up_required') {
    if (await confirm()) return approve();
    return approval('Not approved: confirm it’s you.', 'bad');
  }
  approval(response.reason === 'token_missing' ? 'Sign in to approve.' : `Refused: ${response.reason}`, 'bad');
}

async function expire() {
  const { token } = await host('expired-token', {});
  doorward.identify(user.id, { token });
  note('Your identity token has expired now');
  say('system', 'Your token has just expired. Send a message: it gets through.');
}

function genuine() {
  tampered = false;
  element('tamper').textContent = 'Tamper with my token';
}

/** What an attacker would do: another name, the same signature. */
async function tamper() {
  const token = await fetchIdentityToken();
  if (tampered) {
    doorward.identify(user.id, { token });
    genuine();
    return look();
  }
  const [header, payload, signature] = token.split('.');
  const claims = JSON.parse(atob(payload.replace(/-/g, '+').replace(/_/g, '/')));
  Object.assign(claims, { name: 'Charles Babbage', role: 'admin' });
  const forged = btoa(JSON.stringify(claims)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  doorward.identify(user.id, { token: `${header}.${forged}.${signature}` });
  tampered = true;
  element('tamper').textContent = 'Use my real token again';
  note('Changed name and role in the token, kept its signature');
  say('system', 'Your token now says that you are Charles Babbage, admin. Send a message.');
  return look();
}

async function send(event) {
  event.preventDefault();
  const input = element('message');
  const text = input.value.trim();
  if (!text) return;
  input.value = '';
  say('mine', text);
  element('send').disabled = true;
  try {
    const reason = await converse('/chat', text, doorward);
    refused(reason, 'Message refused');
    if (reason === 'identity_changed') await catchUp();
    else await look();
  } finally {
    element('send').disabled = false;
  }
}

/** One thing at a time per button; what goes wrong is said, not swallowed. */
function on(id, action, type = 'click') {
  element(id).addEventListener(type, async (event) => {
    try {
      await action(event);
    } catch (error) {
      if (error.reason === 'identity_changed') return catchUp();
      error.reason ? refused(error.reason, 'Refused') : fail(`Something is not running: ${error.message}`);
    }
  });
}

async function start() {
  if (!doorward) return fail(`The gateway at ${meta('gateway')} does not answer.`);
  on('switch', switchUser);
  on('sign-out', signOut);
  on('confirm', confirm);
  on('approve', approve);
  on('expire', expire);
  on('tamper', tamper);
  on('ask-again', look);
  on('compose', send, 'submit');
  doorward.onIdentityExpired(() => note('The identity token expired and could not be renewed', 'bad'));
  doorward.init({ gateway: meta('gateway'), embedKey: meta('embed-key'), getUserToken: fetchIdentityToken });
  try {
    await become((await host('me')).user);
    document.addEventListener('visibilitychange', () => document.hidden || catchUp().catch((error) => fail(error.message)));
  } catch (error) {
    fail(`Something is not running: ${error.message}`);
  }
}

start();
