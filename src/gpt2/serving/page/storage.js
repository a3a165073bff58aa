// What the browser keeps of the page. It may refuse to: then all goes on, and lasts as long as the page is open.

let tell = () => {};
let told = false;

/** Have it told, once, by a function of a sentence, where the browser keeps nothing, or no more. */
export function tellRefusal(teller) {
  tell = teller;
  new Kept('localStorage', 'gpt2').read(); // which is refused now, or later only for want of room
}

/** A text that is kept under a key: in localStorage, or until the tab is closed in sessionStorage. */
export class Kept {
  constructor(storage, key) {
    this.storage = storage;
    this.key = key;
    this.unkept = null; // where the browser does not keep it
  }

  /** The text, or null. */
  read() {
    try {
      return globalThis[this.storage].getItem(this.key) ?? this.unkept;
    } catch {
      refused();
      return this.unkept;
    }
  }

  write(text) {
    try {
      globalThis[this.storage].setItem(this.key, text);
      this.unkept = null;
    } catch {
      this.unkept = text;
      refused();
    }
  }
}

function refused() {
  if (told) return;
  told = true;
  tell('This browser keeps nothing more of this page. Copy or export what is to last.');
}
