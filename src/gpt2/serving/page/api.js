// The server: what is asked of it, and how it fails.

import { Kept } from './storage.js';

const KEY = new Kept('sessionStorage', 'gpt2 key');

/** What went wrong, in a sentence. status: of HTTP; 0 where no answer came. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => null;
let asked = null; // while a key is being asked for, all who need one wait for it

/** Have keys asked for by a function that gives one, or null if nobody has one. refused: whether one was given. */
export function useKeysFrom(source) {
  askForKey = source;
}

/** The answer to a request, as an object. */
export async function ask(path, content, signal) {
  return (await request(path, content, signal)).json();
}

/** The choices of a completion as they come: {index, text, finish_reason}, a piece each. */
export async function* complete(content, signal) {
  const answer = await request('v1/completions', { ...content, stream: true }, signal);
  for await (const data of events(answer.body)) {
    if (data === '[DONE]') return;
    const { error, choices } = JSON.parse(data);
    if (error) throw new Failure(sentence(error.message), 500);
    yield* choices;
  }
  throw new Failure('The answer broke off: the server went away.');
}

/** Whether the server is there and its first model loaded: 'ready', 'loading' or 'away'. */
export async function health() {
  try {
    // Not /health, which says by an error that a model is loading: browsers write errors on the console.
    const answer = await fetched('v1/models');
    return answer.ok && !(await answer.json()).data[0].ready ? 'loading' : 'ready';
  } catch {
    return 'away';
  }
}

async function request(path, content, signal) {
  for (;;) {
    const answer = await fetched(path, content, signal);
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await failureOf(answer);
    asked ??= newKey().finally(() => {
      asked = null;
    });
    await asked;
  }
}

async function newKey() {
  const key = await askForKey(KEY.read() !== null);
  if (key === null) throw new Failure('This server asks for a key, and none was given.', 401);
  KEY.write(key);
}

async function fetched(path, content, signal) {
  const headers = { 'Content-Type': 'application/json' };
  const key = KEY.read();
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  const post = content === undefined ? {} : { method: 'POST', body: JSON.stringify(content) };
  try {
    return await fetch(path, { headers, signal, ...post });
  } catch (error) {
    throw brokenOff(error, 'The server does not answer.');
  }
}

async function failureOf(answer) {
  try {
    return new Failure(sentence((await answer.json()).error.message), answer.status);
  } catch {
    return new Failure(`The server answered with status ${answer.status}.`, answer.status);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = '';
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw brokenOff(error, 'The answer broke off: the server went away.');
    }
    if (part.done) return;
    const lines = (unread + part.value).split('\n\n');
    unread = lines.pop();
    yield* lines.map((line) => line.replace(/^data: /, ''));
  }
}

/** Being stopped is no failure of the server's. */
function brokenOff(error, message) {
  return error.name === 'AbortError' ? error : new Failure(message);
}

function sentence(message) {
  return message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? '' : '.');
}
