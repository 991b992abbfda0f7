// The panel on the right: all about what is selected.

/** Most launches that a list shows. */
const LISTED = 200;
/** Lines around the lines of the graph that a launch stands for. */
const AROUND = 2;

class Details {
  constructor(panel, selection) {
    Object.assign(this, { panel, selection });
  }

  show() {
    const { subject, launch, buffer } = this.selection;
    const parts =
      launch ? this.aboutLaunch(launch)
      : buffer ? this.aboutBuffer(buffer)
      : subject === "peak" ? this.aboutPeak()
      : subject !== null && this.selection.launches ? this.aboutSet(subject)
      : this.aboutProgram();
    this.panel.replaceChildren(...parts.filter((part) => part !== null));
    this.panel.scrollTop = 0;
  }

  link(text, changes, properties = {}) {
    return element("a", { href: this.selection.link(changes), ...properties }, text);
  }

  launchLink(index) {
    const launch = this.selection.program.launches[index];
    return launch ? this.link(`#${index} ${launch.kernel.short}`, { launch: index }) : "after the last launch";
  }

  aboutProgram() {
    const { program, report } = this.selection;
    const shape = program.batch > 0 ? `${program.batch} rows of ${program.seq} tokens` : "no rows";
    const live = program.live[program.peak] ?? 0;
    const port = (it) => element("li", {}, `${it.name} `, element("small", {}, `${it.storage} [${it.shape}] at ${formatHex(it.offset)}`));
    return [
      element("h2", {}, program.name),
      definitions([
        ["shape", shape],
        ["launches", formatCount(program.launches.length)],
        ["forecast", program.clocks.forecast ? `${formatSeconds(program.clocks.forecast.total)} ${report.forecast.threads ? `with ${report.forecast.threads} threads ` : ""}(${report.forecast.certainty})` : "none: this machine has no rates for it"],
        program.clocks.measured ? ["measured", `${formatSeconds(program.clocks.measured.total)}, ${formatSeconds(program.totalSeconds())} of it in launches`] : null,
        ["trainable state", formatBytes(program.state)],
        ["buffers", `${formatBytes(program.activations)} for ${formatCount(program.buffers.length)}; at most ${formatBytes(live)} alive`],
        ["packing", live > 0 ? `${(program.activations / live).toFixed(3)} × the lower bound` : "–"],
        ["frozen weights", `${formatBytes(report.weightBytes)} in ${formatCount(report.weights.length)} mapped tensors`],
        ["trained", `${formatCount(report.params.length)} tensors`],
      ]),
      element("p", {}, this.link("what is alive at the peak", { peak: 1 })),
      element("h3", {}, "Inputs"),
      element("ul", {}, ...program.inputs.map(port)),
      element("h3", {}, "Outputs"),
      element("ul", {}, ...program.outputs.map(port)),
      element("h3", {}, "Time by family"),
      this.families(program.launches),
    ];
  }

  families(launches) {
    const { program } = this.selection;
    const sums = new Map();
    for (const launch of launches) {
      const { family } = launch.kernel;
      sums.set(family, (sums.get(family) ?? 0) + program.seconds(launch));
    }
    const total = program.totalSeconds(launches);
    const rows = [...sums].sort((a, b) => b[1] - a[1]).map(([family, seconds]) => {
      const share = `--share: ${((100 * seconds) / (total || 1)).toFixed(2)}%`;
      return element("tr", {},
        element("td", {}, swatch(family), this.link(family, { family })),
        element("td", { class: "number" }, formatSeconds(seconds)),
        element("td", { class: "number share", style: share }, formatPercent(seconds, total)));
    });
    return element("table", {}, element("tbody", {}, ...rows));
  }

  aboutLaunch(launch) {
    const { program } = this.selection;
    const { kernel } = launch;
    const seconds = program.seconds(launch);
    const rate = (work, unit) => (seconds > 0 ? `, ${formatSi(work / seconds, unit)}` : "");
    const expected = program.forecast(launch);
    const measured = program.clocks.measured ? `${formatSeconds(seconds)}, ${formatRatio(seconds, expected)} the forecast` : null;
    return [
      element("h2", {}, swatch(kernel.family), `#${launch.index} ${kernel.short}`),
      this.steps(launch),
      definitions([
        ["computes", element("code", {}, launch.label.text)],
        ["module", this.modulePath(launch.module)],
        ["kernel", this.link(kernel.symbol, { kernel: kernel.symbol })],
        ["family", this.link(kernel.family, { family: kernel.family })],
        measured ? ["measured", measured] : null,
        expected > 0 ? ["forecast", `${formatSeconds(expected)}, ${formatPercent(expected, program.clocks.forecast.total)} of the program`] : null,
        ["operations", formatSi(kernel.operations, "op") + rate(kernel.operations, "op/s")],
        ["bytes", formatBytes(kernel.bytes) + rate(kernel.bytes, "B/s")],
        ["op/B", formatDigits(kernel.operations / Math.max(kernel.bytes, 1))],
        ["tasks", formatCount(launch.tasks)],
      ]),
      element("h3", {}, "Operands"),
      this.operands(launch),
      element("h3", {}, "Graph"),
      this.graphSnippet(launch),
      element("h3", {}, "Recipe"),
      ...this.reasons(launch),
    ];
  }

