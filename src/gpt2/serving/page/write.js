// Write: a text that goes on by itself.

import { draw, promptOf, Run } from './drawing.js';
import { Editor, button, element } from './dom.js';
import { History } from './history.js';

export const name = 'write';
export const title = 'Write';

const OFFERS = 3;
const OFFERED = 12; // tokens at most
const LINKED = ['model', 'temperature', 'top_k', 'top_p', 'length', 'seed']; // of the settings

export function build(shared) {
  const tab = new Write(shared);
  return { element: tab.element, restore: (state) => tab.restore(state), take: (text) => tab.take(text) };
}

class Write {
  constructor(shared) {
    this.shared = shared;
    this.history = new History();
    this.drawnFrom = null; // where what was drawn last begins, while it is the end of the text
    this.offers = null; // {texts, chosen, seed}
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
      { keydown: (event) => this.pressed(event), input: () => this.typed() },
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
        ' offers three continuations. ',
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
  }

  get text() {
    return this.editor.text;
  }

  get state() {
    return { text: this.text, drawnFrom: this.drawnFrom };
  }

  set state({ text, drawnFrom }) {
    this.editor.text = text;
    this.drawnFrom = drawnFrom;
    this.show();
    this.editor.showEnd();
  }

  show() {
    this.editor.mark(this.drawnFrom ?? this.text.length, this.offers?.texts[this.offers.chosen] ?? '');
    this.back.disabled = !this.history.past.length;
    this.forth.disabled = !this.history.future.length;
    this.again.disabled = this.drawnFrom === null;
  }

  showBusy(busy) {
    this.go.textContent = busy ? 'Stop' : 'Continue';
    this.element.setAttribute('aria-busy', busy);
    this.editor.area.readOnly = busy;
  }

  typed() {
    this.drawnFrom = null;
    this.closeOffers();
  }

  /** What the keys do in the text. */
  pressed(event) {
    const plain = !(event.shiftKey || event.ctrlKey || event.altKey || event.metaKey);
    const leaving = this.leaving;
    this.leaving = event.key === 'Escape';
    const act =
      event.key === 'Enter' && (event.ctrlKey || event.metaKey)
        ? () => this.continue()
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
      ? `The model reads the last ${prompt.length} tokens; the first ${cut} do not fit its window.`
      : '';
    for await (const piece of draw(prompt, settings, signal)) {
      if (this.text.length === start) this.history.keep(before);
      this.drawnFrom = start;
      this.editor.text += piece.text;
      this.show();
      this.editor.showEnd();
    }
    this.shared.say(this.text.slice(start) || 'The text ends here.');
  }

  undo() {
    this.escape();
    this.state = this.history.undo(this.state);
  }

  redo() {
    this.escape();
    this.state = this.history.redo(this.state);
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
    const offers = { texts: Array(OFFERS).fill(''), chosen: 0 };
    this.offers = offers;
    this.showOffers();
    await this.run.start(
      async (signal) => {
        const short = { ...settings, length: Math.min(settings.length, OFFERED) };
        const { prompt } = await promptOf(this.text, short, signal);
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
    const text = this.offers.texts[this.offers.chosen];
    if (!text) return;
    this.history.keep(this.state);
    this.escape();
    this.state = { text: this.text + text, drawnFrom: this.text.length };
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
    this.state = { text, drawnFrom: null };
  }

  /** The address of this state: what follows # stays in the browser. */
  async copyLink() {
    const values = this.shared.settings.values;
    const state = new URLSearchParams(LINKED.map((field) => [field, values[field]]));
    state.set('text', this.text);
    if (this.drawnFrom !== null) state.set('drawn', this.text.length - this.drawnFrom);
    history.replaceState(null, '', `#${name}?${state}`);
    try {
      await navigator.clipboard.writeText(location.href);
      this.tell('The link is copied. It holds the text, the settings and the seed.');
    } catch {
      this.tell('The link is in the address bar. It holds the text, the settings and the seed.');
    }
  }

  tell(text) {
    this.note.textContent = text;
    this.shared.say(text);
  }

  /** Be as a link says: undo, then Continue, draws the last piece again. */
  restore(state) {
    this.escape();
    const given = LINKED.filter((field) => state.has(field)).map((field) => [field, state.get(field)]);
    this.shared.settings.set(Object.fromEntries(given));
    const text = state.get('text') ?? '';
    const drawn = Number(state.get('drawn'));
    const drawnFrom = drawn > 0 && drawn <= text.length ? text.length - drawn : null;
    if (this.text !== text) this.history.keep(this.state);
    if (drawnFrom !== null) this.history.keep({ text: text.slice(0, drawnFrom), drawnFrom: null });
    this.state = { text, drawnFrom };
  }
}
