// The arena over time: every buffer from its first to its last launch at its address, trainable state below, the sum of
// what is alive, and which frozen tensors are read when.

const STRIP = 26;
const ROLE_COLOURS = ["--state-0", "--state-1", "--state-2", "--state-3"];

class Memory extends Plot {
  constructor(canvas, selection, across) {
    super(canvas, selection, across);
    this.upwards = new Viewport(0, 1);
    this.upwards.onChange(() => this.redraw());
  }

  load() {
    const { program, report } = this.selection;
    this.upwards.reset(0, (program.state + program.activations) * 1.06 || 1);
    this.reads = program.launches.flatMap((launch) => {
      return launch.args.filter((arg) => Array.isArray(arg) && arg[0] >= 0).map(([tensor]) => ({ launch: launch.index, tensor }));
    });
    this.canvas.dataset.buffers = program.buffers.length;
    this.canvas.dataset.tensors = report.state.length;
    const peak = formatBytes(program.live[program.peak] ?? 0);
    this.canvas.setAttribute("aria-label", `Memory of ${program.name}: ${program.buffers.length} buffers, at most ${peak} alive.`);
    this.redraw();
  }

  get floor() {
    return this.height - STRIP;
  }

  y(byte) {
    const { from, to } = this.upwards;
    return this.floor - ((byte - from) / (to - from)) * this.floor;
  }

  byteAt(y) {
    const { from, to } = this.upwards;
    return from + ((this.floor - y) / this.floor) * (to - from);
  }

  draw(context) {
    this.drawAxis(context);
    context.save();
    context.beginPath();
    context.rect(Plot.MARGIN, 0, this.width, this.floor);
    context.clip();
    this.drawState();
    this.drawBuffers();
    this.drawSum(context);
    context.restore();
    this.drawReads(context);
  }

  drawAxis(context) {
    for (const mark of ticks(this.upwards.from, this.upwards.to, Math.max(2, this.floor / 44), 2)) {
      const y = this.y(mark);
      context.fillStyle = themeColour("--line");
      context.fillRect(Plot.MARGIN, y, this.width, 1);
      context.fillStyle = themeColour("--faint");
      if (y > 6 && y < this.floor - 2) context.fillText(formatBytes(mark), 2, y);
    }
  }

  drawState() {
    const { report, subject, value } = this.selection;
    const right = this.x(this.selection.clock.total);
    let painted = Infinity;
    for (const region of report.state) {
      const [top, bottom] = [this.y(region.offset + region.bytes), this.y(region.offset)];
      if (bottom < 0 || top > this.floor || top > painted - 0.4) continue;
      painted = top;
      const text = `${report.params[region.param].name} ${ROLES[region.role]}`;
      const gap = bottom - top > 4 ? 1 : 0;
      this.box(Plot.MARGIN, right, top + gap, Math.max(bottom, top + 0.7), themeColour(ROLE_COLOURS[region.role]), text, themeColour("--text"));
      if (subject === "param" && region.param === Number(value)) this.outline(Plot.MARGIN, right, top, bottom);
    }
  }

  drawBuffers() {
    const { program, mask, buffer: chosen, subject } = this.selection;
    const wanted = (buffer) => subject === "buffer" ? buffer === chosen : buffer.touches.some((launch) => mask[launch]);
    const alive = subject === "peak" ? new Set(program.alive(program.peak)) : null;
    for (const buffer of program.buffers) {
      const [left, right, top, bottom] = this.corners(buffer);
      if (right < Plot.MARGIN || left > this.width || bottom < 0 || top > this.floor) continue;
      const lit = alive ? alive.has(buffer) : !mask || wanted(buffer);
      this.context.globalAlpha = lit ? 1 : 0.22;
      const gap = bottom - top > 4 ? 1 : 0;
      this.box(left, right, top + gap, Math.max(bottom, top + 0.7), this.colour(buffer), this.text(buffer));
    }
    this.context.globalAlpha = 1;
    if (chosen) this.outline(...this.corners(chosen));
  }

  /** As the launch that makes it; inputs come from outside. */
  colour(buffer) {
    const maker = buffer.label.func === "" ? undefined : this.selection.program.launches[buffer.first];
    return maker ? familyColour(maker.kernel.family) : themeColour("--input");
  }

  text(buffer) {
    return buffer.module ? `${buffer.label.text} · ${buffer.module}` : buffer.label.text;
  }

