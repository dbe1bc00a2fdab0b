/** The chat widget: sends a message through the gateway and shows the answer word by word as it streams in. */

const messages = document.getElementById('messages');

/** A text in the conversation. Text only: nothing that anybody says becomes markup. */
export function say(kind, text) {
  const bubble = document.createElement('div');
  bubble.className = `message ${kind}`;
  bubble.textContent = text;
  messages.append(bubble);
  messages.scrollTop = messages.scrollHeight;
  return bubble;
}

/** Another user must not see what this one has said. */
export function clear(note) {
  messages.replaceChildren();
  say('system', note);
}

/** Shows one event stream as an answer. Returns the gateway's reason where it was refused or cut, else null. */
export async function converse(path, text, doorward) {
  const answer = say('theirs streaming', '');
  messages.setAttribute('aria-busy', 'true'); // read aloud as a whole, not word by word
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ message: text }) };
  try {
    for await (const { event, data } of doorward.stream(path, init)) {
      if (event !== 'message') continue;
      answer.textContent += data;
      messages.scrollTop = messages.scrollHeight;
    }
    return null;
  } catch (error) {
    // The conversation of a user who has left was cleared with them.
    if (error.reason !== 'identity_changed') refuse(error);
    return error.reason ?? 'network';
  } finally {
    answer.classList.remove('streaming');
    messages.setAttribute('aria-busy', 'false');
    if (!answer.textContent) answer.remove();
  }
}

const EXPLAINED = {
  token_signature_invalid: 'The signature does not fit the token, so it names nobody. Nothing reached the agent.',
  token_expired: 'The token’s time is over and Acme gave no other.',
  token_missing: 'Nobody is signed in, and this needs somebody.',
  step_up_required: 'Confirm it’s you first.',
  session_expired: 'The session ended during the answer. Send it again.',
};

function refuse(error) {
  const bubble = say('refused', '');
  const code = document.createElement('code');
  code.textContent = error.reason ?? 'no answer';
  bubble.append('Refused by the gateway: ', code, `. ${EXPLAINED[error.reason] ?? error.message}`);
  messages.scrollTop = messages.scrollHeight;
}
