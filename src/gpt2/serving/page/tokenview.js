// Tokens in colours, and beside the one that is pointed at or focused the likeliest in its place.

import { element, moveByArrows } from './dom.js';
import { count, isPart, percent, percentOf, visible } from './tokens.js';

const MARGIN = 8; // pixels around the likeliest
const LEAST = 200; // pixels of their height

/** Tokens are as /v1/score has them, each with its text. choose(at, other) is called with one of the likeliest. */
export class TokenView {
  constructor(choose) {
    this.choose = choose;
    this.tokens = [];
    this.at = null; // of the token whose likeliest are shown
    this.pinned = false; // whether they stay while the pointer goes elsewhere
    this.list = element('div', {
      class: 'prose tokens',
      role: 'group',
      'aria-label': 'Tokens; the arrow keys move, Enter shows the likeliest',
      on: {
        // Not pointerover: a text that comes to lie under a pointer is not pointed at.
        pointermove: (event) => this.pointed(event),
        click: (event) => this.clicked(event),
        focusin: (event) => this.open(this.indexOf(event.target)),
        keydown: (event) => this.pressed(event),
        pointerleave: (event) => this.left(event),
      },
    });
    this.box = element('div', {
      class: 'likeliest',
      hidden: true,
      role: 'group',
      on: { keydown: (event) => this.pressedInside(event), pointerleave: (event) => this.left(event) },
    });
    this.element = element('div', { class: 'framed' }, this.list, this.box);
    document.addEventListener('pointerdown', (event) => this.element.contains(event.target) || this.close());
  }

  /** Show tokens, and the rest of the text without a colour. */
  show(tokens, rest = '') {
    this.tokens = [];
    this.close();
    this.list.replaceChildren(element('span', { class: 'rest' }));
    this.add(tokens, rest);
  }

  add(tokens, rest) {
    const known = this.tokens.length;
    this.tokens = [...this.tokens, ...tokens];
    this.rest = rest;
    this.list.lastElementChild.before(...tokens.flatMap((token, at) => this.shown(token, known + at)));
  }

  get rest() {
    return this.list.lastElementChild.textContent;
  }

  set rest(text) {
    this.list.lastElementChild.textContent = text;
  }

  /** A token; a blank before a word is no part of what is coloured. */
  shown(token, at) {
    const [, blank, word] = /^( ?)(.*)$/s.exec(token.text.replaceAll('\n', '↵\n'));
    return [
      word ? blank : '',
      element(
        'span',
        {
          role: 'button',
          class: 'token',
          'data-at': at,
          tabindex: at ? -1 : 0,
          'aria-haspopup': 'true',
          'aria-label': `${token.text.trim() || visible(token.token)}, ${percentOf(token)}, rank ${token.rank}`,
        },
        word || blank || '·',
      ),
    ];
  }

  /** Colour all tokens by a scale of SCALES. Returns how many have each colour. */
  colour(scale) {
    const counts = scale.labels.map(() => 0);
    this.tokens.forEach((token, at) => {
      const bin = scale.bin(scale.of(token));
      this.list.children[at].dataset.bin = bin;
      counts[bin] += 1;
    });
    return counts;
  }

  // The likeliest in the place of a token

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
    this.list.children[at].focus({ preventScroll: true });
    this.open(at);
    this.pinned = true;
    return undefined;
  }

  left(event) {
    const inside = [this.list, this.box].some((part) => part.contains(event.relatedTarget));
    if (event.pointerType === 'mouse' && !inside && !this.pinned && !this.box.contains(document.activeElement))
      this.close();
  }

  pressed(event) {
    const at = this.indexOf(event.target);
    const next = moveByArrows(event, [...this.list.querySelectorAll('.token')], at);
    next?.focus();
    if (event.key === 'Escape') this.close();
    if (['Enter', ' ', 'ArrowDown'].includes(event.key)) {
      event.preventDefault();
      this.open(at);
      this.box.querySelector('button:enabled')?.focus();
    }
  }

  pressedInside(event) {
    const buttons = [...this.box.querySelectorAll('button:enabled')];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Escape') {
      const token = this.list.children[this.at];
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
    const token = this.list.children[at];
    for (const other of this.list.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    token.tabIndex = 0;
    token.setAttribute('aria-expanded', 'true');
    this.box.replaceChildren(...this.listed(this.tokens[at], at));
    this.box.setAttribute('aria-label', `Likeliest in place of ${visible(this.tokens[at].token)}`);
    this.box.hidden = false;
    this.place(token);
  }

  listed(token, at) {
    const own = element(
      'p',
      { class: 'own' },
      element('b', {}, visible(token.token)),
      element('span', {}, percentOf(token)),
      element('span', {}, `rank ${count(token.rank)}`),
    );
    const rows = token.likeliest.map((other) => this.row(other, at, other.id === token.id));
    return [
      own,
      element('ol', {}, ...rows),
      element('p', { class: 'meaning' }, 'Choose one, and the text goes on from there.'),
    ];
  }

  row(other, at, same) {
    const probability = Math.exp(other.log_probability);
    const bar = element('span', { class: 'amount' });
    bar.style.width = `${probability * 100}%`;
    return element(
      'li',
      {},
      element(
        'button',
        {
          type: 'button',
          disabled: isPart(other.token),
          class: same ? 'same' : null,
          title: isPart(other.token) ? 'A part of a character, from which no text goes on' : null,
          on: { click: () => this.choose(at, other) },
        },
        bar,
        element('span', { class: 'what' }, visible(other.token)),
        element('span', { class: 'share' }, percent(probability)),
      ),
    );
  }

  /** Below the token, or above where there is more room; on small screens the style puts it at the bottom. */
  place(token) {
    const frame = this.element.getBoundingClientRect();
    const box = token.getClientRects()[0];
    const { offsetWidth: width, scrollHeight: height } = this.box;
    const [above, under] = [box.top - MARGIN, innerHeight - box.bottom - MARGIN];
    const below = height < under || under > above;
    const tall = Math.min(height, Math.max(LEAST, below ? under : above));
    const left = Math.max(0, Math.min(box.left - frame.left, frame.width - width));
    const top = below ? box.bottom - frame.top : box.top - frame.top - tall;
    for (const [name, value] of Object.entries({ left, top, tall }))
      this.box.style.setProperty(`--${name}`, `${value}px`);
  }

  close() {
    this.pinned = false;
    if (this.at === null) return;
    this.list.children[this.at]?.removeAttribute('aria-expanded');
    this.box.hidden = true;
    this.at = null;
  }

  /** Focus a token, without showing its likeliest. */
  focus(at) {
    this.list.children[at]?.focus({ preventScroll: true });
    this.close();
  }
}
