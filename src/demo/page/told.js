/** "What the agent was told": asks the agent's /echo through the gateway and shows what it verified. */

const element = (id) => document.getElementById(id);

const NOTES = {
  anonymous: 'Nobody vouches for this visitor. The agent answers as to a stranger.',
  claimed: 'An id that nobody signed: good for display, never for access.',
  verified: 'Acme’s backend signed who this is, and the gateway checked it.',
  stepped_up: 'Signed, and the user confirmed it moments ago.',
  refused: 'The gateway stopped the request. The agent was told nothing.',
};

/** Facts as terms and values; what does not apply is left out. */
function list(into, facts) {
  const items = facts
    .filter(([, value]) => value !== undefined && value !== null)
    .flatMap(([name, value, kind]) => {
      const [term, text] = [document.createElement('dt'), document.createElement('dd')];
      term.textContent = name;
      text.textContent = typeof value === 'object' ? JSON.stringify(value) : String(value);
      text.className = kind ?? '';
      return [term, text];
    });
  into.replaceChildren(...items);
}

function level(name, label = name.replace('_', ' ')) {
  element('level').dataset.level = name;
  element('level').textContent = label;
  element('level-note').textContent = NOTES[name] ?? '';
}

function show(told) {
  const field = (name) => told.headers.find(([header]) => header === name)?.[1];
  const input = field('signature-input') ?? '';
  const covered = input.split(')')[0].split('"').length >> 1;
  level(told.level);
  list(element('facts'), [
    ['Signature', `verified, RFC 9421, ${covered} parts covered`, 'good'],
    ['Signed with', /keyid="([^"]*)"/.exec(input)?.[1]],
    ['Subject', told.subject],
    ['Claimed id', told.claimed_subject],
    ['Proved by', told.method],
    ['Confirmed', told.stepped_up_at && `${new Date(told.stepped_up_at * 1000).toLocaleTimeString()} with ${told.aal}`],
    ['Tenant', told.tenant],
    ['Page', told.origin],
    ['Session', field('x-identity-session-id')],
  ]);
  list(element('claims'), Object.entries(told.claims));
  element('headers').textContent = told.headers.map(([name, value]) => `${name}: ${value}`).join('\n');
}

/** Returns the reason where the gateway refused. */
export async function askAgent(doorward) {
  try {
    const response = await doorward.fetch('/echo');
    if (!response.ok) throw Object.assign(new Error(response.statusText), { reason: response.reason });
    show(await response.json());
    return null;
  } catch (error) {
    if (error.reason === 'identity_changed') return error.reason; // whoever came asks for themselves
    level('refused', error.reason ?? 'no answer');
    list(element('facts'), []);
    list(element('claims'), []);
    element('headers').textContent = '';
    return error.reason ?? 'network';
  }
}
