// Launches in order: functions and modules as bands, launches coloured by family, and every thread where a run was measured.

const BAND = 18;
const AXIS = 22;

class Timeline extends Plot {
  /** Gathers the program's bands; called when the program or the clock changes. */
  load() {
    const { program, clock } = this.selection;
    this.rows = [bandsOf(program.launches, (launch) => (launch.label.func ? [launch.label.func, { module: null }] : null))];
    const paths = program.launches.map((launch) => modulePath(launch.module));
    const depth = Math.max(0, ...paths.map((path) => path.length));
    for (let level = 0; level < depth; level += 1) {
      this.rows.push(bandsOf(program.launches, (launch) => {
        const part = paths[launch.index][level];
        return part ? [part.text, { module: part.path }] : null;
      }));
    }
    this.threads = this.selection.clockName === "measured" ? [...new Set(program.spans.map(([, thread]) => thread))].sort() : [];
    this.launchTop = AXIS + this.rows.length * BAND + 4;
    this.threadTop = this.launchTop + 46;
    const height = this.threadTop + (this.threads.length ? this.threads.length * BAND + 6 : 0) + 4;
    this.canvas.style.height = `${height}px`;
    this.canvas.dataset.launches = program.launches.length;
    const summary = `${formatCount(program.launches.length)} launches, ${this.formatX(clock.total)}`;
    this.canvas.setAttribute("aria-label", `Timeline of ${program.name}: ${summary}. Arrow keys select launches.`);
    this.resize();
  }

  draw(context) {
    this.drawAxis(context);
    this.rows.forEach((bands, row) => this.drawBands(bands, row));
    this.drawLaunches();
    this.drawThreads(context);
  }

  drawAxis(context) {
    context.fillStyle = themeColour("--faint");
    const marks = ticks(this.across.from, this.across.to, Math.max(2, (this.width - Plot.MARGIN) / 110));
    for (const mark of marks) {
      const x = this.x(mark);
      context.fillStyle = themeColour("--line");
      context.fillRect(x, AXIS - 6, 1, this.height);
      context.fillStyle = themeColour("--faint");
      context.fillText(this.formatX(mark), x + 4, AXIS / 2);
    }
  }

  drawBands(bands, row) {
    const { begin, end } = this.selection.clock;
    const top = AXIS + row * BAND;
    const colours = [themeColour("--band-0"), themeColour("--band-1")];
    let painted = -1;
    for (let index = 0; index < bands.length; index += 1) {
      const band = bands[index];
      const left = this.x(begin[band.first]);
      const right = this.x(end[band.last]);
      if (right < Plot.MARGIN || left > this.width || right < painted + 0.5) continue;
      painted = right;
      this.box(left, right, top, top + BAND - 2, colours[index % 2], band.text, themeColour("--text"));
    }
    this.rowName(row === 0 ? "function" : row === 1 ? "module" : "", top + BAND / 2);
  }

  rowName(text, y) {
    this.context.fillStyle = themeColour("--faint");
    this.context.fillText(text, 2, y);
  }

  drawLaunches() {
    const { program, clock, mask, launch: chosen } = this.selection;
    const [top, bottom] = [this.launchTop, this.launchTop + 40];
    const [first, last] = this.visible();
    for (let index = first; index < last; index += 1) {
      const launch = program.launches[index];
      this.context.globalAlpha = mask && !mask[index] ? 0.22 : 1;
      const text = shortSymbol(launch.kernel.symbol);
      this.box(this.x(clock.begin[index]), this.x(clock.end[index]), top, bottom, familyColour(launch.kernel.family), text);
    }
    this.context.globalAlpha = 1;
    if (chosen) this.outline(this.x(clock.begin[chosen.index]), this.x(clock.end[chosen.index]), top, bottom);
    this.rowName("launch", (top + bottom) / 2);
  }

  drawThreads() {
    if (this.threads.length === 0) return;
    const { program, mask } = this.selection;
    for (const [launch, thread, begin, end] of program.spans) {
      const [left, right] = [this.x(begin * 1e-9), this.x(end * 1e-9)];
      if (right < Plot.MARGIN || left > this.width) continue;
      const top = this.threadTop + this.threads.indexOf(thread) * BAND;
      this.context.globalAlpha = mask && !mask[launch] ? 0.22 : 1;
      this.box(left, right, top, top + BAND - 3, familyColour(program.launches[launch].kernel.family));
    }
    this.context.globalAlpha = 1;
    this.threads.forEach((thread, row) => this.rowName(`thread ${thread}`, this.threadTop + row * BAND + BAND / 2));
  }

  hit(x, y) {
    if (x < Plot.MARGIN) return null;
    const row = Math.floor((y - AXIS) / BAND);
    if (row >= 0 && row < this.rows.length) return this.hitBand(this.rows[row], x);
    if (y < this.launchTop || y > this.height) return null;
    const index = this.launchAt(x);
    return index < 0 ? null : this.describe(this.selection.program.launches[index]);
  }

  /** The launch at a pixel; a narrow one can be hit up to three pixels beside it. */
  launchAt(x) {
    const { begin, end } = this.selection.clock;
    const at = this.valueAt(x);
    let [low, high] = [0, begin.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (begin[middle] <= at) low = middle + 1;
      else high = middle;
    }
    const found = low - 1;
    return found >= 0 && this.x(end[found]) > x - 3 ? found : -1;
  }

  hitBand(bands, x) {
    const { begin, end } = this.selection.clock;
    const at = this.valueAt(x);
    const band = bands.find((band) => begin[band.first] <= at && at <= end[band.last]);
    if (!band) return null;
    const launches = this.selection.program.launches.slice(band.first, band.last + 1);
    const seconds = this.selection.program.totalSeconds(launches);
    const lines = [band.extra.module ?? band.text, `${formatCount(launches.length)} launches, ${formatSeconds(seconds)}`];
    return { target: band.extra.module === null ? { launch: band.first } : { module: band.extra.module }, lines };
  }

  describe(launch) {
    const { program } = this.selection;
    const seconds = program.seconds(launch);
    const share = formatPercent(seconds, program.totalSeconds());
    const lines = [
      `#${launch.index} ${launch.kernel.short}`,
      launch.label.text,
      launch.module,
      `${formatSeconds(seconds)}, ${share} · ${formatSi(launch.kernel.operations, "op")} · ${formatBytes(launch.kernel.bytes)}`,
    ];
    return { target: { launch: launch.index }, lines: lines.filter((line) => line !== "") };
  }
}

/** Runs of launches that `name` gives the same text and path. */
function bandsOf(launches, name) {
  const bands = [];
  let open = null;
  for (const launch of launches) {
    const [text, extra] = name(launch) ?? [null, null];
    const key = text === null ? null : (extra.module ?? text);
    // A function that is called again begins a new band.
    const continues = open !== null && open.key === key && (extra?.module !== null || open.call === launch.call);
    if (continues) open.last = launch.index;
    else {
      open = key === null ? null : { first: launch.index, last: launch.index, text, extra, key, call: launch.call };
      if (open) bands.push(open);
    }
  }
  return bands;
}

/** `model.layers.3.mlp` as steps with the path so far; a number stays with the name before it. */
function modulePath(module) {
  const steps = [];
  let path = "";
  for (const part of module === "" ? [] : module.split(".")) {
    path = path === "" ? part : `${path}.${part}`;
    if (/^\d+$/.test(part) && steps.length > 0) Object.assign(steps.at(-1), { text: `${steps.at(-1).text}.${part}`, path });
    else steps.push({ text: part, path });
  }
  return steps;
}
