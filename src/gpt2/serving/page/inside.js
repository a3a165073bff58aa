// Inside: what each layer would say, what a head attends to, what a neuron does, and what changes without them.

import { ask } from './api.js';
import { Run } from './drawing.js';
import { Editor, button, element } from './dom.js';
import { attention, coloured, lens, nextTokens } from './insideviews.js';

export const name = 'inside';
export const title = 'Inside';

const EXAMPLE = 'When the king and the queen went to the garden, the queen gave a rose to the';
const PAUSE = 150; // milliseconds without a key until a text is looked into
const WAIT = 'The model is loaded when somebody first looks into it, which takes some seconds.';
const SEEK = 'Passages are sought in which the neuron is large.';
const WHAT = { layer: 'n_layer', head: 'n_head', neuron: 'n_neuron' };

export function build(shared) {
  const tab = new Inside(shared);
  return { element: tab.element, take: (text) => tab.take(text), opened: () => tab.opened() };
}

class Inside {
  constructor(shared) {
    this.shared = shared;
    this.run = new Run((busy) => this.element.setAttribute('aria-busy', busy), shared.fail);
    this.ablated = [];
    this.seen = null;
    this.editor = new Editor(
      { class: 'prose', rows: 2, 'aria-label': 'Text to look into', placeholder: 'Write a text.' },
      { input: () => this.soon() },
    );
    this.editor.text = EXAMPLE;
    this.fields = Object.fromEntries(Object.keys(WHAT).map((what) => [what, this.field(what)]));
    this.ablateHead = button('Ablate this head', () => this.ablate(`h${this.value('layer')}.head.${this.value('head')}`));
    this.chips = element('p', { class: 'bar', role: 'group', 'aria-label': 'Ablated', hidden: true });
    this.parts = Object.fromEntries(
      ['next', 'lens', 'attention', 'neuron', 'known'].map((part) => [part, element('div', { class: part })]),
    );
    shared.settings.element.addEventListener('change', () => this.opened());
    this.element = element(
      'div',
      { class: 'inside', 'aria-busy': 'false' },
      this.editor.element,
      element('div', { class: 'bar' }, ...Object.values(this.fields).map((input) => input.label)),
      element(
        'div',
        { class: 'bar' },
        this.ablateHead,
        button('Ablate this neuron', () => this.ablate(`h${this.value('layer')}.mlp.${this.value('neuron')}`)),
      ),
      this.chips,
      section('What comes next', this.parts.next),
      section(
        'What each layer would say next',
        element('p', { class: 'note' }, 'The last layer is at the top. Darker is likelier. A layer chosen here is that of the head and the neuron.'),
        this.parts.lens,
      ),
      section(
        'What the head attends to',
        element('p', { class: 'note' }, 'From each token on the left to those before it on the right; a thicker line is more.'),
        this.parts.attention,
      ),
      section('What the neuron does', this.parts.neuron, this.parts.known),
    );
  }

  field(what) {
    const input = element('input', {
      type: 'number',
      min: 0,
      value: 0,
      inputmode: 'numeric',
      on: { input: () => this.soon() },
    });
    return { input, label: element('label', { class: 'index' }, what, input) };
  }

  value(what) {
    return Number(this.fields[what].input.value) || 0;
  }

  take(text) {
    this.editor.text = text;
    this.look();
  }

  /** The tab is shown, or a setting has changed: another model is looked into at once, the first time with an example. */
  opened() {
    if (!this.element.closest('[hidden]') && this.stale) this.look();
  }

  /** Whether what is shown is of no model, or not of the one that is chosen. */
  get stale() {
    return this.seen?.model !== this.shared.settings.values.model;
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), PAUSE);
  }

  ablate(part) {
    if (!this.ablated.includes(part)) this.ablated.push(part);
    this.look();
  }

  restore(part) {
    this.ablated = this.ablated.filter((other) => other !== part);
    this.look();
  }

  look() {
    clearTimeout(this.timer);
    this.shared.clear();
    this.showChips();
    const { text } = this.editor;
    if (!text) {
      this.run.stop();
      this.knownNeuron = null;
      for (const part of Object.values(this.parts)) part.replaceChildren();
      return;
    }
    if (this.stale) this.parts.next.replaceChildren(element('p', { class: 'note' }, WAIT));
    const asked = Object.fromEntries(Object.keys(WHAT).map((what) => [what, this.value(what)]));
    const { model } = this.shared.settings.values;
    const ablate = this.ablated.length ? this.ablated.join(',') : null;
    const body = { model, text, ...asked, ablate };
    this.run.start(
      async (signal) => {
        this.show(await ask('v1/inside', { ...body, passages: false }, signal));
        await this.showKnown(body, signal);
      },
      () => this.look(),
    );
  }

  /** What is known of the neuron, whatever the text: asked for by itself, since it may take seconds the first time. */
  async showKnown(body, signal) {
    const neuron = [body.model, body.layer, body.neuron].join();
    if (neuron === this.knownNeuron) return;
    this.parts.known.replaceChildren(element('p', { class: 'note' }, SEEK));
    this.knownNeuron = null;
    this.parts.known.replaceChildren(...known(await ask('v1/inside', body, signal)));
    this.knownNeuron = neuron;
  }

  showChips() {
    const focused = this.chips.contains(document.activeElement);
    this.chips.hidden = !this.ablated.length;
    this.chips.replaceChildren(
      ...this.ablated.map((part) =>
        button(`${part} ×`, () => this.restore(part), { class: 'chip', 'aria-label': `Put ${part} back` }),
      ),
    );
    if (focused) (this.chips.firstElementChild ?? this.ablateHead).focus();
  }

  show(seen) {
    this.seen = seen;
    for (const [what, size] of Object.entries(WHAT)) this.fields[what].input.max = seen[size] - 1;
    this.parts.next.replaceChildren(nextTokens(seen.next, seen.before, this.ablated.length > 0));
    refill(this.parts.lens, lens(seen, this.value('layer'), (layer) => this.choose('layer', layer)));
    refill(this.parts.attention, attention(seen.tokens, seen.pattern));
    this.parts.neuron.replaceChildren(coloured(seen.tokens, seen.activations));
    this.shared.say(`Next comes ${seen.next[0].token}`);
  }

  choose(what, value) {
    this.fields[what].input.value = value;
    this.look();
  }
}

function section(heading, ...children) {
  return element('section', { 'aria-label': heading }, element('h2', {}, heading), ...children);
}

/** Put what scrolls in place of what a part shows; what was in view and had the focus still has. */
function refill(part, region) {
  const { scrollLeft, scrollTop } = part.firstElementChild ?? region;
  const focused = part.contains(document.activeElement);
  part.replaceChildren(region);
  region.scrollTo(scrollLeft, scrollTop);
  if (focused) (region.querySelector('[aria-pressed="true"]') ?? region).focus({ preventScroll: true });
}

/** What is published of the neuron, and the passages in which it is largest, of which the server has some. */
function known(seen) {
  const explained = seen.explanations.map(({ explanation, score }) =>
    element('p', {}, `Published: ${explanation}${score === null ? '' : ` (score ${score.toFixed(2)})`}`),
  );
  const passages = seen.passages.map(({ tokens, activations }) => coloured(tokens, activations));
  if (passages.length) explained.push(element('h3', {}, `Where it is largest, in ${seen.source}`));
  return [...explained, ...passages];
}
