// Write: a text that goes on by itself.

import { draw, promptOf, Run } from './drawing.js';
import { Editor, button, element } from './dom.js';
import { History } from './history.js';
import { Kept } from './storage.js';
import { count } from './tokens.js';

export const name = 'write';
export const title = 'Write';

const OFFERS = 3;
const OFFERED = 12; // tokens at most
const LINKED = ['model', 'temperature', 'top_k', 'top_p', 'length', 'seed']; // of the settings
const LONGEST_LINK = 64_000; // characters: browsers differ, and take less than some say
const KEPT = new Kept('sessionStorage', 'gpt2 write');
const TYPING = ['insertText', 'insertCompositionText', 'deleteContentBackward', 'deleteContentForward'];

export function build(shared) {
  const tab = new Write(shared);
  return {
    element: tab.element,
    recall: () => tab.recall(),
    restore: (state) => tab.restore(state),
    take: (text) => tab.take(text),
  };
}

class Write {
  constructor(shared) {
    this.shared = shared;
    this.history = new History();
    this.drawn = null; // [start, end] of what was drawn last, until the text is changed by hand
    this.typing = null; // {inputType, at}: how and where the text was changed by hand last
    this.offers = null; // {texts, chosen, at}: at is where they go
    this.leaving = false; // whether Tab goes on to the next control
    this.run = new Run((busy) => this.showBusy(busy), shared.fail);
    this.editor = new Editor(
      {
        id: 'write-text',
        class: 'prose',
        'aria-label': 'Text',
        'aria-describedby': 'write-keys',
        rows: 8,
        placeholder: 'Write a beginning, or draw from nothing.',
        'aria-controls': 'write-offers',
      },
      { keydown: (event) => this.pressed(event), input: (event) => this.typed(event), beforeinput: (event) => this.travelled(event) },
    );
    this.list = element('div', {
      id: 'write-offers',
      class: 'offers',
      role: 'listbox',
      'aria-label': 'Continuations',
      hidden: true,
    });
    this.go = button('Continue', (event) => this.continueOrStop(event), {
      class: 'first',
      'aria-keyshortcuts': 'Control+Enter',
    });
    this.back = button('Undo', () => this.undo());
    this.forth = button('Redo', () => this.redo());
    this.again = button('Try again', () => this.tryAgain());
    this.note = element('p', { class: 'note' });
    this.element = element(
      'div',
      { class: 'write' },
      this.editor.element,
      this.list,
      element(
        'div',
        { class: 'bar sticky' },
        this.go,
        button('Offer three', () => this.offer()),
        this.back,
        this.forth,
        this.again,
        element('span', { class: 'space' }),
        button('Look at it', () => shared.hand('look', this.text), { class: 'plain' }),
        button('Copy link', () => this.copyLink(), { class: 'plain' }),
      ),
      element(
        'p',
        { id: 'write-keys', class: 'keys' },
        element('kbd', {}, 'Tab'),
        ' offers three continuations of the text before the caret. ',
        element('kbd', {}, 'Ctrl'),
        ' ',
        element('kbd', {}, 'Enter'),
        ' draws the next piece. ',
        element('kbd', {}, 'Esc'),
        ' stops; ',
        element('kbd', {}, 'Tab'),
        ' after it leaves the text.',
      ),
      this.note,
    );
    this.show();
    addEventListener('pagehide', () => this.keep());
    document.addEventListener('visibilitychange', () => document.hidden && this.keep());
  }

  get text() {
    return this.editor.text;
  }

  get state() {
    return { text: this.text, drawn: this.drawn };
  }

  set state({ text, drawn }) {
    const at = drawn?.[1] ?? changeEnd(this.text, text);
    this.editor.text = text;
    this.drawn = drawn;
    this.typing = null;
    this.show();
    this.editor.showCaret(at);
  }

  /** Whether what was drawn last is the end of the text. */
  get drawnLast() {
    return this.drawn?.[1] === this.text.length;
  }

  show() {
    const { length } = this.text;
    // What follows the caret would lie over the offer.
    const ghost = this.offers?.at === length ? this.offers.texts[this.offers.chosen] : '';
    this.shown = this.state;
    this.editor.mark(ghost ? [this.drawnLast ? this.drawn[0] : length, length] : (this.drawn ?? [length, length]), ghost);
    this.back.disabled = !this.history.past.length;
    this.forth.disabled = !this.history.future.length;
    this.again.disabled = !this.drawnLast;
  }

