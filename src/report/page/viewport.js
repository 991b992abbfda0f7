// The part of an axis that is shown, and round numbers to mark it with.

class Viewport {
  constructor(begin, end) {
    this.listeners = [];
    this.reset(begin, end);
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  /** A new whole, all of it shown. */
  reset(begin, end) {
    Object.assign(this, { least: begin, most: Math.max(end, begin + Number.MIN_VALUE) });
    this.show(this.least, this.most);
  }

  /** Shows `from` to `to`, kept within the whole and no narrower than a hundred-thousandth of it. */
  show(from, to) {
    const whole = this.most - this.least;
    const width = Math.min(Math.max(to - from, whole * 1e-5), whole);
    this.from = Math.min(Math.max((from + to - width) / 2, this.least), this.most - width);
    this.to = this.from + width;
    this.listeners.forEach((listener) => listener());
  }

  /** Shows everything `factor` times as large; `at` stays where it is. */
  zoom(factor, at = (this.from + this.to) / 2) {
    this.show(at - (at - this.from) / factor, at + (this.to - at) / factor);
  }

  pan(by) {
    const width = this.to - this.from;
    const from = Math.min(Math.max(this.from + by, this.least), this.most - width);
    this.show(from, from + width);
  }

  showAll() {
    this.show(this.least, this.most);
  }

  /** Brings `from` to `to` into sight, changing no more than needed; what is too small to see is made larger. */
  reveal(from, to) {
    const width = this.to - this.from;
    if (to - from > width) this.show(from, to);
    else if (from < this.from || to > this.to) this.show((from + to - width) / 2, (from + to + width) / 2);
  }
}

/** At most `count` multiples of 1, 2 or 5 times a power of `base` (10 for seconds, 2 for bytes) from `from` to `to`. */
function ticks(from, to, count, base = 10) {
  const rough = Math.max((to - from) / count, Number.MIN_VALUE);
  const power = base ** Math.floor(Math.log(rough) / Math.log(base));
  const step = (base === 10 ? [1, 2, 5, 10] : [1, 2]).map((times) => times * power).find((step) => step >= rough);
  const found = [];
  for (let index = Math.ceil(from / step); index * step <= to; index += 1) found.push(index * step);
  return found;
}
