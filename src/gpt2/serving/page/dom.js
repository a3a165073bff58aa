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

/** A text area as tall as its text, over a mirror in which parts of it can be marked. */
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

  /** Mark what follows the first `start` characters, and show `ghost` after the end. */
  mark(start = this.text.length, ghost = '') {
    this.mirror.replaceChildren(
      this.text.slice(0, start),
      element('span', { class: 'drawn' }, this.text.slice(start)),
      element('span', { class: 'ghost' }, ghost),
      '\u200b',
    );
  }

  /** Put the caret, and what can be seen, at the end. */
  showEnd() {
    this.area.setSelectionRange(this.text.length, this.text.length);
    this.mirror.lastElementChild.scrollIntoView({ block: 'nearest' });
  }
}