  /** To the launches before and behind, in order and of the same kernel. */
  steps(launch) {
    const { launches } = this.selection.program;
    const same = launches.filter((other) => other.kernel === launch.kernel);
    const place = same.indexOf(launch);
    const step = (text, to, title) => to ? this.link(text, { launch: to.index }, { title }) : element("span", {}, text);
    return element("p", { class: "steps" },
      step("← before", launches[launch.index - 1], "key ←"),
      step("behind →", launches[launch.index + 1], "key →"),
      step("[ same", same[place - 1], "key ["),
      element("small", {}, `${place + 1} of ${same.length}`),
      step("same ]", same[place + 1], "key ]"));
  }

  modulePath(module) {
    const steps = modulePath(module);
    if (steps.length === 0) return "none";
    return element("span", { class: "path" }, ...steps.flatMap((step, index) => [...(index > 0 ? ["."] : []), this.link(step.text, { module: step.path })]));
  }

  operands(launch) {
    const rows = launch.args.map((_, index) => {
      const { text, detail, target } = this.selection.program.operand(launch, index);
      return element("tr", {},
        element("td", { class: "number" }, String(index)),
        element("td", {}, target ? this.link(text, target) : text, element("small", {}, detail)));
    });
    return element("table", { class: "operands" }, element("tbody", {}, ...rows));
  }

  graphSnippet(launch) {
    const { program } = this.selection;
    const graph = program.graph();
    const lines = program.linesOf(launch);
    if (lines.length === 0) return element("p", {}, "no line of the graph");
    const func = graph.functions.get(launch.label.func);
    const from = Math.max(func.first, Math.min(...lines) - AROUND);
    const to = Math.min(func.last, Math.max(...lines) + AROUND);
    const rows = [];
    for (let line = from; line <= to; line += 1) {
      const href = this.selection.link({ line: line + 1, function: func.name, view: "source" });
      if (lines.includes(line)) rows.push(codeLine(line + 1, graphTokens(graph.lines[line]), { lit: true, href }));
      else if (lines.some((near) => Math.abs(near - line) <= AROUND)) rows.push(codeLine(line + 1, graphTokens(graph.lines[line]), {}));
      else if (rows.at(-1)?.className !== "gap") rows.push(element("div", { class: "gap" }, "⋮"));
    }
    const phase = `@${func.name}, after ${graph.name}`;
    return element("div", { class: "snippet code", id: "launch-graph" }, element("small", {}, phase), ...rows);
  }

  reasons(launch) {
    const { recipe } = this.selection.report;
    const snippet = (place) => {
      const document = recipe.documents[place.document];
      const rows = [];
      for (let line = place.first; line <= Math.min(place.last, place.first + 5); line += 1) {
        const href = this.selection.link({ recipe: `${place.document}:${line}`, document: place.document, view: "source" });
        rows.push(codeLine(line, [document.lines[line - 1]], { href }));
      }
      if (place.last > place.first + 5) rows.push(element("div", { class: "gap" }, `⋮ to line ${place.last}`));
      return element("div", { class: "snippet code", "data-key": place.key }, element("small", {}, `${document.name}, line ${place.first}`), ...rows);
    };
    const reason = (index) => {
      const { why, places } = recipe.rules[index];
      return element("div", { class: "reason" }, element("p", {}, why), ...places.map(snippet));
    };
    return launch.rules.length > 0 ? launch.rules.map(reason) : [element("p", {}, "no line of the recipe")];
  }

  aboutBuffer(buffer) {
    const { program, clock, clockName } = this.selection;
    const end = buffer.last < clock.end.length ? clock.end[buffer.last] : clock.total;
    const life = clockName === "launches" ? "" : `, ${formatSeconds(end - clock.begin[buffer.first])}`;
    const atPeak = buffer.first <= program.peak && program.peak <= buffer.last;
    const made = buffer.label.func !== "";
    const share = formatPercent(buffer.bytes, program.live[program.peak]);
    const others = made ? buffer.touches.slice(1) : buffer.touches;
    return [
      element("h2", {}, buffer.label.text),
      definitions([
        ["module", this.modulePath(buffer.module)],
        ["size", `${formatBytes(buffer.bytes)} (${formatCount(buffer.bytes)} bytes)`],
        ["address", `${formatHex(buffer.offset)} to ${formatHex(buffer.offset + buffer.bytes)}`],
        ["alive", `launch ${buffer.first} to ${buffer.last}${life}`],
        ["at the peak", atPeak ? `alive, ${share} of it` : "not alive"],
        ["written by", made ? this.launchLink(buffer.first) : "the caller, before the first launch"],
        buffer.last >= program.launches.length ? ["read by", "the caller, after the last launch"] : null,
      ]),
      element("h3", {}, made ? `Then used by ${others.length}` : `Used by ${others.length}`),
      element("ul", {}, ...others.slice(0, LISTED).map((index) => element("li", {}, this.launchLink(index)))),
    ];
  }

