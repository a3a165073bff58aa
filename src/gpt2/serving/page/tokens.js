// Tokens as people see them: their texts, how likely they are, and in which of five colours they are shown.

const PART = /^bytes:((?:\\x[0-9a-f]{2})+)$/; // how the server writes a token that is no whole characters

export const SCALES = {
  probability: {
    of: (token) => Math.exp(token.log_probability),
    bin: (value) => [0.5, 0.1, 0.01, 0.001].filter((limit) => value < limit).length,
    labels: ['50 % and more', '10 to 50 %', '1 to 10 %', '0.1 to 1 %', 'under 0.1 %'],
  },
  rank: {
    of: (token) => token.rank,
    bin: (value) => [1, 10, 100, 1000].filter((limit) => value > limit).length,
    labels: ['1', '2 to 10', '11 to 100', '101 to 1,000', 'over 1,000'],
  },
};

export function isPart(token) {
  return PART.test(token);
}

/** The texts of tokens, as the server writes them. A character of several tokens is whole in the last of them. */
export function pieces(tokens) {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const encoder = new TextEncoder();
  return tokens.map((token) => decoder.decode(bytesOf(token, encoder), { stream: true }));
}

function bytesOf(token, encoder) {
  const part = PART.exec(token);
  return part
    ? Uint8Array.from(part[1].match(/[0-9a-f]{2}/g), (digits) => parseInt(digits, 16))
    : encoder.encode(token);
}

/** A token with its white space to be seen. */
export function visible(token) {
  const part = PART.exec(token);
  if (part) return part[1].replaceAll('\\x', ' ').trim().toUpperCase();
  return token
    .replaceAll('\n', '↵')
    .replaceAll('\t', '⇥')
    .replace(/^ +| +$/g, (blanks) => '·'.repeat(blanks.length));
}

/** 0.1234 as 12.3 %. */
export function percent(probability) {
  const value = probability * 100;
  if (value < 0.001) return '< 0.001 %';
  return `${value >= 99.95 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toPrecision(2)} %`;
}

export function percentOf(token) {
  return percent(Math.exp(token.log_probability));
}

/** 1234 as 1,234. */
export function count(number) {
  return number.toLocaleString('en');
}
