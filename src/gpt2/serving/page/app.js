// The page: its tabs, what is shown above them, and what they share. A tab is a module with a name, a title, and
// build(shared), which returns {element, recall?(), restore?(state), take?(text), opened?(), ownSettings?}; another one
// is a line in TABS.

import { ask, Failure, health, useKeysFrom } from './api.js';
import * as compare from './compare.js';
import { button, element, moveByArrows } from './dom.js';
import * as inside from './inside.js';
import * as look from './look.js';
import { Settings } from './settings.js';
import { tellRefusal } from './storage.js';
import * as story from './story.js';
import * as write from './write.js';

const TABS = [write, look, inside, compare, story];
const PATIENCE = 1000; // milliseconds until the server is looked for again; one more each time,
const MOST_PATIENCE = 5000; // up to this: where --rate limits requests, these count

const $ = (id) => document.getElementById(id);

/** What went wrong is told above the tabs, with a way to try again, until something begins anew. */
function fail(failure, again) {
  const dismiss = () => $('failure').replaceChildren();
  $('failure').replaceChildren(
    element(
      'p',
      {},
      element('span', {}, failure.message),
      again &&
        button('Try again', () => {
          dismiss();
          again();
        }),
      button('Dismiss', dismiss),
    ),
  );
  if (failure.status === 0) waitForServer();
}

/** Say something to those who do not see it appear. */
function say(text) {
  $('said').textContent = text;
}

let waiting = false;

/** Tell how the server is until it is ready. */
async function waitForServer() {
  if (waiting) return;
  waiting = true;
  for (let patience = PATIENCE; ; patience = Math.min(patience + PATIENCE, MOST_PATIENCE)) {
    const state = await health();
    showState(state);
    if (state === 'ready') break;
    await new Promise((resolve) => {
      setTimeout(resolve, patience);
    });
  }
  waiting = false;
}

function showState(state) {
  const words = { ready: 'Ready', loading: 'Loading the model', away: 'No server' };
  $('status').dataset.state = state;
  $('status').textContent = words[state];
}

/** Ask for a key in a dialog; null if it is closed. */
function askForKey(refused) {
  const dialog = $('key');
  const [form, input] = [dialog.querySelector('form'), dialog.querySelector('input')];
  if (refused) $('key-why').textContent = 'The key that was given is not known here.';
  return new Promise((resolve) => {
    let key = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      key = input.value.trim();
      dialog.close();
    };
    form.querySelector('[type=button]').onclick = () => dialog.close();
    dialog.onclose = () => {
      input.value = '';
      resolve(key);
    };
    dialog.showModal();
  });
}

/** The tabs and their panels, built of what they share. */
function buildTabs(shared) {
  const built = Object.fromEntries(TABS.map((tab) => [tab.name, { tab, ...tab.build(shared) }]));
  for (const { tab, element: content } of Object.values(built)) {
    const attributes = { role: 'tab', id: `tab-${tab.name}`, 'aria-controls': `panel-${tab.name}` };
    $('tabs').append(
      button(
        tab.title,
        () => {
          location.hash = tab.name;
        },
        attributes,
      ),
    );
    $('panels').append(
      element(
        'section',
        {
          role: 'tabpanel',
          id: `panel-${tab.name}`,
          'aria-labelledby': `tab-${tab.name}`,
          hidden: true,
        },
        content,
      ),
    );
  }
  $('tabs').addEventListener('keydown', (event) => {
    const tabs = [...$('tabs').children];
    const next = moveByArrows(event, tabs, tabs.indexOf(document.activeElement));
    next?.focus();
    next?.click();
  });
  return built;
}

/** Show the tab that the address names after #, in the state that may follow it. */
function open(built) {
  const [name, state] = location.hash.slice(1).split('?');
  const shown = Object.hasOwn(built, name) ? built[name] : built[TABS[0].name];
  for (const { tab } of Object.values(built)) {
    const chosen = tab === shown.tab;
    $(`tab-${tab.name}`).setAttribute('aria-selected', chosen);
    $(`tab-${tab.name}`).tabIndex = chosen ? 0 : -1;
    $(`panel-${tab.name}`).hidden = !chosen;
  }
  $('settings').hidden = Boolean(shown.ownSettings);
  document.title = `${shown.tab.title} · GPT-2`;
  shown.opened?.();
  if (state === undefined) return;
  // Taken once: neither going back nor loading the page again shall bring it back over what was written since.
  history.replaceState(null, '', `#${shown.tab.name}`);
  if (shown.restore) shown.restore(new URLSearchParams(state));
  else fail(new Failure(`A link holds a text for ${write.title} alone; what this one holds is not taken.`, 200));
}

async function start() {
  let models;
  try {
    models = (await ask('v1/models')).data.map((model) => model.id);
  } catch (failure) {
    fail(failure, start);
    return;
  }
  waitForServer();
  const settings = new Settings(['model', 'temperature', 'top_k', 'top_p', 'length', 'seed'], models);
  const folded = element('details', {}, element('summary', {}, 'Settings'), settings.element);
  const wide = matchMedia('(min-width: 56rem)');
  const fold = () => {
    folded.open = wide.matches;
  };
  wide.addEventListener('change', fold);
  fold();
  $('settings').append(folded);

  const shared = { models, settings, fail, say, clear: () => $('failure').replaceChildren(), hand: null };
  const built = buildTabs(shared);
  // Take a text to another tab.
  shared.hand = (name, text) => {
    built[name].take(text);
    location.hash = name;
  };
  addEventListener('hashchange', () => open(built));
  for (const tab of Object.values(built)) tab.recall?.();
  open(built);
}

useKeysFrom(askForKey);
tellRefusal((sentence) => fail(new Failure(sentence, 200)));
start();