  aboutPeak() {
    const { program } = this.selection;
    const alive = program.alive(program.peak);
    const live = program.live[program.peak];
    const groups = new Map();
    for (const buffer of alive) {
      const group = groups.get(buffer.label.text) ?? { text: buffer.label.text, bytes: 0, buffers: [] };
      group.bytes += buffer.bytes;
      group.buffers.push(buffer);
      groups.set(group.text, group);
    }
    const rows = [...groups.values()].sort((a, b) => b.bytes - a.bytes).map((group) => this.peakGroup(group, live));
    return [
      element("h2", {}, "Peak"),
      definitions([
        ["during", this.launchLink(program.peak)],
        ["alive", `${formatBytes(live)} in ${alive.length} buffers`],
        ["with state", formatBytes(program.state + live)],
        ["planned", `${formatBytes(program.activations)}, ${(program.activations / live).toFixed(3)} × the lower bound`],
      ]),
      element("h3", {}, "Alive then, largest first"),
      element("div", { id: "peak-list" }, ...rows),
    ];
  }

  peakGroup(group, live) {
    const facts = element("small", {}, `${formatBytes(group.bytes)} · ${formatPercent(group.bytes, live)}`);
    if (group.buffers.length === 1) return element("div", { class: "leaf" }, this.link(group.text, { buffer: group.buffers[0].index }), facts);
    const items = group.buffers.map((buffer) => {
      const text = buffer.module || "no module";
      return element("div", { class: "leaf" }, this.link(text, { buffer: buffer.index }), element("small", {}, formatBytes(buffer.bytes)));
    });
    const summary = element("summary", {}, `${group.text} × ${group.buffers.length}`, facts);
    return element("details", {}, summary, ...items);
  }

  aboutSet(subject) {
    const { program, launches } = this.selection;
    const seconds = program.totalSeconds(launches);
    const share = formatPercent(seconds, program.totalSeconds());
    const items = launches.slice(0, LISTED).map((launch) => {
      const facts = `${formatSeconds(program.seconds(launch))} · ${launch.label.text}`;
      return element("li", {}, this.launchLink(launch.index), element("small", {}, facts));
    });
    return [
      element("h2", {}, this.setTitle(subject)),
      definitions([
        ...this.setFacts(subject),
        ["launches", element("span", { id: "set-count" }, formatCount(launches.length))],
        ["time", `${formatSeconds(seconds)}, ${share} of the program`],
      ]),
      element("h3", {}, "By family"),
      this.families(launches),
      element("h3", {}, launches.length > LISTED ? `First ${LISTED} launches` : "Launches"),
      element("ul", { class: "launches" }, ...items),
    ];
  }

  setTitle(subject) {
    const { value, report } = this.selection;
    if (subject === "weight") return report.weights[value]?.name ?? "";
    if (subject === "param") return report.params[value]?.name ?? "";
    if (subject === "kernel") return shortSymbol(value);
    if (subject === "module") return value || "(no module)";
    if (subject === "line") return `line ${value} of the graph`;
    if (subject === "recipe") {
      const [document, line] = value.split(":").map(Number);
      return `${report.recipe.documents[document]?.name ?? ""}, line ${line}`;
    }
    return value;
  }

  setFacts(subject) {
    const { value, report, program } = this.selection;
    const tensor = (it) => [["type", `${it.storage} [${it.shape}]`], ["size", formatBytes(it.bytes)]];
    if (subject === "weight" && report.weights[value]) return [["what", "frozen, in its mapped file"], ...tensor(report.weights[value])];
    if (subject === "param" && report.params[value]) return this.paramFacts(report.params[value], tensor);
    if (subject === "kernel") {
      const kernel = report.kernels.find((kernel) => kernel.symbol === value);
      if (!kernel) return [];
      const facts = describeKernel(kernelRows(program).find((row) => row.kernel === kernel) ?? { kernel, count: 0, seconds: 0, share: 0, intensity: 0, rate: 0, bytesRate: 0 });
      return [["symbol", kernel.symbol], ["family", kernel.family], ["does", `${formatSi(kernel.operations, "op")}, ${formatBytes(kernel.bytes)}`], ["rate", facts.at(-1)]];
    }
    if (subject === "line") return [["text", element("code", {}, program.graph()?.lines[value - 1]?.trim() ?? "")]];
    if (subject === "recipe") {
      const [document, line] = value.split(":").map(Number);
      const why = report.recipe.rulesAt(document, line).map((rule) => report.recipe.rules[rule].why);
      return [["text", element("code", {}, report.recipe.documents[document]?.lines[line - 1] ?? "")], ["gives", why.join("; ") || "nothing in this program"]];
    }
    return [];
  }

  paramFacts(param, tensor) {
    const init = typeof param.init === "string" ? param.init.replaceAll("_", " ") : JSON.stringify(param.init);
    const count = param.offsets[1] === param.offsets[2] ? 1 : ROLES.length;
    const places = ROLES.slice(0, count).map((role, index) => [role, `at ${formatHex(param.offsets[index])}`]);
    return [["what", "trained"], ...tensor(param), ["begins as", init], ...places];
  }
}
