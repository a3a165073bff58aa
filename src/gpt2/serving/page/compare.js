// Compare: the same text and seed, with two settings or two models.

import { draw, promptOf, Run } from './drawing.js';
import { Editor, button, element } from './dom.js';
import { Settings } from './settings.js';

export const name = 'compare';
export const title = 'Compare';

export function build(shared) {
  return { element: new Compare(shared).element, ownSettings: true };
}

class Compare {
  constructor(shared) {
    this.shared = shared;
    this.run = new Run((busy) => this.showBusy(busy), shared.fail);
    this.editor = new Editor(
      {
        class: 'prose',
        rows: 2,
        'aria-label': 'Text to continue',
        placeholder: 'Write a beginning, or draw from nothing.',
      },
      { keydown: (event) => event.key === 'Enter' && (event.ctrlKey || event.metaKey) && this.draw() },
    );
    this.editor.text = 'Once upon a time';
    this.common = new Settings(['length', 'seed'], shared.models);
    const second = shared.models.length > 1 ? { model: shared.models[1] } : { temperature: 0.7 };
    this.sides = [new Side('A', shared.models, {}), new Side('B', shared.models, second)];
    this.act = button('Draw both', (event) => this.drawOrStop(event), { class: 'first' });
    this.note = element('p', { class: 'note' });
    this.element = element(
      'div',
      { class: 'compare' },
      this.editor.element,
      this.common.element,
      element('div', { class: 'sides' }, ...this.sides.map((side) => side.element)),
      element(
        'div',
        { class: 'bar sticky' },
        this.act,
        button('Another seed', () => this.draw({ again: true })),
      ),
      this.note,
    );
  }

  showBusy(busy) {
    this.act.textContent = busy ? 'Stop' : 'Draw both';
    this.element.setAttribute('aria-busy', busy);
  }

  drawOrStop(event) {
    if (event.detail > 1) return;
    if (this.run.busy) this.run.stop();
    else this.draw();
  }

  draw(how) {
    const common = this.common.next(how);
    this.shared.clear();
    this.note.textContent = '';
    this.run.start(async (signal) => {
      await Promise.all(this.sides.map((side) => this.drawSide(side, common, signal)));
      this.shared.say(this.sides.map((side) => `${side.name}: ${side.drawn}`).join('. '));
    });
  }

  async drawSide(side, common, signal) {
    const settings = { ...side.settings.values, ...common };
    side.drawn = '';
    this.showDrawn();
    const { prompt, cut } = await promptOf(this.editor.text, settings, signal);
    if (cut) this.note.textContent = `Only the last ${prompt.length} tokens of the text fit the window.`;
    for await (const piece of draw(prompt, settings, signal)) {
      side.drawn += piece.text;
      this.showDrawn();
    }
  }

  /** Both texts, each marked from where they part. */
  showDrawn() {
    const [first, second] = this.sides.map((side) => side.drawn);
    let shared = 0;
    while (shared < first.length && first[shared] === second[shared]) shared += 1;
    // A word is not parted.
    if (shared < Math.min(first.length, second.length)) shared = first.slice(0, shared).search(/\S*$/);
    this.sides.forEach((side) => side.show(shared));
  }
}

class Side {
  constructor(letter, models, values) {
    this.name = letter;
    this.drawn = '';
    this.settings = new Settings(['model', 'temperature', 'top_k', 'top_p'], models, values);
    this.output = element('p', { class: 'prose output', role: 'region', 'aria-label': `Text of ${letter}` });
    this.element = element(
      'section',
      { class: 'side', 'aria-label': letter },
      element('h2', {}, letter),
      this.settings.element,
      this.output,
    );
  }

  show(shared) {
    this.output.replaceChildren(
      this.drawn.slice(0, shared).trimStart(),
      element('span', { class: 'drawn' }, this.drawn.slice(shared)),
    );
  }
}
