// What was before, and what was undone.

export class History {
  past = [];
  future = [];

  /** Keep a state that is about to change. */
  keep(state) {
    this.past.push(state);
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
