// Puts the page together: reads the data, fills the header, keeps all views in step with what is selected.

class Page {
  constructor() {
    this.report = new Report(JSON.parse(byId("data").textContent));
    this.selection = new Selection(this.report);
    this.across = new Viewport(0, 1);
    this.timeline = new Timeline(byId("timeline"), this.selection, this.across);
    this.memory = new Memory(byId("memory"), this.selection, this.across);
    this.roofline = new Roofline(byId("roofline"), this.selection);
    this.kernels = new KernelTable(byId("kernel-table"), byId("kernel-filter"), this.selection);
    this.source = new Source(this.selection);
    this.details = new Details(byId("details"), this.selection);
    this.fillHeader();
    this.selection.onChange(() => this.update());
    addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      themeColours.clear();
      this.update();
    });
    this.update();
  }

  fillHeader() {
    const { report, selection } = this;
    byId("title").textContent = report.title;
    const parameters = report.parameters ? [`${formatSi(report.parameters, "")} parameters`] : [];
    byId("facts").textContent = [...parameters, `target ${report.target}`, `amc ${report.compiler}`].join(" · ");
    byId("program").addEventListener("change", (event) => selection.set({ program: event.target.value, function: null, phase: null }));
    byId("clock").addEventListener("change", (event) => selection.set({ clock: event.target.value }));
    fillSelect(byId("program"), report.programs.map(({ name }) => [name, name]), selection.program.name);
    for (const button of byId("views").children) {
      button.addEventListener("click", () => selection.set({ view: button.dataset.view }));
    }
  }

  update() {
    const { selection } = this;
    this.showView(selection.view);
    if (this.program !== selection.program || this.clock !== selection.clock) this.load();
    if (selection.view === "plan") [this.timeline, this.memory].forEach((plot) => plot.redraw());
    if (selection.view === "kernels") {
      this.roofline.draw();
      this.kernels.show();
    }
    if (selection.view === "source") this.source.show();
    this.details.show();
    if (selection.launch) this.revealLaunches(selection.launch.index, selection.launch.index);
    if (selection.buffer) this.revealBuffer(selection.buffer);
  }

  showView(view) {
    for (const button of byId("views").children) {
      const chosen = button.dataset.view === view;
      button.setAttribute("aria-pressed", chosen);
      byId(`view-${button.dataset.view}`).hidden = !chosen;
    }
  }

  load() {
    const { selection } = this;
    const { program, clock } = selection;
    Object.assign(this, { program, clock });
    byId("program").value = program.name;
    const names = { forecast: "forecast time", measured: "measured time", launches: "one each" };
    fillSelect(byId("clock"), Object.keys(program.clocks).map((name) => [name, names[name]]), selection.clockName);
    this.across.reset(0, clock.total);
    this.timeline.load();
    this.memory.load();
    this.roofline.load();
    this.showFacts(program);
  }

  showFacts(program) {
    const families = new Set(program.launches.map((launch) => launch.kernel.family));
    const item = (family) => element("a", { href: this.selection.link({ family }) }, swatch(family), family);
    byId("legend").replaceChildren(...[...families].map(item));
    const entry = (colour, text) => element("span", {}, element("span", { class: "swatch", style: `background: ${themeColour(colour)}` }), text);
    const roles = this.report.state.some((region) => region.role > 0) ? ROLES : ROLES.slice(0, 1);
    byId("memory-facts").replaceChildren(
      ...roles.map((role, index) => entry(ROLE_COLOURS[index], role)),
      entry("--input", "input"),
      entry("--weight", `weights read, ${formatBytes(this.report.weightBytes)} mapped`),
      element("span", {}, "line: sum alive · dashed: lower bound"),
    );
    const idle = kernelRows(program).filter((row) => row.kernel.operations === 0).length;
    const source = program.clocks.measured ? "measured" : `forecast ${this.report.forecast?.certainty ?? ""}`;
    byId("roofline-facts").textContent = idle ? `${source}; ${idle} kernels without operations are in the table only` : source;
  }

  revealLaunches(first, last) {
    const { begin, end } = this.clock;
    if (begin.length > 0) this.across.reveal(begin[Math.min(first, begin.length - 1)], end[Math.min(last, end.length - 1)]);
  }

  revealBuffer(buffer) {
    this.revealLaunches(buffer.first, buffer.last);
    this.memory.upwards.reveal(buffer.offset, buffer.offset + buffer.bytes);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const action = this.keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  keys = {
    1: () => this.selection.set({ view: "plan" }),
    2: () => this.selection.set({ view: "kernels" }),
    3: () => this.selection.set({ view: "source" }),
    ArrowLeft: () => this.step(-1, () => true),
    ArrowRight: () => this.step(1, () => true),
    "[": () => this.step(-1, (launch) => launch.kernel === this.selection.launch?.kernel),
    "]": () => this.step(1, (launch) => launch.kernel === this.selection.launch?.kernel),
    "+": () => this.across.zoom(1.6, this.middle()),
    "=": () => this.across.zoom(1.6, this.middle()),
    "-": () => this.across.zoom(1 / 1.6, this.middle()),
    f: () => [this.across, this.memory.upwards].forEach((viewport) => viewport.showAll()),
    p: () => this.selection.set({ peak: 1 }),
    Escape: () => this.selection.clear(),
  };

  /** Selects the next launch in a direction that `fits`; the first selected one, or the first in sight, where none is. */
  step(direction, fits) {
    const { launches } = this.program;
    const from = this.selection.launch;
    let index = from ? from.index + direction : (this.selection.launches?.[0]?.index ?? this.timeline.visible()[0]);
    while (launches[index] && !fits(launches[index])) index += direction;
    if (launches[index]) this.selection.set({ launch: index });
  }

  /** Where zooming by key looks: at the selected launch, else at the middle. */
  middle() {
    const { launch } = this.selection;
    return launch ? (this.clock.begin[launch.index] + this.clock.end[launch.index]) / 2 : undefined;
  }
}

new Page();
