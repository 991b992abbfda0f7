// What the canvases share: sharp pixels, colours of the theme, wheel, drag, keys, and a tip under the pointer.

/** Family names that have a colour of their own in report.css. */
const FAMILIES = [
  "product_bf16", "product", "gemv", "attention", "attention_grad", "attention_cached", "norm", "rope", "pointwise",
  "cross_entropy", "rows", "embedding_grad", "optimizer", "sum", "column_sum", "dropout",
];

/** The colour of a family, as CSS. */
function familyColour(family) {
  const known = FAMILIES.includes(family) ? family : `other-${hash(family) % 4}`;
  return themeColour(`--family-${known.replaceAll("_", "-")}`);
}

function hash(text) {
  return [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);
}

const themeColours = new Map();

/** A custom property of the theme that is in use. */
function themeColour(name) {
  if (!themeColours.has(name)) themeColours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return themeColours.get(name);
}

/** A canvas over a shared horizontal viewport. Subclasses draw, say what is at a point, and what that is. */
class Plot {
  /** Pixels on the left that are the vertical axis. */
  static MARGIN = 64;

  constructor(canvas, selection, across) {
    Object.assign(this, { canvas, selection, across, width: 0, height: 0, hovered: null });
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => this.resize()).observe(canvas);
    across.onChange(() => this.redraw());
    this.listen();
  }

  resize() {
    const scale = devicePixelRatio || 1;
    const { width, height } = this.canvas.getBoundingClientRect();
    if (width === 0) return;
    Object.assign(this, { width, height });
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.drawNow();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.waiting = false;
    if (this.width === 0) return;
    this.context.clearRect(0, 0, this.width, this.height);
    this.context.font = "11px ui-sans-serif, system-ui, sans-serif";
    this.context.textBaseline = "middle";
    this.draw(this.context);
  }

  x(value) {
    const { from, to } = this.across;
    return Plot.MARGIN + ((value - from) / (to - from)) * (this.width - Plot.MARGIN);
  }

  valueAt(x) {
    const { from, to } = this.across;
    return from + ((x - Plot.MARGIN) / (this.width - Plot.MARGIN)) * (to - from);
  }

  /** A rectangle of at least a visible width, with a text where there is room. */
  box(left, right, top, bottom, colour, text = "", ink = themeColour("--on-family")) {
    const from = Math.max(left, Plot.MARGIN);
    const width = Math.min(right, this.width) - from;
    const gap = width > 4 && right - left > 4 ? 1 : 0;
    this.context.fillStyle = colour;
    this.context.fillRect(from, top, Math.max(width - gap, 0.6), bottom - top);
    const letters = Math.floor((width - 6) / 5.9);
    if (bottom - top > 10 && letters >= Math.min(text.length, 6)) {
      // On a dimmed box, the theme's text is what can still be read.
      const dimmed = this.context.globalAlpha < 1;
      this.context.fillStyle = dimmed ? themeColour("--faint") : ink;
      if (dimmed) this.context.globalAlpha = 0.8;
      this.context.fillText(shorten(text, letters), from + 4, (top + bottom) / 2 + 0.5);
    }
  }

  outline(left, right, top, bottom) {
    const from = Math.max(left, Plot.MARGIN) - 1;
    this.context.strokeStyle = themeColour("--accent");
    this.context.lineWidth = 2;
    this.context.strokeRect(from, top - 1, Math.max(Math.min(right, this.width) - from, 3), bottom - top + 2);
  }

  /** The first launch that ends in sight, and the one behind the last that begins in sight. */
  visible() {
    const { begin, end } = this.selection.clock;
    let first = 0;
    while (first < end.length && end[first] < this.across.from) first += 1;
    let last = begin.length;
    while (last > first && begin[last - 1] > this.across.to) last -= 1;
    return [first, last];
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => hideTip());
    canvas.addEventListener("dblclick", () => this.showSelection());
  }

  wheel(event) {
    event.preventDefault();
    hideTip();
    const unit = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp(-event.deltaY * unit * 0.002);
    if ((event.ctrlKey || event.metaKey) && this.upwards) this.upwards.zoom(factor, this.byteAt(event.offsetY));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.panPixels((event.deltaX || event.deltaY) * unit, 0);
    else this.across.zoom(factor, this.valueAt(event.offsetX));
  }

  panPixels(x, y) {
    this.across.pan((x / (this.width - Plot.MARGIN)) * (this.across.to - this.across.from));
    if (this.upwards && y !== 0) this.upwards.pan((-y / this.height) * (this.upwards.to - this.upwards.from));
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, far: false };
  }

  move(event) {
    const { offsetX: x, offsetY: y } = event;
    if (!this.drag) return this.hover(event, this.hit(x, y));
    if (this.drag.far || Math.hypot(x - this.drag.x, y - this.drag.y) > 4) {
      this.panPixels(this.drag.x - x, this.drag.y - y);
      this.drag = { x, y, far: true };
      hideTip();
    }
  }

  release(event) {
    const clicked = this.drag && !this.drag.far;
    this.drag = null;
    if (!clicked) return;
    const found = this.hit(event.offsetX, event.offsetY);
    if (found) this.selection.set(found.target);
    else this.selection.clear();
  }

  hover(event, found) {
    this.canvas.style.cursor = found ? "pointer" : "grab";
    if (found) showTip(event, found.lines);
    else hideTip();
  }

  /** Fills the axis with what is selected. */
  showSelection() {
    const chosen = this.selection.launches;
    const { begin, end } = this.selection.clock;
    if (!chosen?.length) return this.across.showAll();
    const from = begin[chosen[0].index];
    const to = end[chosen.at(-1).index];
    const around = Math.max(to - from, (this.across.most - this.across.least) * 1e-4) * 0.25;
    this.across.show(from - around, to + around);
  }

  formatX(value) {
    return this.selection.clockName === "launches" ? formatCount(Math.round(value)) : formatSeconds(value);
  }
}

function showTip(event, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, index) => element(index === 0 ? "strong" : "div", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}
