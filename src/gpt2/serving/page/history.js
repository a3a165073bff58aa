// What was before, and what was undone.

const MOST = 200; // steps: each may hold a whole text

export class History {
  past = [];
  future = [];

  /** Keep a state that is about to change. */
  keep(state) {
    this.past = [...this.past, state].slice(-MOST);
    this.future = [];
  }

  /** The state before; the present one can be had again. */
  undo(now) {
    this.future.push(now);
    return this.past.pop();
  }

  redo(now) {
    this.past.push(now);
    return this.future.pop();
  }
}
