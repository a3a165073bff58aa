// Look: how likely the model finds each token of a text, and what it would have said instead.

import { ask, Failure } from './api.js';
import { draw, room, Run, tokenize } from './drawing.js';
import { Editor, button, choice, element, moveByArrows } from './dom.js';
import { isPart, percent, pieces, SCALES, visible } from './tokens.js';

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
  const score = async (text, end_of_text) => (
    await ask('v1/score', { model, text, end_of_text, likeliest: LIKELIEST }, signal)).tokens;
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
    this.tokens = []; // scored, each with its text
    this.rest = ''; // of the text, not scored yet
    this.model = null; // by which they are scored
    this.limits = null; // what tokenize says of it
    this.past = []; // tokens before the text went on from others
    this.at = null; // of the token whose likeliest are shown
    this.run = new Run((busy) => this.showBusy(busy), shared.fail);
    this.editor = new Editor({ class: 'prose', rows: 8, 'aria-label': 'Text to look at', placeholder: 'Paste or write a text.' });
    this.editor.text = EXAMPLE;
    this.act = button('Look', (event) => this.lookOrEdit(event), { class: 'first' });
    this.back = button('Undo', () => this.undo(), { hidden: true });
    this.view = element('div', {
      class: 'prose tokens', role: 'group', 'aria-label': 'Tokens; the arrow keys move, Enter shows the likeliest', hidden: true,
      on: {
        pointerover: (event) => this.pointed(event), click: (event) => this.clicked(event),
        focusin: (event) => this.open(this.indexOf(event.target)), keydown: (event) => this.pressed(event),
        pointerleave: (event) => this.left(event),
      },
    });
    this.likeliest = element('div', {
      class: 'likeliest', hidden: true, role: 'group',
      on: { keydown: (event) => this.pressedInside(event), pointerleave: (event) => this.left(event) },
    });
    this.summary = element('p', { class: 'note' });
    this.bins = element('ol', { 'aria-label': 'Share of the tokens of each colour' });
    const scales = { probability: 'Probability', rank: 'Rank' };
    this.legend = element('div', { class: 'legend', hidden: true },
      choice('look-scale', 'Colour by', scales, this.scale, (scale) => {
        this.scale = scale;
        this.colour();
      }), this.bins);
    document.addEventListener('pointerdown', (event) => this.view.parentElement.contains(event.target) || this.close());
    this.element = element('div', { class: 'look' }, this.editor.element, this.legend, this.summary,
      element('div', { class: 'framed' }, this.view, this.likeliest),
      element('div', { class: 'bar sticky' }, this.act, this.back, element('span', { class: 'space' }),
        button('Write on', () => shared.hand('write', this.text), { class: 'plain' })));
  }

  get looking() {
    return !this.view.hidden;
  }

  get text() {
    return this.looking ? textOf(this.tokens) + this.rest : this.editor.text;
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
    this.close();
    this.editor.text = this.text;
    this.show(false);
    this.showBusy(false);
  }

  show(looking) {
    this.editor.element.hidden = looking;
    for (const part of [this.view, this.legend]) part.hidden = !looking;
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
      throw new Failure(`The text has ${count(ids.length)} tokens; up to ${count(MOST)} can be looked at. Shorten it.`, 400);
    }
    const texts = pieces(tokens);
    this.showTokens([], text);
    for await (const scored of scores(this.limits, this.model, signal)) {
      const known = this.tokens.length;
      this.addTokens(scored.map((token, at) => ({ ...token, text: texts[known + at] })), texts.slice(known + scored.length).join(''));
    }
    this.shared.say(this.summary.textContent);
  }

  /** Show tokens, and the rest of the text without a colour. */
  showTokens(tokens, rest = '') {
    this.tokens = [];
    this.close();
    this.view.replaceChildren(element('span', { class: 'rest' }));
    this.addTokens(tokens, rest);
    this.show(true);
  }

  addTokens(tokens, rest) {
    const known = this.tokens.length;
    this.tokens = [...this.tokens, ...tokens];
    this.showRest(rest);
    this.view.lastElementChild.before(...tokens.flatMap((token, at) => this.shown(token, known + at)));
    this.colour();
    this.summarise();
  }

  showRest(rest) {
    this.rest = rest;
    this.view.lastElementChild.textContent = rest;
  }

  /** A token; a blank before a word is no part of what is coloured. */
  shown(token, at) {
    const [, blank, word] = /^( ?)(.*)$/s.exec(token.text.replaceAll('\n', '↵\n'));
    return [word ? blank : '', element('span', {
      role: 'button', class: token.text ? 'token' : 'token part', 'data-at': at, tabindex: at ? -1 : 0, 'aria-haspopup': 'true',
      'aria-label': `${token.text.trim() || visible(token.token)}, ${percent(Math.exp(token.log_probability))}, rank ${token.rank}`,
    }, word || blank || '·')];
  }

  colour() {
    const scale = SCALES[this.scale];
    const counts = scale.labels.map(() => 0);
    this.tokens.forEach((token, at) => {
      const bin = scale.bin(scale.of(token));
      this.view.children[at].dataset.bin = bin;
      counts[bin] += 1;
    });
    this.showLegend(scale.labels, counts);
  }

  /** The colours, and how many tokens have each: machine-made text has few of the last ones. */
  showLegend(labels, counts) {
    const total = this.tokens.length || 1;
    this.bins.replaceChildren(...labels.map((label, bin) => element('li', {},
      element('span', { class: 'swatch', 'data-bin': bin }, label),
      element('span', { class: 'share' }, `${((100 * counts[bin]) / total).toFixed(0)} %`))));
  }

  summarise() {
    const { length } = this.tokens;
    const loss = -this.tokens.reduce((sum, token) => sum + token.log_probability, 0) / length;
    const perplexity = count(Number(Math.exp(loss).toPrecision(3)));
    this.summary.textContent = length
      ? `${count(length)} ${length === 1 ? 'token' : 'tokens'} · perplexity ${perplexity} · ${(loss / Math.LN2).toFixed(2)} bits a token` : '';
  }

  // The likeliest in place of a token

  indexOf(target) {
    const at = target.closest?.('.token')?.dataset.at;
    return at === undefined ? null : Number(at);
  }

  pointed(event) {
    const at = this.indexOf(event.target);
    if (event.pointerType === 'mouse' && !this.pinned && at !== null) this.open(at);
  }

  /** A click keeps the likeliest open, until Escape or another click. */
  clicked(event) {
    const at = this.indexOf(event.target);
    if (at === null) return this.close();
    this.view.children[at].focus({ preventScroll: true });
    this.open(at);
    this.pinned = true;
    return undefined;
  }

  left(event) {
    const inside = [this.view, this.likeliest].some((part) => part.contains(event.relatedTarget));
    if (event.pointerType === 'mouse' && !inside && !this.pinned && !this.likeliest.contains(document.activeElement)) this.close();
  }

  pressed(event) {
    const at = this.indexOf(event.target);
    const next = moveByArrows(event, [...this.view.querySelectorAll('.token')], at);
    next?.focus();
    if (event.key === 'Escape') this.close();
    if (['Enter', ' ', 'ArrowDown'].includes(event.key)) {
      event.preventDefault();
      this.open(at);
      this.likeliest.querySelector('button:enabled')?.focus();
    }
  }

  pressedInside(event) {
    const buttons = [...this.likeliest.querySelectorAll('button:enabled')];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Escape') {
      const token = this.view.children[this.at];
      token.focus();
      this.close();
    } else if (step) {
      event.preventDefault();
      buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    }
  }

  open(at) {
    if (at === null || at === this.at) return;
    this.close();
    this.at = at;
    const token = this.view.children[at];
    for (const other of this.view.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    token.tabIndex = 0;
    token.setAttribute('aria-expanded', 'true');
    this.likeliest.replaceChildren(...this.listed(this.tokens[at], at));
    this.likeliest.setAttribute('aria-label', `Likeliest in place of ${visible(this.tokens[at].token)}`);
    this.likeliest.hidden = false;
    this.place(token);
  }

  listed(token, at) {
    const own = element('p', { class: 'own' }, element('b', {}, visible(token.token)),
      element('span', {}, percent(Math.exp(token.log_probability))), element('span', {}, `rank ${count(token.rank)}`));
    const rows = token.likeliest.map((other) => this.row(other, at, other.id === token.id));
    return [own, element('ol', {}, ...rows), element('p', { class: 'meaning' }, 'Choose one, and the text goes on from there.')];
  }

  row(other, at, same) {
    const probability = Math.exp(other.log_probability);
    const bar = element('span', { class: 'amount' });
    bar.style.width = `${probability * 100}%`;
    return element('li', {}, element('button', {
      type: 'button', disabled: isPart(other.token), class: same ? 'same' : null,
      title: isPart(other.token) ? 'A part of a character, from which no text goes on' : null,
      on: { click: () => this.goOn(at, other) },
    }, bar, element('span', { class: 'what' }, visible(other.token)), element('span', { class: 'share' }, percent(probability))));
  }

  /** Beside the token: below it, or above where there is no room; on small screens the style puts it at the bottom. */
  place(token) {
    const frame = this.view.parentElement.getBoundingClientRect();
    const box = token.getClientRects()[0];
    const { offsetWidth: width, offsetHeight: height } = this.likeliest;
    const below = box.bottom + height + 8 < innerHeight || box.top - height < 0;
    const left = Math.min(box.left - frame.left, frame.width - width);
    this.likeliest.style.setProperty('--left', `${Math.max(0, left)}px`);
    this.likeliest.style.setProperty('--top', `${below ? box.bottom - frame.top : box.top - frame.top - height}px`);
  }

  close() {
    this.pinned = false;
    if (this.at === null) return;
    this.view.children[this.at]?.removeAttribute('aria-expanded');
    this.likeliest.hidden = true;
    this.at = null;
  }

  // Going on from another token

  /** Draw on from another token in the place of one. */
  goOn(at, other) {
    const settings = { ...this.shared.settings.next(), model: this.model };
    const before = this.tokens;
    this.shared.clear();
    this.focus(at);
    this.run.start(async (signal) => {
      const kept = before.slice(0, at);
      const ids = [...kept.map((token) => token.id), other.id].slice(-room(this.limits, settings.length));
      let text = other.token === END_OF_TEXT ? '' : other.token;
      this.past.push(before);
      this.showTokens(kept, text);
      if (text) {
        for await (const piece of draw(ids, settings, signal)) {
          text += piece.text;
          this.showRest(text);
        }
      }
      await this.score(textOf(kept) + text, signal);
      this.focus(at);
    }, () => {
      this.undo();
      this.goOn(at, other);
    });
  }

  /** Focus a token, without showing its likeliest. */
  focus(at) {
    this.view.children[at].focus({ preventScroll: true });
    this.close();
  }

  undo() {
    this.run.stop();
    this.showTokens(this.past.pop());
    this.showBusy(false);
    this.focus(0);
  }
}

function textOf(tokens) {
  return tokens.map((token) => token.text).join('');
}

function count(number) {
  return number.toLocaleString('en');
}
