// The table of kernels: one row each, sorted by a column, filtered by words.

/** What the launches of every kernel of a program come to, in the order of first launch. */
function kernelRows(program) {
  const rows = new Map();
  for (const launch of program.launches) {
    const row = rows.get(launch.kernel) ?? { kernel: launch.kernel, count: 0, seconds: 0, forecast: 0 };
    row.count += 1;
    row.seconds += program.seconds(launch);
    row.forecast += program.forecast(launch);
    rows.set(launch.kernel, row);
  }
  const total = program.totalSeconds();
  return [...rows.values()].map((row) => {
    const { operations, bytes } = row.kernel;
    const rate = (work) => (row.seconds > 0 ? (work * row.count) / row.seconds : 0);
    const rates = { rate: rate(operations), bytesRate: rate(bytes), intensity: operations / Math.max(bytes, 1) };
    return { ...row, ...rates, each: row.seconds / row.count, share: total > 0 ? row.seconds / total : 0 };
  });
}

/** `measured` columns are there where a run was measured. */
const COLUMNS = [
  { key: "symbol", name: "kernel", text: true, value: (row) => row.kernel.symbol, show: (row) => row.kernel.short },
  { key: "family", name: "family", text: true, value: (row) => row.kernel.family, show: (row) => row.kernel.family },
  { key: "count", name: "launches", value: (row) => row.count, show: (row) => formatCount(row.count) },
  { key: "seconds", name: "time", value: (row) => row.seconds, show: (row) => formatSeconds(row.seconds) },
  { key: "share", name: "share", value: (row) => row.share, show: (row) => `${(100 * row.share).toFixed(2)} %` },
  { key: "each", name: "each", value: (row) => row.each, show: (row) => formatSeconds(row.each) },
  { key: "ratio", name: "of forecast", measured: true, value: (row) => row.seconds / row.forecast, show: (row) => formatRatio(row.seconds, row.forecast) },
  { key: "operations", name: "operations", value: (row) => row.kernel.operations, show: (row) => formatSi(row.kernel.operations, "op") },
  { key: "bytes", name: "bytes", value: (row) => row.kernel.bytes, show: (row) => formatBytes(row.kernel.bytes) },
  { key: "intensity", name: "op/B", value: (row) => row.intensity, show: (row) => formatDigits(row.intensity) },
  { key: "rate", name: "op/s", value: (row) => row.rate, show: (row) => formatSi(row.rate, "op/s") },
  { key: "bytesRate", name: "B/s", value: (row) => row.bytesRate, show: (row) => formatSi(row.bytesRate, "B/s") },
];

class KernelTable {
  constructor(table, filter, selection) {
    Object.assign(this, { table, filter, selection });
    filter.addEventListener("input", () => selection.set({ filter: filter.value || null }));
  }

  /** The columns of this program, and the one to sort by; `-` before its key turns the order round. */
  order() {
    const columns = COLUMNS.filter((column) => !column.measured || this.selection.program.spans);
    const wanted = this.selection.get("sort") ?? "-seconds";
    const column = columns.find((column) => column.key === wanted.replace(/^-/, "")) ?? columns[3];
    return { columns, column, down: wanted.startsWith("-") };
  }

  show() {
    const { columns, column, down } = this.order();
    const filter = this.selection.get("filter") ?? "";
    if (this.filter.value !== filter) this.filter.value = filter;
    const words = filter.toLowerCase().split(/\s+/);
    const matches = (row) => words.every((word) => `${row.kernel.symbol} ${row.kernel.family}`.toLowerCase().includes(word));
    const all = kernelRows(this.selection.program);
    const rows = all.filter(matches).sort((a, b) => (down ? -1 : 1) * compare(column.value(a), column.value(b)));
    const head = element("thead", {}, element("tr", {}, ...columns.map((it) => this.header(it, column, down))));
    this.table.replaceChildren(head, element("tbody", {}, ...rows.map((row) => this.row(row, columns))));
    const seconds = rows.reduce((sum, row) => sum + row.seconds, 0);
    const share = formatPercent(seconds, this.selection.program.totalSeconds());
    byId("kernel-facts").textContent = `${rows.length} of ${all.length} kernels, ${formatSeconds(seconds)}, ${share} of the time`;
  }

  header(column, sorted, down) {
    const order = column !== sorted ? "none" : down ? "descending" : "ascending";
    // The first click on a column of numbers shows the largest first.
    const next = column === sorted ? !down : !column.text;
    const sort = () => this.selection.set({ sort: `${next ? "-" : ""}${column.key}` });
    const mark = order === "none" ? "" : down ? " ↓" : " ↑";
    const button = element("button", { onclick: sort, "data-sort": column.key }, column.name + mark);
    return element("th", { class: column.text ? "" : "number", "aria-sort": order }, button);
  }

  row(row, columns) {
    const { selection } = this;
    const chosen = selection.launches?.some((launch) => launch.kernel === row.kernel);
    const cells = columns.map((column) => {
      if (column.key === "symbol") return element("td", {}, this.link(row));
      if (column.key === "family") return element("td", {}, swatch(row.kernel.family), column.show(row));
      if (column.key === "share") return element("td", { class: "number share", style: `--share: ${(100 * row.share).toFixed(2)}%` }, column.show(row));
      return element("td", { class: "number" }, column.show(row));
    });
    return element("tr", { class: chosen ? "chosen" : "" }, ...cells);
  }

  link(row) {
    const { symbol, short } = row.kernel;
    return element("a", { href: this.selection.link({ kernel: symbol }), title: symbol }, short);
  }
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b, "en") : a - b;
}

/** A square of a family's colour. */
function swatch(family) {
  return element("span", { class: "swatch", style: `background: ${familyColour(family)}` });
}
