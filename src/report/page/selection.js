// What is shown and selected. All of it stands in the address's fragment, so that a link brings back a view.

/** Keys of the fragment of which at most one is there: what is selected. */
const SUBJECTS = ["launch", "kernel", "module", "buffer", "param", "weight", "line", "recipe", "peak", "family"];

class Selection {
  constructor(report) {
    this.report = report;
    this.listeners = [];
    addEventListener("hashchange", () => this.read());
    this.read();
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  read() {
    if (this.fragment === location.hash) return;
    this.fragment = location.hash;
    this.values = new URLSearchParams(location.hash.slice(1));
    this.program = this.report.program(this.values.get("program")) ?? this.report.programs[0];
    const clocks = this.program.clocks;
    const wanted = this.values.get("clock");
    this.clockName = Object.hasOwn(clocks, wanted ?? "") ? wanted : ["measured", "forecast", "launches"].find((name) => name in clocks);
    this.clock = clocks[this.clockName];
    const view = this.values.get("view");
    this.view = ["plan", "kernels", "source"].includes(view) ? view : "plan";
    this.subject = SUBJECTS.find((key) => this.values.has(key)) ?? null;
    this.value = this.subject === null ? null : this.values.get(this.subject);
    this.launches = this.selectLaunches();
    this.mask = this.launches && new Uint8Array(this.program.launches.length);
    this.launches?.forEach((launch) => (this.mask[launch.index] = 1));
    this.listeners.forEach((listener) => listener(this));
  }

  get(key) {
    return this.values.get(key);
  }

  /** The fragment with these changes; a subject replaces the one before, null removes a key. */
  link(changes) {
    const values = new URLSearchParams(this.values);
    if (Object.keys(changes).some((key) => SUBJECTS.includes(key) || key === "program")) {
      SUBJECTS.forEach((key) => values.delete(key));
    }
    for (const [key, value] of Object.entries(changes)) {
      if (value === null) values.delete(key);
      else values.set(key, value);
    }
    return `#${values}`;
  }

  /** At once, since the event comes later than the next key may. */
  set(changes) {
    location.hash = this.link(changes);
    this.read();
  }

  clear() {
    this.set(Object.fromEntries(SUBJECTS.map((key) => [key, null])));
  }

  /** The selected launch, where it is one. */
  get launch() {
    return this.subject === "launch" ? this.program.launches[Number(this.value)] : undefined;
  }

  get buffer() {
    return this.subject === "buffer" ? this.program.buffers[Number(this.value)] : undefined;
  }

  /** Launches that belong to what is selected; null where nothing is. */
  selectLaunches() {
    const { launches } = this.program;
    const choose = SELECTORS[this.subject];
    return choose ? choose(this, this.value, launches) : null;
  }
}

/** By subject: the launches that belong to a value of it. */
const SELECTORS = {
  launch: (selection, value, launches) => launches.slice(Number(value), Number(value) + 1),
  kernel: (selection, value, launches) => launches.filter((launch) => launch.kernel.symbol === value),
  family: (selection, value, launches) => launches.filter((launch) => launch.kernel.family === value),
  module: (selection, value, launches) => launches.filter((launch) => isWithin(launch.module, value)),
  buffer: (selection, value, launches) => (selection.buffer?.touches ?? []).map((index) => launches[index]),
  peak: (selection, value, launches) => launches.slice(selection.program.peak, selection.program.peak + 1),
  line: (selection, value, launches) => {
    const line = Number(value) - 1;
    return launches.filter((launch) => launch.call === line || selection.program.linesOf(launch).includes(line));
  },
  recipe: (selection, value, launches) => {
    const [document, line] = value.split(":").map(Number);
    const rules = selection.report.recipe.rulesAt(document, line);
    return launches.filter((launch) => launch.rules.some((rule) => rules.includes(rule)));
  },
  weight: (selection, value, launches) => {
    return launches.filter((launch) => launch.args.some((arg) => Array.isArray(arg) && arg[0] === Number(value)));
  },
  param: (selection, value, launches) => {
    const { state } = selection.report;
    const mine = (arg) => typeof arg === "number" && state[lastBefore(state, arg)]?.param === Number(value);
    const touches = (launch) => launch.args.some((arg, index) => launch.buffers[index] < 0 && mine(arg));
    return selection.program.kind === "update" ? launches : launches.filter(touches);
  },
};

/** Whether a dotted path is `module` or below it; the empty one is below nothing but itself. */
function isWithin(path, module) {
  return path === module || (module !== "" && path.startsWith(`${module}.`));
}
