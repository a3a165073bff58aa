// Elements. What a model or a person has written becomes text, never markup.

/** An element with attributes, listeners (`on`, by event) and children: elements and texts. Null ones are left out. */
export function element(tag, { on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value !== 'boolean' ? value != null : name.startsWith('aria-')) made.setAttribute(name, value);
    else if (value) made.setAttribute(name, '');
  }
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A button that does one thing. */
export function button(label, act, attributes = {}) {
  return element('button', { type: 'button', ...attributes, on: { click: act } }, label);
}

/** One of several choices: radio buttons that look like one control. chosen(value) is called when it changes. */
export function choice(name, legend, options, value, chosen) {
  const radios = Object.entries(options).map(([each, label]) =>
    element(
      'label',
      {},
      element('input', {
        type: 'radio',
        name,
        value: each,
        checked: each === value,
        on: { change: () => chosen(each) },
      }),
      element('span', {}, label),
    ),
  );
  return element('fieldset', { class: 'choice' }, element('legend', {}, legend), ...radios);
}

/** The arrow keys, Home and End move the focus along elements of which one at a time can be reached by Tab. */
export function moveByArrows(event, items, at) {
  const step = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return null;
  event.preventDefault();
  return items[Math.max(0, Math.min(items.length - 1, step))];
}

const LONG = 20_000; // characters: to lay out a longer text twice, with each key, takes too long

/** A text area as tall as its text, over a mirror in which parts of it can be marked. Long texts scroll, unmarked. */
export class Editor {
  constructor(attributes, on = {}) {
    this.area = element('textarea', { spellcheck: 'false', autocomplete: 'off', rows: 1, ...attributes, on });
    this.mirror = element('div', { class: 'mirror', 'aria-hidden': 'true' });
    this.element = element('div', { class: 'editor' }, this.mirror, this.area);
    this.area.addEventListener('input', () => this.mark());
    this.mark();
  }

  get text() {
    return this.area.value;
  }

  set text(text) {
    this.area.value = text;
    this.mark();
  }

  get long() {
    return this.element.classList.contains('long');
  }

  /** Mark the characters from `start` to `end`, and show `ghost` after them. */
  mark([start, end] = [0, 0], ghost = '') {
    const { text } = this;
    this.marked = end;
    this.element.classList.toggle('long', text.length > LONG);
    this.ghost = element('span', { class: 'ghost' }, ghost);
    this.mirror.replaceChildren();
    if (this.long) return;
    const drawn = element('span', { class: 'drawn' }, text.slice(start, end));
    this.mirror.append(text.slice(0, start), drawn, this.ghost, text.slice(end), '\u200b');
  }

  /** Put the caret at a place, the end of what is marked or else with nothing marked, and have it seen. */
  showCaret(at) {
    this.area.setSelectionRange(at, at);
    if (at !== this.marked) this.mark([at, at]);
    if (this.long) this.area.scrollTop = (this.area.scrollHeight * at) / this.text.length - this.area.clientHeight / 2;
    else this.ghost.scrollIntoView({ block: 'nearest' });
  }
}
