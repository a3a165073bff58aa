// Story: an adventure or a dialogue. What is pinned stays before what the model reads; the rest is cut at its start
// where the window is full. Kept in this browser.

import { Failure } from './api.js';
import { draw, room, Run, tokenize } from './drawing.js';
import { Editor, button, choice, element } from './dom.js';
import { History } from './history.js';
import { Kept } from './storage.js';

export const name = 'story';
export const title = 'Story';

const KEPT = new Kept('localStorage', 'gpt2 story');
const ODD = new Kept('localStorage', 'gpt2 story, not understood');

const KINDS = {
  adventure: {
    memory: 'You are a knight in the kingdom of Oz. You have a sword, a lamp and a brave little dog.',
    label: 'What you do',
    act: 'Do',
    placeholder: 'Open the door',
    own: (text) => `\n\n> ${text}\n\n`,
    cue: () => '',
    stop: () => ['\n>'],
  },
  dialogue: {
    memory: 'A talk between a traveller and an old wizard.',
    label: 'What you say',
    act: 'Say',
    placeholder: 'Good evening.',
    own: (text, names) => `\n${names.own}: ${text}`,
    cue: (names) => `\n${names.other}:`,
    stop: (names) => [`\n${names.own}:`, `\n${names.other}:`],
  },
};

export function build(shared) {
  const tab = new Story(shared);
  return { element: tab.element };
}

/** A story without turns. Of each turn: whether it is one's own, and its text. */
function fresh(kind, memory = KINDS[kind].memory) {
  return { memory, names: { own: 'Traveller', other: 'Wizard' }, turns: [] };
}

const isText = (value) => typeof value === 'string';
const isTurn = (turn) => typeof turn?.own === 'boolean' && isText(turn.text);

/** {kind, stories, odd} of what was kept: what is missing, or no part of a story, is as in a new one. */
function understood(text) {
  let odd = false;
  const taken = (value, fits, otherwise) => {
    if (value !== undefined && fits(value)) return value;
    odd ||= value !== undefined;
    return otherwise;
  };
  const parts = (value) => taken(value, (given) => given?.constructor === Object, {});
  const story = (kind, given) => {
    const { memory, names, turns } = fresh(kind);
    const { own, other } = parts(given.names);
    const found = taken(given.turns, Array.isArray, turns);
    return {
      memory: taken(given.memory, isText, memory),
      names: { own: taken(own, isText, names.own), other: taken(other, isText, names.other) },
      turns: found.filter((turn) => taken(turn ?? null, isTurn, null)),
    };
  };
  const kept = parts(parsed(text));
  return {
    kind: taken(kept.kind, (kind) => Object.hasOwn(KINDS, kind), 'adventure'),
    stories: Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, story(kind, parts(kept[kind]))])),
    odd,
  };
}

