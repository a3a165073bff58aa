// What is seen inside a model, as tables, lines and colours.

import { element } from './dom.js';
import { percent, visible } from './tokens.js';

const ROW = 24; // pixels of a token's line
const [LEFT, RIGHT] = [150, 330]; // where the lines begin and end
const FAINT = 0.02; // what is attended to less is not drawn
const SVG = 'http://www.w3.org/2000/svg';

/** How dark a number from 0 to 1 is shown, of five. */
function bin(value, limits = [0.05, 0.2, 0.4, 0.7]) {
  return limits.filter((limit) => value >= limit).length;
}

/** A table of what comes next, and of what would have come before something was ablated. */
export function nextTokens(now, before, changed) {
  const was = new Map(before.map((guess) => [guess.id, guess.probability]));
  const shown = (probability) => (probability === undefined ? 'less' : percent(probability));
  const rows = now.map(({ id, token, probability }) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, visible(token)),
      element('td', {}, percent(probability)),
      changed ? element('td', {}, shown(was.get(id))) : null,
    ),
  );
  const head = ['token', changed ? 'ablated' : 'probability', ...(changed ? ['before'] : [])];
  return element(
    'table',
    {},
    element('thead', {}, element('tr', {}, ...head.map((word) => element('th', { scope: 'col' }, word)))),
    element('tbody', {}, ...rows),
  );
}

/** A grid of layers × tokens. choose(layer) is called with a layer that is chosen. */
export function lens({ tokens, lens: layers }, chosen, choose) {
  const head = element(
    'tr',
    {},
    element('td', {}),
    ...tokens.map((token) => element('th', { scope: 'col' }, visible(token))),
  );
  const rows = layers.map((guesses, layer) =>
    element(
      'tr',
      {},
      element(
        'th',
        { scope: 'row' },
        element(
          'button',
          { type: 'button', 'aria-pressed': layer === chosen, on: { click: () => choose(layer) } },
          `h${layer}`,
        ),
      ),
      ...guesses.map(({ token, probability }) =>
        element('td', { 'data-bin': bin(probability), title: percent(probability) }, visible(token)),
      ),
    ),
  );
  return element(
    'div',
    { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': 'Layers and tokens' },
    element('table', { class: 'grid' }, element('thead', {}, head), element('tbody', {}, ...rows.reverse())),
  );
}

/** Tokens twice, and lines between them; beside that, in words, what each attends to most. */
export function attention(tokens, pattern) {
  const height = ROW * tokens.length;
  const drawing = svg('svg', { viewBox: `0 0 480 ${height}`, width: 480, height, 'aria-hidden': 'true' });
  const middle = (at) => ROW * (at + 0.5);
  pattern.forEach((row, query) => {
    row.forEach((weight, key) => {
      if (weight < FAINT) return;
      const ends = { x1: LEFT, y1: middle(query), x2: RIGHT, y2: middle(key) };
      drawing.append(svg('line', { ...ends, 'stroke-width': 0.5 + 3 * weight, 'stroke-opacity': 0.15 + 0.85 * weight }));
    });
  });
  tokens.forEach((token, at) => {
    const y = middle(at) + 5;
    drawing.append(svg('text', { x: LEFT - 8, y, 'text-anchor': 'end' }, visible(token)));
    drawing.append(svg('text', { x: RIGHT + 8, y }, visible(token)));
  });
  const words = pattern.map((row, query) => {
    const most = row.reduce((best, weight, key) => (weight > row[best] ? key : best), 0);
    return element('li', {}, `${visible(tokens[query])} attends most to ${visible(tokens[most])}, ${percent(row[most])}`);
  });
  return element(
    'div',
    { class: 'scrolls', tabindex: 0, role: 'region', 'aria-label': 'Attention' },
    drawing,
    element('ol', { class: 'unseen' }, ...words),
  );
}

/** Tokens, the darker the more active a neuron is at them. */
export function coloured(tokens, activations) {
  const most = Math.max(...activations, 1e-6);
  return element(
    'p',
    { class: 'prose coloured' },
    ...tokens.map((token, at) =>
      element(
        'span',
        { 'data-bin': bin(activations[at] / most), title: activations[at].toFixed(3) },
        token.replaceAll('\n', '↵\n'),
      ),
    ),
  );
}

function svg(tag, attributes, text = '') {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}