  corners(buffer) {
    const { begin, end, total } = this.selection.clock;
    const right = buffer.last < end.length ? end[buffer.last] : total;
    return [this.x(begin[buffer.first] ?? total), this.x(right), this.y(buffer.offset + buffer.bytes), this.y(buffer.offset)];
  }

  drawSum(context) {
    const { program, clock, subject } = this.selection;
    if (program.live.length === 0) return;
    context.strokeStyle = themeColour("--text");
    context.lineWidth = 1.25;
    context.beginPath();
    program.live.forEach((bytes, index) => {
      const y = this.y(program.state + bytes);
      context.lineTo(this.x(clock.begin[index]), y);
      context.lineTo(this.x(clock.end[index]), y);
    });
    context.stroke();
    const bound = this.y(program.state + program.live[program.peak]);
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(Plot.MARGIN, bound);
    context.lineTo(this.width, bound);
    context.stroke();
    context.setLineDash([]);
    if (bound < 0 || bound > this.floor) return;
    const middle = this.x((clock.begin[program.peak] + clock.end[program.peak]) / 2);
    context.fillStyle = themeColour("--accent");
    context.beginPath();
    context.arc(middle, bound, subject === "peak" ? 7 : 5, 0, 7);
    context.fill();
    const text = `peak ${formatBytes(program.state + program.live[program.peak])}`;
    const left = Math.min(Math.max(middle + 10, Plot.MARGIN + 6), this.width - 120);
    context.fillText(text, left, Math.max(bound - 10, 8));
  }

  /** A strip below the arena: the frozen tensors that launches read from their mapped files. */
  drawReads(context) {
    const { clock, subject, value } = this.selection;
    const [top, bottom] = [this.floor + 4, this.height - 2];
    context.fillStyle = themeColour("--faint");
    context.fillText("weights", 2, (top + bottom) / 2);
    for (const { launch, tensor } of this.reads) {
      const [left, right] = [this.x(clock.begin[launch]), this.x(clock.end[launch])];
      if (right < Plot.MARGIN || left > this.width) continue;
      context.globalAlpha = subject === "weight" && tensor !== Number(value) ? 0.25 : 1;
      this.box(left, right, top, bottom, themeColour("--weight"), this.selection.report.weights[tensor].name, themeColour("--text"));
    }
    context.globalAlpha = 1;
  }

  hit(x, y) {
    if (x < Plot.MARGIN) return null;
    const { program, clock } = this.selection;
    if (y > this.floor) return this.hitRead(x);
    const peak = this.x((clock.begin[program.peak] + clock.end[program.peak]) / 2);
    const bound = this.y(program.state + (program.live[program.peak] ?? 0));
    if (Math.hypot(x - peak, y - bound) < 9) {
      return { target: { peak: 1 }, lines: ["peak", `${program.alive(program.peak).length} buffers are alive`] };
    }
    const at = (buffer) => {
      const [left, right, top, bottom] = this.corners(buffer);
      return left <= x && x <= Math.max(right, left + 2) && top <= y && y <= bottom;
    };
    const buffer = program.buffers.find(at);
    return buffer ? this.describe(buffer) : this.hitState(y);
  }

  describe(buffer) {
    const { program, clock } = this.selection;
    const right = buffer.last < clock.end.length ? clock.end[buffer.last] : clock.total;
    const life = `launch ${buffer.first} to ${buffer.last}, ${this.formatX(right - clock.begin[buffer.first])}`;
    const size = `${formatBytes(buffer.bytes)} at ${formatHex(buffer.offset)}`;
    const lines = [buffer.label.text, buffer.module, size, program.launches.length ? life : ""];
    return { target: { buffer: buffer.index }, lines: lines.filter((line) => line !== "") };
  }

  hitState(y) {
    const { report } = this.selection;
    const byte = this.byteAt(y);
    const region = report.state[lastBefore(report.state, byte)];
    if (!region || byte > region.offset + region.bytes) return null;
    const param = report.params[region.param];
    return { target: { param: region.param }, lines: [param.name, `${ROLES[region.role]}, ${formatBytes(region.bytes)}`] };
  }

  hitRead(x) {
    const { clock, report } = this.selection;
    const read = this.reads.find(({ launch }) => this.x(clock.begin[launch]) <= x && x <= this.x(clock.end[launch]));
    if (!read) return null;
    const weight = report.weights[read.tensor];
    return { target: { weight: read.tensor }, lines: [weight.name, `${weight.storage} [${weight.shape}], ${formatBytes(weight.bytes)}`] };
  }
}