/** JSON; null where it is none. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function differ(one, other) {
  return JSON.stringify(one) !== JSON.stringify(other);
}

class Story {
  constructor(shared) {
    this.shared = shared;
    this.run = new Run((busy) => this.showBusy(busy), shared.fail);
    this.kept = { kind: 'adventure', adventure: fresh('adventure'), dialogue: fresh('dialogue') };
    this.rival = null; // the stories of another tab, while it is to be said which are kept
    this.taken = {}; // the turns, by kind, that another tab had last
    this.histories = { adventure: new History(), dialogue: new History() };
    this.known = new Map(); // what tokenize has said
    this.seenFrom = 0; // the first turn that the model read
    this.load();
    this.buildParts();
    this.showStory();
    addEventListener('storage', ({ key }) => key === KEPT.key && this.followOthers());
    addEventListener('pageshow', ({ persisted }) => persisted && this.followOthers()); // it was away, and deaf
  }

  get kind() {
    return KINDS[this.kept.kind];
  }

  get story() {
    return this.kept[this.kept.kind];
  }

  get history() {
    return this.histories[this.kept.kind];
  }

  buildParts() {
    this.memory = new Editor(
      { class: 'prose', rows: 1, id: 'story-memory' },
      { input: () => this.edit({ memory: this.memory.text }) },
    );
    this.names = ['own', 'other'].map((who) =>
      element('input', {
        'aria-label': who === 'own' ? 'Your name' : 'Name of the other',
        maxlength: 40,
        autocomplete: 'off',
        on: { input: (event) => this.edit({ names: { ...this.story.names, [who]: event.target.value } }) },
      }),
    );
    this.cast = element('p', { class: 'cast' }, this.names[0], ' talks to ', this.names[1]);
    this.log = element('div', {
      class: 'log prose',
      role: 'log',
      'aria-live': 'off',
      'aria-label': 'Story',
      tabindex: 0,
    });
    this.input = new Editor(
      { id: 'story-input', rows: 1, 'aria-describedby': 'story-hint' },
      { keydown: (event) => this.pressed(event) },
    );
    this.inputLabel = element('label', { class: 'unseen', for: 'story-input' });
    this.act = button('', (event) => this.actOrStop(event), { class: 'first' });
    this.back = button('Undo', () => this.travel('undo'));
    this.forth = button('Redo', () => this.travel('redo'));
    this.again = button('Try again', () => this.tryAgain());
    this.which = element(
      'p',
      { class: 'bar', role: 'alert', hidden: true },
      'Another tab has changed this story.',
      button('Take that one', () => this.settle(true)),
      button('Keep this one', () => this.settle(false)),
    );
    const kinds = choice(
      'story-kind',
      'Kind',
      { adventure: 'Adventure', dialogue: 'Dialogue' },
      this.kept.kind,
      (kind) => this.become(kind),
    );
    this.element = element(
      'div',
      { class: 'story' },
      element('div', { class: 'head' }, kinds, this.cast),
      element(
        'div',
        { class: 'memory' },
        element(
          'label',
          { for: 'story-memory' },
          'Memory',
          element('span', { class: 'meaning' }, ' is always the first thing the model reads'),
        ),
        this.memory.element,
      ),
      this.which,
      this.log,
      element(
        'div',
        { class: 'sticky' },
        element('div', { class: 'say' }, this.inputLabel, this.input.element, this.act),
        element('p', { class: 'meaning', id: 'story-hint' }, 'Leave it empty, and the model just goes on.'),
        element(
          'div',
          { class: 'bar' },
          this.back,
          this.forth,
          this.again,
          element('span', { class: 'space' }),
          button('Export', () => this.export(), { class: 'plain' }),
          button('New', () => this.restart(), { class: 'plain' }),
        ),
      ),
    );
  }

  // What is kept

  load() {
    const text = KEPT.read();
    if (text === null) return;
    const { kind, stories, odd } = understood(text);
    this.kept = { kind, ...stories };
    if (!odd) return;
    ODD.write(text);
    this.save();
    this.shared.fail(new Failure(`A part of the story that was kept is none; all of it is kept as “${ODD.key}”.`, 200));
  }

  save() {
    if (!this.rival) KEPT.write(JSON.stringify(this.kept));
  }

  /** Another tab has changed a story: it is taken over, or, while this tab draws another end of it, asked about. */
  followOthers() {
    const text = KEPT.read();
    if (text === null) return;
    const { stories, odd } = understood(text);
    if (odd) return;
    if (this.rival || (this.run.busy && differ(stories[this.kept.kind], this.story))) this.askWhich(stories);
    else this.takeOver(stories);
  }

  takeOver(stories) {
    for (const [kind, story] of Object.entries(stories)) {
      if (!differ(story, this.kept[kind])) continue;
      const { turns } = this.kept[kind];
      if (turns !== this.taken[kind] && differ(turns, story.turns)) this.histories[kind].keep(turns);
      this.kept[kind] = story;
      this.taken[kind] = story.turns;
    }
    this.showStory();
  }

  askWhich(stories) {
    this.rival = stories;
    this.which.hidden = false;
  }

  settle(others) {
    const { rival } = this;
    this.rival = null;
    this.which.hidden = true;
    if (others) this.run.stop();
    if (others) this.takeOver(rival);
    else this.save();
  }

  edit(changes) {
    this.kept[this.kept.kind] = { ...this.story, ...changes };
    this.save();
  }

  /** Change the turns in a way that can be undone. */
  turn(turns) {
    this.history.keep(this.story.turns);
    this.edit({ turns });
    this.showStory();
  }

  travel(way) {
    this.run.stop();
    this.edit({ turns: this.history[way](this.story.turns) });
    this.showStory();
  }

  become(kind) {
    this.run.stop();
    this.kept.kind = kind;
    this.seenFrom = 0;
    this.save();
    this.showStory();
  }

  restart() {
    this.run.stop();
    if (this.story.turns.length) this.turn([]);
    this.input.area.focus();
  }

  // What is shown

  showStory() {
    const { memory, names, turns } = this.story;
    if (this.memory.text !== memory) this.memory.text = memory;
    this.names[0].value = names.own;
    this.names[1].value = names.other;
    this.cast.hidden = this.kept.kind !== 'dialogue';
    this.log.dataset.kind = this.kept.kind;
    this.inputLabel.textContent = this.kind.label;
    this.input.area.placeholder = this.kind.placeholder;
    this.showBusy(this.run.busy);
    this.log.replaceChildren(...this.paragraphs());
    this.log.scrollTop = this.log.scrollHeight;
    this.back.disabled = !this.history.past.length;
    this.forth.disabled = !this.history.future.length;
    this.again.disabled = !turns.length;
  }

  /** A paragraph a turn; where an adventure just went on, it does so in the same one. */
  paragraphs() {
    const { names, turns } = this.story;
    const talk = this.kept.kind === 'dialogue';
    const shown = [];
    turns.forEach(({ own, text }, at) => {
      if (at && at === this.seenFrom) shown.push(element('p', { class: 'cut' }, 'The model reads from here on'));
      else if (at && !talk && !own && !turns[at - 1].own) return shown.at(-1).append(text);
      const who = talk && element('b', {}, own ? names.own : names.other);
      const kind = `${own ? 'own' : 'model'}${at < this.seenFrom ? ' forgotten' : ''}`;
      return shown.push(element('p', { class: kind }, who || null, text.trimStart()));
    });
    return shown;
  }

  showBusy(busy) {
    this.act.textContent = busy ? 'Stop' : this.kind.act;
    this.element.setAttribute('aria-busy', busy);
  }

  // Turns

  pressed(event) {
    if (event.key === 'Escape') this.run.stop();
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.run.busy) this.take();
  }

  actOrStop(event) {
    if (event.detail > 1) return;
    if (this.run.busy) this.run.stop();
    else this.take();
  }

  take() {
    const text = this.input.text.trim();
    this.input.text = '';
    this.answer(text ? [...this.story.turns, { own: true, text }] : this.story.turns, this.shared.settings.next());
  }

  /** Another answer in the place of the last one, by another seed. */
  tryAgain() {
    this.run.stop();
    const { turns } = this.story;
    this.answer(turns.at(-1).own ? turns : turns.slice(0, -1), this.shared.settings.next({ again: true }));
  }

  /** Have the model go on after turns. */
  answer(turns, settings) {
    this.shared.clear();
    this.turn(turns);
    this.run.start((signal) => this.drawTurn(turns, settings, signal));
  }

  async drawTurn(turns, settings, signal) {
    const prompt = await this.prompt(turns, settings, signal);
    let text = '';
    for await (const piece of draw(prompt, settings, signal, { stop: this.kind.stop(this.story.names) })) {
      text += piece.text;
      this.edit({ turns: [...turns, { own: false, text }] });
      this.showStory();
    }
    if (!text.trim()) {
      this.edit({ turns });
      this.showStory();
      throw new Failure('The model had nothing to say.', 200);
    }
    this.shared.say(text);
  }

  /** The token ids that the model reads: the memory, then as many of the last turns as fit, whole ones if one does. */
  async prompt(turns, settings, signal) {
    const { memory, names } = this.story;
    const tokenized = (text) => this.tokenized(text, settings.model, signal);
    const pinned = await tokenized(memory && `${memory}\n`);
    const cue = await tokenized(this.kind.cue(names));
    let left = room(pinned, settings.length) - pinned.ids.length - cue.ids.length;
    if (left < 0) {
      throw new Failure(
        `The memory's ${pinned.ids.length} tokens and length ${settings.length} do not fit ` +
          `the window of ${pinned.n_ctx}. Shorten one.`,
        400,
      );
    }
    const read = [];
    this.seenFrom = turns.length;
    while (left > 0 && this.seenFrom > 0) {
      const { own, text } = turns[this.seenFrom - 1];
      const { ids } = await tokenized(own ? this.kind.own(text, names) : this.kind.cue(names) + text);
      if (ids.length > left && read.length) break;
      read.unshift(...ids.slice(-left));
      left -= ids.length;
      this.seenFrom -= 1;
    }
    const prompt = [...pinned.ids, ...read, ...cue.ids];
    return prompt.length ? prompt : null;
  }

  /** As drawing.tokenize; turns are asked about once. */
  async tokenized(text, model, signal) {
    const key = `${model}\n${text}`;
    if (!this.known.has(key)) this.known.set(key, await tokenize(model, text, signal));
    return this.known.get(key);
  }

  /** The whole story as a file. */
  export() {
    const { memory, names, turns } = this.story;
    const parts = turns.map(({ own, text }) => (own ? this.kind.own(text, names) : this.kind.cue(names) + text));
    const address = URL.createObjectURL(new Blob([`${memory}\n${parts.join('')}\n`], { type: 'text/plain' }));
    element('a', { href: address, download: `${this.kept.kind}.txt` }).click();
    URL.revokeObjectURL(address);
  }
}