  showBusy(busy) {
    this.go.textContent = busy ? 'Stop' : 'Continue';
    this.element.setAttribute('aria-busy', busy);
    this.editor.area.readOnly = busy;
  }

  /** A run of typing, or of deleting, in one place is a step that Undo takes back. */
  typed({ inputType }) {
    const at = this.editor.area.selectionEnd;
    const step = inputType === 'deleteContentForward' ? 0 : this.text.length - this.shown.text.length;
    const same = TYPING.includes(inputType) && inputType === this.typing?.inputType && at - step === this.typing.at;
    if (!same) this.history.keep(this.shown);
    this.typing = { inputType, at };
    this.drawn = null;
    this.closeOffers();
    this.show();
  }

  /** Undo and Redo of the browser's own menus. */
  travelled(event) {
    const act = { historyUndo: () => this.undo(), historyRedo: () => this.redo() }[event.inputType];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** What the keys do in the text. */
  pressed(event) {
    const plain = !(event.shiftKey || event.ctrlKey || event.altKey || event.metaKey);
    const leaving = this.leaving;
    this.leaving = event.key === 'Escape';
    const command = (event.ctrlKey || event.metaKey) && !event.altKey;
    const act = command
      ? this.commands[`${event.shiftKey ? 'Shift ' : ''}${event.key.toLowerCase()}`]
      : event.key === 'Escape'
        ? () => this.escape()
        : plain && event.key === 'Tab' && !leaving
          ? () => (this.offers ? this.accept() : this.offer())
          : plain && this.offers
            ? this.offerKeys[event.key]
            : null;
    if (!act) return;
    event.preventDefault();
    act();
  }

  commands = {
    enter: () => this.continue(),
    z: () => this.undo(),
    'Shift z': () => this.redo(),
    y: () => this.redo(),
  };
  offerKeys = { ArrowDown: () => this.choose(1), ArrowUp: () => this.choose(-1), Enter: () => this.accept() };

  escape() {
    this.run.stop();
    this.closeOffers();
  }

  // The next piece

  continueOrStop(event) {
    if (event.detail > 1) return; // the second click of a double one
    if (this.run.busy) this.run.stop();
    else this.continue();
  }

  continue(settings = this.shared.settings.next()) {
    this.closeOffers();
    this.shared.clear();
    this.run.start(
      (signal) => this.drawOn(this.state, settings, signal),
      () => this.continue(settings),
    );
  }

  async drawOn(before, settings, signal) {
    const start = before.text.length;
    const { prompt, cut } = await promptOf(before.text, settings, signal);
    this.note.textContent = cut
      ? `The model reads the last ${prompt.length} tokens; what is before them does not fit its window.`
      : '';
    for await (const piece of draw(prompt, settings, signal)) {
      if (this.text.length === start) this.history.keep(before);
      const text = this.text + piece.text;
      this.state = { text, drawn: [start, text.length] };
    }
    this.shared.say(this.text.slice(start) || 'The text ends here.');
  }

  undo() {
    this.escape();
    if (this.history.past.length) this.state = this.history.undo(this.state);
  }

  redo() {
    this.escape();
    if (this.history.future.length) this.state = this.history.redo(this.state);
  }

  /** Another piece in place of the last one, by another seed. */
  tryAgain() {
    this.undo();
    this.continue(this.shared.settings.next({ again: true }));
  }

  // Continuations to choose from

  async offer() {
    this.shared.clear();
    this.closeOffers();
    const settings = this.shared.settings.next();
    const offers = { texts: Array(OFFERS).fill(''), chosen: 0, at: this.editor.area.selectionEnd };
    this.offers = offers;
    this.showOffers();
    await this.run.start(
      async (signal) => {
        const short = { ...settings, length: Math.min(settings.length, OFFERED) };
        const { prompt } = await promptOf(this.text.slice(0, offers.at), short, signal);
        for await (const { index, text } of draw(prompt, short, signal, { n: OFFERS })) {
          offers.texts[index] += text;
          this.showOffers();
        }
        this.shared.say(`Three continuations. ${offers.texts.map((text, at) => `${at + 1}: ${text}`).join('. ')}`);
      },
      () => this.offer(),
    );
    if (this.offers === offers && !offers.texts.some(Boolean)) this.closeOffers();
  }

  showOffers() {
    if (!this.offers) return;
    const { texts, chosen } = this.offers;
    this.list.hidden = false;
    this.list.replaceChildren(
      ...texts.map((text, at) =>
        element(
          'div',
          {
            role: 'option',
            id: `write-offer-${at}`,
            'aria-selected': at === chosen,
            on: {
              click: () => {
                this.offers.chosen = at;
                this.accept();
              },
              pointerenter: () => this.choose(at - this.offers.chosen),
            },
          },
          text ? text.trim().replaceAll('\n', ' ↵ ') || '↵' : '…',
        ),
      ),
    );
    this.editor.area.setAttribute('aria-activedescendant', `write-offer-${chosen}`);
    this.show();
  }

  choose(step) {
    if (!this.offers || !step) return;
    this.offers.chosen = (this.offers.chosen + step + OFFERS) % OFFERS;
    this.showOffers();
  }

  accept() {
    const { texts, chosen, at } = this.offers;
    const [offer, before] = [texts[chosen], this.text];
    if (!offer) return;
    this.history.keep(this.state);
    this.escape();
    const text = before.slice(0, at) + offer + before.slice(at);
    this.state = { text, drawn: [at, at + offer.length] };
    this.editor.area.focus();
  }

  closeOffers() {
    if (!this.offers) return;
    this.offers = null;
    this.run.stop();
    this.list.hidden = true;
    this.list.replaceChildren();
    this.editor.area.removeAttribute('aria-activedescendant');
    this.show();
  }

  // Where the text comes from and goes to

  take(text) {
    if (text === this.text) return;
    this.escape();
    this.history.keep(this.state);
    this.state = { text, drawn: null };
  }

  /** The state as a link holds it. The seed goes with it if it is `kept` for what is drawn next. */
  linked(kept = true) {
    const values = this.shared.settings.values;
    const fields = LINKED.filter((field) => kept || field !== 'seed');
    const state = new URLSearchParams(fields.map((field) => [field, values[field]]));
    state.set('text', this.text);
    if (this.drawnLast) state.set('drawn', this.drawn[1] - this.drawn[0]);
    return state;
  }

  /** Be as was kept. Only once the text is on the page: before that it has no caret. */
  recall() {
    const kept = KEPT.read();
    if (kept !== null) this.restore(new URLSearchParams(kept));
  }

  /** Keep the state until the tab is closed. */
  keep() {
    KEPT.write(this.linked(this.shared.settings.keepsSeed));
  }

  /** The address of this state: what follows # stays in the browser. */
  async copyLink() {
    const link = new URL(`#${name}?${this.linked()}`, location.href).href;
    if (link.length > LONGEST_LINK) {
      const [size, most] = [count(link.length), count(LONGEST_LINK)];
      this.tell(`The link would have ${size} characters; not every browser takes more than ${most}. Shorten the text.`);
      return;
    }
    try {
      await navigator.clipboard.writeText(link);
      this.tell('The link is copied. It holds the text, the settings and the seed.');
    } catch {
      this.tell('Copy the link from here. It holds the text, the settings and the seed.');
      const field = element('input', { 'aria-label': 'Link', readonly: true, value: link });
      this.note.append(' ', field);
      field.select();
    }
  }

  tell(text) {
    this.note.textContent = text;
    this.shared.say(text);
  }

  /** Be as a link says: undo, then Continue, draws the last piece again. */
  restore(state) {
    this.escape();
    const { settings } = this.shared;
    const given = [...state].filter(([field]) => !['text', 'drawn'].includes(field));
    settings.set(Object.fromEntries(given.filter(([field]) => LINKED.includes(field))));
    const untaken = given.filter(([field, value]) => !isValue(settings.values[field], value));
    const text = state.get('text') ?? '';
    const length = Number(state.get('drawn'));
    const drawn = length > 0 && length <= text.length ? [text.length - length, text.length] : null;
    if (this.text && this.text !== text) this.history.keep(this.state);
    if (drawn) this.history.keep({ text: text.slice(0, drawn[0]), drawn: null });
    this.state = { text, drawn };
    const names = untaken.map((setting) => setting.join('=')).join(', ');
    this.tell(names && `${names} cannot be had here; what was set stays.`);
  }
}

/** Whether a setting's value is the one that a link has as text. */
function isValue(value, text) {
  return value === (typeof value === 'number' ? Number(text) : text);
}

/** Where in a text ends what is not as before. */
function changeEnd(before, text) {
  let same = 0;
  while (same < Math.min(before.length, text.length) && before.at(-1 - same) === text.at(-1 - same)) same += 1;
  return text.length - same;
}
