// The report's data, decoded: kernels, tensors, and programs with their launches, buffers and times.

class Report {
  constructor(json) {
    Object.assign(this, { title: json.title, compiler: json.compiler, target: json.target, forecast: json.forecast });
    this.parameters = json.parameters;
    this.kernels = json.kernels.map(([symbol, family, operations, bytes, seconds], index) => {
      return { index, symbol, short: shortSymbol(symbol), family, operations, bytes, seconds };
    });
    this.weights = json.weights.map(([name, storage, shape, bytes]) => ({ name, storage, shape, bytes }));
    this.weightBytes = this.weights.reduce((sum, weight) => sum + weight.bytes, 0);
    this.params = json.params.map(([name, storage, shape, init, bytes, gradBytes, offsets]) => {
      return { name, storage, shape, init, bytes, gradBytes, offsets };
    });
    this.state = stateRegions(this.params);
    this.recipe = new Recipe(json.recipe);
    this.programs = json.programs.map((program) => new Program(this, program));
  }

  program(name) {
    return this.programs.find((program) => program.name === name);
  }
}

const ROLES = ["value", "gradient", "first moment", "second moment"];

/** What lies in the trainable state, by address: `{offset, bytes, param, role}`. */
function stateRegions(params) {
  const regions = params.flatMap((param, index) => {
    // A plan that does not train has values alone: all other offsets are the same.
    const roles = param.offsets[1] === param.offsets[2] ? [0] : [0, 1, 2, 3];
    return roles.map((role) => {
      return { offset: param.offsets[role], bytes: role === 0 ? param.bytes : param.gradBytes, param: index, role };
    });
  });
  return regions.sort((a, b) => a.offset - b.offset);
}

/** The last of `list`, sorted by `offset`, that begins at or before `offset`. */
function lastBefore(list, offset) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].offset <= offset) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The two texts of the recipe, and the rules that say what a line is there for. */
class Recipe {
  constructor(json) {
    this.documents = json.documents.map(({ name, text }) => ({ name, lines: text.replace(/\n$/, "").split("\n") }));
    this.rules = json.rules.map(({ why, places }) => {
      return { why, places: places.map(([document, key, first, last]) => ({ document, key, first, last })) };
    });
  }

  /** Rules with a place that holds this line, counted from 1. */
  rulesAt(document, line) {
    const holds = (place) => place.document === document && place.first <= line && line <= place.last;
    return this.rules.flatMap((rule, index) => (rule.places.some(holds) ? [index] : []));
  }
}

/** `layer.forward: %31 matmul_sum` in parts; `value` is null where the label names none. */
function parseLabel(text) {
  const match = /^(.*?): %(\d+) (.*)$/.exec(text);
  if (match) return { text, func: match[1], value: Number(match[2]), ops: match[3] };
  const [func, ops] = text.includes(": ") ? text.split(": ") : ["", text];
  return { text, func, value: null, ops };
}

class Program {
  constructor(report, json) {
    this.report = report;
    Object.assign(this, { name: json.name, kind: json.kind, batch: json.batch, seq: json.seq });
    Object.assign(this, { state: json.state, activations: json.activations, scale: json.scale });
    const port = ([name, storage, shape, offset]) => ({ name, storage, shape, offset });
    this.inputs = json.inputs.map(port);
    this.outputs = json.outputs.map(port);
    const labels = json.labels.map(parseLabel);
    this.launches = json.launches.map(([kernel, tasks, label, module, reason, args], index) => {
      const rules = json.reasons[reason];
      return { index, kernel: report.kernels[kernel], tasks, label: labels[label], module: json.modules[module], rules, args };
    });
    this.buffers = json.buffers.map(([label, module, offset, bytes, first, last], index) => {
      return { index, label: labels[label], module: json.modules[module], offset, bytes, first, last, touches: [] };
    });
    this.phases = json.phases;
    this.graphs = new Map();
    this.spans = json.spans;
    this.clocks = this.makeClocks();
    this.findTouches();
    this.measureLive();
    this.linkCalls();
  }

  /** By name: where every launch begins and ends on the x axis. */
  makeClocks() {
    const count = this.launches.length;
    const row = (width) => {
      const clock = { begin: new Float64Array(count), end: new Float64Array(count), total: 0 };
      this.launches.forEach((launch, index) => {
        clock.begin[index] = clock.total;
        clock.total += width(launch);
        clock.end[index] = clock.total;
      });
      return clock;
    };
    const clocks = { launches: row(() => 1) };
    const forecast = row((launch) => this.forecast(launch));
    if (forecast.total > 0) clocks.forecast = forecast;
    if (this.spans) clocks.measured = this.measuredClock();
    return clocks;
  }

  /** From the first thread's begin to the last one's end; a launch in which no thread worked has no width. */
  measuredClock() {
    const count = this.launches.length;
    const clock = { begin: new Float64Array(count).fill(Infinity), end: new Float64Array(count), total: 0 };
    for (const [launch, , begin, end] of this.spans) {
      clock.begin[launch] = Math.min(clock.begin[launch], begin * 1e-9);
      clock.end[launch] = Math.max(clock.end[launch], end * 1e-9);
    }
    for (let index = 0; index < count; index += 1) {
      if (clock.begin[index] === Infinity) clock.begin[index] = clock.end[index] = clock.total;
      clock.total = Math.max(clock.total, clock.end[index]);
    }
    return clock;
  }

