// Where launches come from: lines of the recipe, modules of the model, lines of the graph. Each leads to its launches.

class Source {
  constructor(selection) {
    this.selection = selection;
    byId("document").addEventListener("change", (event) => selection.set({ document: event.target.value }));
    byId("phase").addEventListener("change", (event) => selection.set({ phase: event.target.value }));
    byId("function").addEventListener("change", (event) => selection.set({ function: event.target.value }));
  }

  show() {
    this.showRecipe();
    this.showModules();
    this.showGraph();
  }

  showRecipe() {
    const { report, program, launches } = this.selection;
    const places = this.chosenPlaces(launches);
    const wanted = Number(this.selection.get("document") ?? places[0]?.document ?? 0);
    const document = report.recipe.documents[wanted] ? wanted : 0;
    fillSelect(byId("document"), report.recipe.documents.map(({ name }, index) => [index, name]), document);
    const used = new Set(program.launches.flatMap((launch) => launch.rules));
    const rows = report.recipe.documents[document].lines.map((text, index) => {
      const line = index + 1;
      const linked = report.recipe.rulesAt(document, line).some((rule) => used.has(rule));
      const lit = places.some((place) => place.document === document && place.first <= line && line <= place.last);
      const chosen = this.selection.subject === "recipe" && this.selection.value === `${document}:${line}`;
      const href = linked ? this.selection.link({ recipe: `${document}:${line}`, document }) : null;
      return codeLine(line, [text], { href, lit: lit || chosen });
    });
    byId("recipe").replaceChildren(...rows);
    scrollToLit(byId("recipe"));
  }

  /** Lines of the recipe that one launch, or all chosen ones have in common, is there for. */
  chosenPlaces(launches) {
    if (!launches?.length || this.selection.subject === "recipe") return [];
    const [first, ...others] = launches.map((launch) => launch.rules);
    const common = first.filter((rule) => others.every((rules) => rules.includes(rule)));
    return common.flatMap((rule) => this.selection.report.recipe.rules[rule].places);
  }

  showModules() {
    const { program, launches } = this.selection;
    const open = new Set((launches?.length === 1 ? modulePath(launches[0].module) : []).map((step) => step.path));
    if (this.selection.subject === "module") modulePath(this.selection.value).forEach((step) => open.add(step.path));
    const tree = moduleTree(program);
    const total = program.totalSeconds();
    byId("modules").replaceChildren(...tree.children.values().map((node) => this.moduleNode(node, total, open)));
    byId("modules").querySelector("summary.lit, a.lit")?.scrollIntoView({ block: "nearest" });
  }

  moduleNode(node, total, open) {
    const { launches } = this.selection;
    const lit = (launches?.length === 1 && launches[0].module === node.path) || (this.selection.subject === "module" && this.selection.value === node.path);
    const link = element(
      "a",
      { href: this.selection.link({ module: node.path }), class: lit ? "lit" : "", "data-module": node.path },
      element("span", {}, node.name),
      element("small", {}, `${formatCount(node.count)} · ${formatPercent(node.seconds, total)}`),
    );
    if (node.children.size === 0) return element("div", { class: "leaf" }, link);
    const children = [...node.children.values()].map((child) => this.moduleNode(child, total, open));
    const expanded = open.has(node.path) || node.path.split(".").length < 2;
    return element("details", { open: expanded ? "" : false }, element("summary", {}, link), ...children);
  }

  showGraph() {
    const { program, launches } = this.selection;
    const graph = program.graph(this.selection.get("phase"));
    if (!graph) {
      byId("graph").replaceChildren(element("p", {}, "The artifact keeps no graph of this program."));
      [byId("phase"), byId("function")].forEach((select) => select.replaceChildren());
      return;
    }
    const final = graph === program.graph();
    fillSelect(byId("phase"), program.phases.map(({ name }) => [name, name]), graph.name);
    const lit = new Set(final && launches ? launches.flatMap((launch) => program.linesOf(launch)) : []);
    if (this.selection.subject === "line" && final) lit.add(Number(this.selection.value) - 1);
    if (final && this.selection.launch?.call !== undefined) lit.add(this.selection.launch.call);
    const func = this.chooseFunction(graph, final, launches);
    fillSelect(byId("function"), [...graph.functions.keys()].map((name) => [name, `@${name}`]), func?.name);
    const module = launches?.length === 1 ? launches[0].module : this.selection.subject === "module" ? this.selection.value : "";
    const near = new Set(func && module ? graph.linesOfModule(func, module) : []);
    byId("graph").replaceChildren(...this.graphRows(graph, func, final, lit, near));
    byId("graph-facts").textContent = final ? "" : "numbers of values differ between phases: launches are linked in the last";
    scrollToLit(byId("graph"));
  }

  /** The function asked for, or the one that holds the first selected launch. */
  chooseFunction(graph, final, launches) {
    const asked = graph.functions.get(this.selection.get("function"));
    const line = this.selection.subject === "line" && final ? graph.functionAt(Number(this.selection.value) - 1) : undefined;
    const holding = launches?.length ? graph.functions.get(launches[0].label.func) : undefined;
    return line ?? (launches?.length ? holding : undefined) ?? asked ?? [...graph.functions.values()][0];
  }

  graphRows(graph, func, final, lit, near) {
    if (!func) return [];
    const linked = final ? this.linkedLines() : new Set();
    const rows = [];
    for (let line = func.first; line <= func.last; line += 1) {
      const href = linked.has(line) ? this.selection.link({ line: line + 1, function: func.name }) : null;
      rows.push(codeLine(line + 1, graphTokens(graph.lines[line]), { href, lit: lit.has(line), near: near.has(line) }));
    }
    return rows;
  }

  /** Lines of the last phase that some launch stands for. */
  linkedLines() {
    const { program } = this.selection;
    program.linked ??= new Set(program.launches.flatMap((launch) => [...program.linesOf(launch), launch.call]));
    return program.linked;
  }
}

/** One numbered line; with `href` its number and text are a link. */
function codeLine(number, content, { href = null, lit = false, near = false }) {
  const label = element("span", { class: "number" }, String(number));
  const text = element("span", { class: "text" }, ...content);
  const kind = `code-line${lit ? " lit" : ""}${near ? " near" : ""}`;
  if (href === null) return element("div", { class: kind, "data-line": number }, label, text);
  return element("a", { class: `${kind} linked`, "data-line": number, href }, label, text);
}

/** A line of the graph with its results and its op set apart. */
function graphTokens(text) {
  const equals = text.indexOf(" = ");
  if (equals < 0) return [text];
  const rest = text.slice(equals + 3);
  const op = rest.split(" ", 1)[0];
  return [element("i", {}, text.slice(0, equals)), " = ", element("b", {}, op), rest.slice(op.length)];
}

function scrollToLit(box) {
  const line = box.querySelector(".lit");
  if (line) box.scrollTop = line.offsetTop - box.offsetTop - box.clientHeight / 3;
}

/** Modules by their dotted names, with launches and seconds of all below. */
function moduleTree(program) {
  const root = { children: new Map() };
  for (const launch of program.launches) {
    const steps = launch.module === "" ? [{ text: "(no module)", path: "" }] : modulePath(launch.module);
    let node = root;
    for (const { text, path } of steps) {
      if (!node.children.has(path)) node.children.set(path, { name: text, path, count: 0, seconds: 0, children: new Map() });
      node = node.children.get(path);
      node.count += 1;
      node.seconds += program.seconds(launch);
    }
  }
  return root;
}
