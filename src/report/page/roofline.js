// Every kernel by what it does with a byte: operations a byte across, operations a second upwards, both by powers of ten.

class Roofline {
  static MARGIN = { left: 70, right: 16, top: 10, bottom: 34 };

  constructor(svg, selection) {
    Object.assign(this, { svg, selection, across: new Viewport(0, 1), upwards: new Viewport(0, 1) });
    new ResizeObserver(() => this.draw()).observe(svg);
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("pointerdown", (event) => (this.drag = { x: event.clientX, y: event.clientY }));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", () => (this.drag = null));
    svg.addEventListener("pointerleave", () => (this.drag = null));
  }

  load() {
    const roof = this.selection.report.forecast?.roof;
    this.roof = roof && { peak: Math.log10(roof.operations), bandwidth: Math.log10(roof.bytes) };
    this.points = kernelRows(this.selection.program).filter((row) => row.kernel.operations > 0 && row.seconds > 0);
    const speeds = this.points.map((row) => Math.log10(row.rate));
    const intensities = this.points.map((row) => Math.log10(row.intensity));
    const ridge = this.roof ? this.roof.peak - this.roof.bandwidth : 0;
    this.across.reset(Math.min(-1, ridge, ...intensities) - 0.3, Math.max(ridge + 1, ...intensities) + 0.3);
    const peaks = this.roof ? [this.roof.peak] : [];
    this.upwards.reset(Math.min(8, ...peaks, ...speeds) - 0.4, Math.max(9, ...peaks, ...speeds) + 0.4);
    this.draw();
  }

  x(log) {
    const { left, right } = Roofline.MARGIN;
    return left + ((log - this.across.from) / (this.across.to - this.across.from)) * (this.width - left - right);
  }

  y(log) {
    const { top, bottom } = Roofline.MARGIN;
    return this.height - bottom - ((log - this.upwards.from) / (this.upwards.to - this.upwards.from)) * (this.height - top - bottom);
  }

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width === 0 || !this.points) return;
    Object.assign(this, { width, height });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const focused = this.svg.contains(document.activeElement) ? document.activeElement.dataset.kernel : null;
    const { left, right, top, bottom } = Roofline.MARGIN;
    const area = { x: left, y: top, width: width - left - right, height: height - top - bottom };
    const clip = svgElement("clipPath", { id: "roofline-area" }, svgElement("rect", area));
    const inside = svgElement("g", { "clip-path": "url(#roofline-area)" }, ...this.roofLines(), ...this.points.map((row) => this.point(row)));
    this.svg.replaceChildren(clip, ...this.axes(area), inside);
    if (focused) this.svg.querySelector(`[data-kernel="${CSS.escape(focused)}"]`)?.focus();
  }

  axes(area) {
    const marks = [];
    const mark = (x1, y1, x2, y2, at, text, anchor) => {
      marks.push(svgElement("line", { class: "grid", x1, y1, x2, y2 }));
      marks.push(svgElement("text", { ...at, "text-anchor": anchor, class: "tick" }, text));
    };
    for (const log of decadeTicks(this.across, area.width / 60)) {
      const x = this.x(log);
      mark(x, area.y, x, area.y + area.height, { x, y: area.y + area.height + 15 }, formatDigits(10 ** log), "middle");
    }
    for (const log of decadeTicks(this.upwards, area.height / 30)) {
      const y = this.y(log);
      mark(area.x, y, area.x + area.width, y, { x: area.x - 6, y: y + 4 }, formatSi(10 ** log, "op/s"), "end");
    }
    const name = { x: area.x + area.width / 2, y: this.height - 4, "text-anchor": "middle", class: "tick" };
    marks.push(svgElement("text", name, "operations a byte"));
    return marks;
  }

  /** What the rates allow: rising with the bytes a second, then flat at the operations a second. */
  roofLines() {
    if (!this.roof) return [];
    const { peak, bandwidth } = this.roof;
    const ridge = peak - bandwidth;
    const corner = [this.across.least - 9, ridge, this.across.most + 9].map((at) => [this.x(at), this.y(Math.min(peak, bandwidth + at))]);
    const line = svgElement("polyline", { class: "roof", points: corner.map((point) => point.join(",")).join(" ") });
    const flat = { x: this.width - Roofline.MARGIN.right - 4, y: this.y(peak) - 10, "text-anchor": "end", class: "roof-name" };
    const foot = Math.max(this.across.from, this.upwards.from - bandwidth);
    const slope = { x: this.x(foot) + 14, y: this.y(bandwidth + foot) - 8, class: "roof-name" };
    return [
      line,
      svgElement("text", flat, formatSi(10 ** peak, "op/s")),
      svgElement("text", slope, formatSi(10 ** bandwidth, "B/s")),
    ];
  }

  point(row) {
    const { selection } = this;
    const { kernel, share } = row;
    const chosen = selection.launches?.some((launch) => launch.kernel === kernel);
    const properties = {
      "data-kernel": kernel.symbol,
      class: selection.launches ? (chosen ? "point chosen" : "point dim") : "point",
      cx: this.x(Math.log10(row.intensity)),
      cy: this.y(Math.log10(row.rate)),
      r: 3.5 + Math.sqrt(share) * 26,
      fill: familyColour(kernel.family),
      tabindex: 0,
      role: "button",
      "aria-label": describeKernel(row).join(", "),
      onclick: () => selection.set({ kernel: kernel.symbol }),
      onkeydown: (event) => event.key === "Enter" && selection.set({ kernel: kernel.symbol }),
      onpointerenter: (event) => showTip(event, describeKernel(row)),
      onpointerleave: hideTip,
    };
    return svgElement("circle", properties);
  }

  wheel(event) {
    event.preventDefault();
    hideTip();
    const factor = Math.exp(-event.deltaY * 0.002);
    const { left, right, top, bottom } = Roofline.MARGIN;
    const across = (event.offsetX - left) / (this.width - left - right);
    const upwards = (this.height - bottom - event.offsetY) / (this.height - top - bottom);
    this.across.zoom(factor, this.across.from + across * (this.across.to - this.across.from));
    this.upwards.zoom(factor, this.upwards.from + upwards * (this.upwards.to - this.upwards.from));
    this.draw();
  }

  move(event) {
    if (!this.drag) return;
    const [x, y] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
    if (Math.hypot(x, y) < 4 && !this.drag.far) return;
    this.drag = { x: event.clientX, y: event.clientY, far: true };
    this.across.pan((-x / this.width) * (this.across.to - this.across.from));
    this.upwards.pan((y / this.height) * (this.upwards.to - this.upwards.from));
    this.draw();
  }
}

/** Logarithms of powers of ten in sight, with their doubles and fivefolds where there is room for `count` marks. */
function decadeTicks(viewport, count) {
  const decades = viewport.to - viewport.from;
  if (decades < 1) return ticks(viewport.from, viewport.to, Math.min(count, 6));
  const within = decades * 3 <= count ? [1, 2, 5] : [1];
  const marks = [];
  for (let power = Math.floor(viewport.from); power <= viewport.to; power += 1) {
    marks.push(...within.map((times) => power + Math.log10(times)));
  }
  return marks.filter((mark) => viewport.from <= mark && mark <= viewport.to);
}

function describeKernel(row) {
  const { kernel } = row;
  return [
    kernel.short,
    kernel.family,
    `${formatCount(row.count)} launches, ${formatSeconds(row.seconds)}, ${formatDigits(100 * row.share)} % of the time`,
    `${formatDigits(row.intensity)} op/B, ${formatSi(row.rate, "op/s")}, ${formatSi(row.bytesRate, "B/s")}`,
  ];
}
