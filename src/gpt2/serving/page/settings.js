// How is drawn: sliders named as the commands' flags are, and the seed.

import { element } from './dom.js';

// `stops` are what the slider goes through where even steps would not do; the number beside it takes any value.
const NUMBERS = {
  temperature: {
    value: 1,
    min: 0,
    max: 10,
    step: 'any',
    stops: range(0, 2, 0.05),
    meaning: 'Below 1 likelier tokens become likelier still, above 1 less so; 0 always takes the likeliest.',
  },
  top_k: {
    value: 40,
    min: 0,
    max: 1e6,
    step: 1,
    stops: [0, 1, 2, 3, 5, 10, 20, 40, 60, 100, 200, 500, 1000],
    meaning: 'Draw from so many of the likeliest tokens only; 0 means all.',
  },
  top_p: {
    value: 1,
    min: 0.01,
    max: 1,
    step: 'any',
    stops: range(0.05, 1, 0.05),
    meaning: 'Draw from the likeliest tokens that hold this probability together; 1 means all.',
  },
  length: {
    value: 40,
    min: 1,
    max: 1e6,
    step: 1,
    stops: range(5, 200, 5),
    meaning: 'Tokens that are drawn at a time.',
  },
};
let made = 0; // fields, so that each has an id of its own

function range(first, last, step) {
  return Array.from({ length: Math.round((last - first) / step) + 1 }, (_, at) =>
    Number((first + at * step).toFixed(2)),
  );
}

/** Settings by name: of NUMBERS, `model` and `seed`. Their element has an input for each. */
export class Settings {
  constructor(names, models, values = {}) {
    this.fields = Object.fromEntries(names.map((name) => [name, this.field(name, models)]));
    this.element = element('div', { class: 'settings' }, ...Object.values(this.fields).map((field) => field.element));
    this.set(values);
  }

  field(name, models) {
    if (name === 'model') return new ModelField(models);
    return name === 'seed' ? new SeedField() : new NumberField(name, NUMBERS[name]);
  }

  get values() {
    return Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.value]));
  }

  /** Take values of fields there are; others are passed over. */
  set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (this.fields[name]) this.fields[name].value = value;
    }
  }

  /** Whether the seed stays. */
  get keepsSeed() {
    return this.fields.seed.keep.checked;
  }

  /** The values with which to draw next: a new seed, unless it is kept and `again` is not asked for. */
  next({ again = false } = {}) {
    this.fields.seed?.next(again);
    return this.values;
  }
}

class NumberField {
  constructor(name, { stops, meaning, value, min, max, step }) {
    const id = `setting-${(made += 1)}`;
    this.stops = stops;
    this.slider = element('input', {
      type: 'range',
      min: 0,
      max: stops.length - 1,
      'aria-label': name,
      'aria-describedby': `${id}-meaning`,
      on: {
        input: () => {
          this.value = stops[this.slider.value];
        },
      },
    });
    this.number = element('input', {
      type: 'number',
      id,
      min,
      max,
      step,
      required: true,
      inputmode: 'decimal',
      'aria-describedby': `${id}-meaning`,
      on: {
        input: () => this.number.checkValidity() && this.follow(),
        change: () => {
          this.value = this.number.value;
        },
      },
    });
    this.element = element(
      'div',
      { class: 'setting' },
      element('label', { for: id }, name),
      this.number,
      this.slider,
      element('p', { id: `${id}-meaning`, class: 'meaning' }, meaning),
    );
    this.value = value;
  }

  get value() {
    return this.kept;
  }

  /** A value that is none, or not allowed, leaves the one that was. */
  set value(value) {
    const before = this.kept;
    this.number.value = value;
    if (!this.number.checkValidity()) this.number.value = before;
    this.follow();
  }

  follow() {
    this.kept = Number(this.number.value);
    const distances = this.stops.map((stop) => Math.abs(stop - this.kept));
    this.slider.value = distances.indexOf(Math.min(...distances));
    this.slider.setAttribute('aria-valuetext', this.number.value);
  }
}

class SeedField {
  constructor() {
    const id = `setting-${(made += 1)}`;
    this.number = element('input', {
      type: 'number',
      id,
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      step: 1,
      required: true,
      inputmode: 'numeric',
      'aria-describedby': `${id}-meaning`,
      on: {
        input: () => {
          this.keep.checked = true;
        },
        change: () => this.number.checkValidity() || this.next(true),
      },
    });
    this.keep = element('input', { type: 'checkbox', 'aria-describedby': `${id}-meaning` });
    this.element = element(
      'div',
      { class: 'setting seed' },
      element('label', { for: id }, 'seed'),
      this.number,
      element('label', { class: 'keep' }, this.keep, 'Keep'),
      element(
        'p',
        { id: `${id}-meaning`, class: 'meaning' },
        'The same seed, text and settings draw the same again. Another one each time, unless it is kept.',
      ),
    );
    this.next(true);
  }

  get value() {
    return Number(this.number.value);
  }

  set value(seed) {
    this.number.value = seed;
    this.keep.checked = true;
    if (!this.number.checkValidity()) this.next(true);
  }

  next(again) {
    if (again || !this.keep.checked) this.number.value = crypto.getRandomValues(new Uint32Array(1))[0];
  }
}

class ModelField {
  constructor(models) {
    const id = `setting-${(made += 1)}`;
    this.select = element('select', { id }, ...models.map((name) => element('option', {}, name)));
    this.element = element(
      'div',
      { class: 'setting model', hidden: models.length < 2 },
      element('label', { for: id }, 'model'),
      this.select,
    );
  }

  get value() {
    return this.select.value;
  }

  set value(name) {
    if ([...this.select.options].some((option) => option.value === name)) this.select.value = name;
  }
}
