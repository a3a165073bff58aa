// From a text and settings to what the model draws, in whatever of the text fits its window.

import { Failure, ask, complete } from './api.js';

const ENOUGH = 16 * 1024; // characters of a text that mostly fill a window

/** {ids, tokens, n_ctx, max_prompt} of a text. */
export function tokenize(model, text, signal) {
  return ask('v1/tokenize', { model, text }, signal);
}

/** How many tokens of a prompt fit beside `length` that are drawn. At least one: the server says what is wrong then. */
export function room({ n_ctx, max_prompt }, length) {
  return Math.max(1, Math.min(max_prompt, n_ctx + 1 - length));
}

/** {prompt, cut}: the last token ids of a text that fit, and whether any before them do not. Null draws from nothing. */
export async function promptOf(text, { model, length }, signal) {
  if (!text) return { prompt: null, cut: false };
  for (let size = ENOUGH; ; size *= 4) {
    const end = endOf(text, size);
    const found = await tokenize(model, end, signal);
    const fit = room(found, length);
    if (end === text || found.ids.length >= fit) {
      const prompt = found.ids.slice(-fit);
      return { prompt, cut: end !== text || prompt.length < found.ids.length };
    }
  }
}

/** The last characters of a text, about `size`, from a place that no token reaches across: the end of a word. */
function endOf(text, size) {
  const start = text.length - size;
  const found = start > 0 ? text.slice(start).search(/(?<=[\p{L}\p{N}])[ \n\p{P}]/u) : -1;
  return found < 0 ? text : text.slice(start + found);
}

/** Draw samples: {index, text, finish_reason}, a piece each. */
export function draw(prompt, settings, signal, more = {}) {
  const { model, temperature, top_k, top_p, length, seed } = settings;
  return complete({ model, prompt, temperature, top_k, top_p, max_tokens: length, seed, ...more }, signal);
}

/** Work that can be stopped, one piece at a time. */
export class Run {
  /** changed(busy) is called when work begins and ends; fail(failure, again) when it fails. */
  constructor(changed, fail) {
    this.changed = changed;
    this.fail = fail;
    this.controller = null;
  }

  get busy() {
    return this.controller !== null;
  }

  stop() {
    this.controller?.abort();
    this.controller = null;
    this.changed(false);
  }

  /** Do work(signal); again is what trying again does, if not the same. */
  async start(work, again = () => this.start(work)) {
    this.stop();
    const controller = new AbortController();
    this.controller = controller;
    this.changed(true);
    try {
      await work(controller.signal);
    } catch (error) {
      if (error instanceof Failure) this.fail(error, again);
      else if (error.name !== 'AbortError') throw error;
    } finally {
      if (this.controller === controller) this.stop();
    }
  }
}
