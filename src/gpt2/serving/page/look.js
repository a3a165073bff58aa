// Look: how likely the model finds each token of a text, and what it would have said instead.

import { ask, Failure } from './api.js';
import { draw, room, Run, tokenize } from './drawing.js';
import { Editor, button, choice, element } from './dom.js';
import { count, pieces, SCALES } from './tokens.js';
import { TokenView } from './tokenview.js';

export const name = 'look';
export const title = 'Look';

const LIKELIEST = 10;
const MOST = 20_000; // tokens that are shown
const END_OF_TEXT = '<|endoftext|>';
const EXAMPLE = 'Once upon a time there was a little girl who lived with her mother in a house by the sea.';

export function build(shared) {
  const tab = new Look(shared);
  return { element: tab.element, take: (text) => tab.take(text) };
}

/** Yield the scores of a text's tokens, window by window, each overlapping the last by half, as score.py does. */
async function* scores({ ids, max_prompt: size }, model, signal) {
  const stride = Math.max(1, Math.floor(size / 2));
  const score = async (text, end_of_text) =>
    (await ask('v1/score', { model, text, end_of_text, likeliest: LIKELIEST }, signal)).tokens;
  yield score(ids.slice(0, size), true);
  for (let start = stride - 1, scored = size; scored < ids.length; start += stride, scored += stride) {
    const tokens = await score(ids.slice(start, start + size + 1), false);
    yield tokens.slice(scored - start - 1); // the first of a window is not scored
  }
}

class Look {
  constructor(shared) {
    this.shared = shared;
    this.scale = 'probability';
    this.model = null; // by which they are scored
    this.limits = null; // what tokenize says of it
    this.past = []; // tokens before the text went on from others
    this.run = new Run((busy) => this.showBusy(busy), shared.fail);
    this.editor = new Editor({
      class: 'prose',
      rows: 8,
      'aria-label': 'Text to look at',
      placeholder: 'Paste or write a text.',
    });
    this.editor.text = EXAMPLE;
    this.act = button('Look', (event) => this.lookOrEdit(event), { class: 'first' });
    this.back = button('Undo', () => this.undo(), { hidden: true });
    this.view = new TokenView((at, other) => this.goOn(at, other));
    this.view.element.hidden = true;
    this.summary = element('p', { class: 'note' });
    this.bins = element('ol', { 'aria-label': 'Share of the tokens of each colour' });
    const scales = { probability: 'Probability', rank: 'Rank' };
    this.legend = element(
      'div',
      { class: 'legend', hidden: true },
      choice('look-scale', 'Colour by', scales, this.scale, (scale) => {
        this.scale = scale;
        this.describe();
      }),
      this.bins,
    );
    this.element = element(
      'div',
      { class: 'look' },
      this.editor.element,
      this.legend,
      this.summary,
      this.view.element,
      element(
        'div',
        { class: 'bar sticky' },
        this.act,
        this.back,
        element('span', { class: 'space' }),
        button('Write on', () => shared.hand('write', this.text), { class: 'plain' }),
      ),
    );
  }

  get looking() {
    return !this.view.element.hidden;
  }

  get text() {
    return this.looking ? textOf(this.view.tokens) + this.view.rest : this.editor.text;
  }

  take(text) {
    this.edit();
    this.editor.text = text;
    if (text) this.look();
  }

  showBusy(busy) {
    this.element.setAttribute('aria-busy', busy);
    this.act.textContent = busy ? 'Stop' : this.looking ? 'Change the text' : 'Look';
    this.act.classList.toggle('first', busy || !this.looking);
  }

  lookOrEdit(event) {
    if (event.detail > 1) return;
    if (this.run.busy) this.run.stop();
    else if (this.looking) this.edit();
    else this.look();
  }

  edit() {
    this.run.stop();
    this.view.close();
    this.editor.text = this.text;
    this.show(false);
    this.showBusy(false);
  }

  show(looking) {
    this.editor.element.hidden = looking;
    for (const part of [this.view.element, this.legend]) part.hidden = !looking;
    this.back.hidden = !(looking && this.past.length);
    if (!looking) this.summary.textContent = '';
  }

  // Scores

  look() {
    this.shared.clear();
    this.past = [];
    this.run.start((signal) => this.score(this.editor.text, signal));
  }

  /** Show a text's tokens, window by window. */
  async score(text, signal) {
    this.model = this.shared.settings.values.model;
    this.limits = await tokenize(this.model, text, signal);
    const { ids, tokens } = this.limits;
    if (!ids.length) throw new Failure('There is no text yet to look at.', 400);
    if (ids.length > MOST) {
      throw new Failure(
        `The text has ${count(ids.length)} tokens; up to ${count(MOST)} can be looked at. Shorten it.`,
        400,
      );
    }
    const texts = pieces(tokens);
    this.showTokens([], text);
    for await (const scored of scores(this.limits, this.model, signal)) {
      const known = this.view.tokens.length;
      const shown = scored.map((token, at) => ({ ...token, text: texts[known + at] }));
      this.view.add(shown, texts.slice(known + shown.length).join(''));
      this.describe();
    }
    this.shared.say(this.summary.textContent);
  }

  /** Show tokens, and the rest of the text without a colour. */
  showTokens(tokens, rest = '') {
    this.view.show(tokens, rest);
    this.describe();
    this.show(true);
  }

  /** Colours, what they mean, and the text in figures. */
  describe() {
    const scale = SCALES[this.scale];
    this.showLegend(scale.labels, this.view.colour(scale));
    this.summarise();
  }

  /** The colours, and how many tokens have each: machine-made text has few of the last ones. */
  showLegend(labels, counts) {
    const total = this.view.tokens.length || 1;
    this.bins.replaceChildren(
      ...labels.map((label, bin) =>
        element(
          'li',
          {},
          element('span', { class: 'swatch', 'data-bin': bin }, label),
          element('span', { class: 'share' }, `${((100 * counts[bin]) / total).toFixed(0)} %`),
        ),
      ),
    );
  }

  summarise() {
    const { length } = this.view.tokens;
    const loss = -this.view.tokens.reduce((sum, token) => sum + token.log_probability, 0) / length;
    const parts = [
      `${count(length)} ${length === 1 ? 'token' : 'tokens'}`,
      `perplexity ${count(Number(Math.exp(loss).toPrecision(3)))}`,
      `${(loss / Math.LN2).toFixed(2)} bits a token`,
    ];
    this.summary.textContent = length ? parts.join(' · ') : '';
  }

  // Going on from another token

  /** Draw on from another token in the place of one. */
  goOn(at, other) {
    const settings = { ...this.shared.settings.next(), model: this.model };
    const before = this.view.tokens;
    this.shared.clear();
    this.act.focus({ preventScroll: true }); // the tokens go
    this.run.start(
      async (signal) => {
        const kept = before.slice(0, at);
        const ids = [...kept.map((token) => token.id), other.id].slice(-room(this.limits, settings.length));
        let text = other.token === END_OF_TEXT ? '' : other.token;
        this.past.push(before);
        this.showTokens(kept, text);
        if (text) {
          for await (const piece of draw(ids, settings, signal)) {
            text += piece.text;
            this.view.rest = text;
          }
        }
        await this.score(textOf(kept) + text, signal);
        if (document.activeElement === this.act) this.view.focus(at);
      },
      () => {
        this.undo();
        this.goOn(at, other);
      },
    );
  }

  undo() {
    this.run.stop();
    this.showTokens(this.past.pop());
    this.showBusy(false);
    this.view.focus(0);
  }
}

function textOf(tokens) {
  return tokens.map((token) => token.text).join('');
}
