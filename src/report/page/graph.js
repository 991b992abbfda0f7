// The text of the graph after one phase: where functions begin, and which line computes which value.

class Graph {
  /** `text` as `amc show DIR ir` prints it. */
  constructor(name, text) {
    this.name = name;
    this.lines = text.split("\n");
    /** By name: `{name, first, last, values, params}`; `values` has the line of every value, `params` names by value. */
    this.functions = new Map();
    /** Calls in the order of their lines: `{line, callee}`. */
    this.calls = [];
    this.readLines();
  }

  readLines() {
    let current = null;
    let header = false;
    this.lines.forEach((line, index) => {
      const begin = /^func @(.*?)\(/.exec(line);
      if (begin) {
        current = { name: begin[1], first: index, last: index, values: new Map(), params: new Map() };
        this.functions.set(current.name, current);
        header = true;
      }
      if (current === null) return;
      current.last = index;
      if (header) {
        for (const param of line.matchAll(/%(\d+) "((?:[^"\\]|\\.)*)"/g)) {
          current.params.set(Number(param[1]), param[2]);
          current.values.set(Number(param[1]), index);
        }
        header = !line.endsWith("{");
      } else {
        this.readInstruction(current, line, index);
      }
      if (line === "}") current = null;
    });
  }

  readInstruction(func, line, index) {
    const equals = line.indexOf(" = ");
    if (equals < 0) return;
    for (const value of line.slice(0, equals).matchAll(/%(\d+)/g)) func.values.set(Number(value[1]), index);
    const call = /^call @(.*?)\(/.exec(line.slice(equals + 3));
    if (call) this.calls.push({ line: index, callee: call[1], caller: func.name });
  }

  op(line) {
    const text = this.lines[line];
    const equals = text.indexOf(" = ");
    return equals < 0 ? "" : text.slice(equals + 3).split(" ", 1)[0];
  }

  /** Values that the instruction of a line takes. */
  operands(line) {
    const text = this.lines[line];
    const from = text.indexOf(" = ") + 3;
    const until = text.indexOf("{", from);
    return [...text.slice(from, until < 0 ? undefined : until).matchAll(/%(\d+)/g)].map((match) => Number(match[1]));
  }

  /**
   * Lines of the instructions that one launch computes: that of its last value, then, walking back through operands, those
   * of the ops before it in its label (`matmul + scale`).
   */
  linesOf(label) {
    const func = this.functions.get(label.func);
    const last = func?.values.get(label.value);
    if (last === undefined) return [];
    const lines = [last];
    const ops = label.ops.split(" + ");
    for (const op of ops.slice(0, -1).reverse()) {
      const before = this.findOperand(func, lines, op);
      if (before !== undefined) lines.push(before);
    }
    return lines;
  }

  /** The line of an op called `op` whose result one of `lines` takes; a level deeper where an op in between is folded in. */
  findOperand(func, lines, op) {
    const taken = (from) => from.flatMap((line) => this.operands(line)).map((value) => func.values.get(value));
    const inside = (line) => line !== undefined && !lines.includes(line) && this.op(line) !== "";
    const near = taken(lines).filter(inside);
    return near.find((line) => this.op(line) === op) ?? taken(near).filter(inside).find((line) => this.op(line) === op);
  }

  /** The function that a line is in. */
  functionAt(line) {
    return [...this.functions.values()].find((func) => func.first <= line && line <= func.last);
  }

  /** Lines that take a parameter of the module, such as `model.layers.3.self_attn.q_proj`. */
  linesOfModule(func, module) {
    const owner = (name) => name.replace(/^(grad:)?(base_model\.model\.)?/, "").replace(/(\.lora_[AB])?\.[^.]*$/, "");
    const mine = new Set();
    for (const [value, name] of func.params) {
      const path = owner(name);
      if (name.includes(".") && (module === path || module.endsWith(`.${path}`))) mine.add(value);
    }
    const lines = [];
    if (mine.size === 0) return lines;
    for (let line = func.first; line <= func.last; line += 1) {
      if (this.op(line) !== "" && this.op(line) !== "call" && this.operands(line).some((value) => mine.has(value))) {
        lines.push(line);
      }
    }
    return lines;
  }
}