  /** Seconds that a launch should take: its share of the program's; 0 where there are no rates. */
  forecast(launch) {
    return launch.kernel.seconds * this.scale;
  }

  /** Seconds of a launch: measured where they were, else forecast. */
  seconds(launch) {
    const measured = this.clocks.measured;
    return measured ? measured.end[launch.index] - measured.begin[launch.index] : this.forecast(launch);
  }

  totalSeconds(launches = this.launches) {
    return launches.reduce((sum, launch) => sum + this.seconds(launch), 0);
  }

  /** Finds, for every operand in the arena, the buffer that lives there: `launch.buffers[i]` is its index or -1. */
  findTouches() {
    const starts = this.launches.map(() => []);
    for (const buffer of this.buffers) starts[Math.min(buffer.first, this.launches.length - 1)]?.push(buffer);
    let alive = [];
    for (const launch of this.launches) {
      const begun = starts[launch.index];
      if (begun.length > 0) {
        alive = alive.filter((buffer) => buffer.last >= launch.index).concat(begun).sort((a, b) => a.offset - b.offset);
      }
      launch.buffers = launch.args.map((arg) => (typeof arg === "number" ? this.touch(alive, arg, launch) : -1));
    }
  }

  touch(alive, offset, launch) {
    let at = lastBefore(alive, offset);
    while (at >= 0 && alive[at].last < launch.index) at -= 1;
    const buffer = alive[at];
    if (!buffer || offset >= buffer.offset + Math.max(buffer.bytes, 1)) return -1;
    if (buffer.touches.at(-1) !== launch.index) buffer.touches.push(launch.index);
    return buffer.index;
  }

  /** Bytes of all buffers alive during every launch, and where that is most. */
  measureLive() {
    const change = new Float64Array(this.launches.length + 2);
    for (const buffer of this.buffers) {
      change[buffer.first] += buffer.bytes;
      change[buffer.last + 1] -= buffer.bytes;
    }
    let sum = 0;
    this.live = new Float64Array(this.launches.length);
    this.peak = 0;
    for (let index = 0; index < this.live.length; index += 1) {
      sum += change[index];
      this.live[index] = sum;
      if (sum > this.live[this.peak]) this.peak = index;
    }
  }

  alive(launch) {
    return this.buffers.filter((buffer) => buffer.first <= launch && launch <= buffer.last);
  }

  /** The graph after a phase, read when it is first asked for; without a name, the last phase, which labels speak of. */
  graph(name) {
    const phase = this.phases.find((phase) => phase.name === name) ?? this.phases.at(-1);
    if (!phase) return null;
    if (!this.graphs.has(phase.name)) this.graphs.set(phase.name, new Graph(phase.name, phase.text));
    return this.graphs.get(phase.name);
  }

  /**
   * `launch.call`: the line of the call that a launch comes from. Calls follow each other, so the n-th run of launches of a
   * function is its n-th call; where the numbers differ (a call without launches), no launch of it is linked.
   */
  linkCalls() {
    const graph = this.graph();
    const runs = new Map();
    let before = null;
    for (const launch of this.launches) {
      const { func, value } = launch.label;
      if (before === null || before.func !== func || value < before.value) {
        runs.set(func, [...(runs.get(func) ?? []), []]);
      }
      runs.get(func).at(-1).push(launch);
      before = launch.label;
    }
    for (const [func, list] of runs) {
      const calls = graph?.calls.filter((call) => call.callee === func) ?? [];
      if (calls.length !== list.length) continue;
      list.forEach((run, index) => run.forEach((launch) => (launch.call = calls[index].line)));
    }
  }

  /** Lines of the last phase's graph that a launch stands for. */
  linesOf(launch) {
    launch.label.lines ??= this.graph()?.linesOf(launch.label) ?? [];
    return launch.label.lines;
  }

  /** What an operand is: `{text, detail, target}`; `target` is a selection. */
  operand(launch, index) {
    const arg = launch.args[index];
    const { weights, params, state } = this.report;
    if (typeof arg !== "number") {
      const [tensor, offset] = arg;
      if (tensor < 0) return { text: "constant", detail: formatHex(offset) };
      const weight = weights[tensor];
      const detail = `${weight.storage} [${weight.shape}], ${formatBytes(weight.bytes)}${offset ? ` + ${formatHex(offset)}` : ""}`;
      return { text: weight.name, detail, target: { weight: tensor } };
    }
    const buffer = this.buffers[launch.buffers[index]];
    if (buffer) {
      const inside = arg - buffer.offset;
      const detail = `${formatBytes(buffer.bytes)} at ${formatHex(buffer.offset)}${inside ? ` + ${formatHex(inside)}` : ""}`;
      return { text: buffer.label.text, detail, target: { buffer: buffer.index } };
    }
    const region = state[lastBefore(state, arg)];
    if (!region) return { text: "state", detail: formatHex(arg) };
    const role = ROLES[region.role];
    if (this.kind === "update") return { text: `every ${role}`, detail: `from ${formatHex(arg)}` };
    const param = params[region.param];
    const detail = `${role}, ${formatBytes(region.bytes)} at ${formatHex(arg)}`;
    return { text: param.name, detail, target: { param: region.param } };
  }
}
