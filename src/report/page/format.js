// Numbers for people.

const GROUPED = new Intl.NumberFormat("en-US");

function formatCount(number) {
  return GROUPED.format(number);
}

/** Three significant digits, without an exponent. */
function formatDigits(value) {
  if (value === 0) return "0";
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 9));
}

function formatScaled(value, base, units) {
  let index = 0;
  while (Math.abs(value) >= base * 0.9995 && index < units.length - 1) {
    value /= base;
    index += 1;
  }
  return `${formatDigits(value)} ${units[index]}`;
}

function formatSeconds(seconds) {
  if (seconds === 0) return "0 s";
  return seconds >= 1 ? `${formatDigits(seconds)} s` : formatScaled(seconds * 1e9, 1000, ["ns", "µs", "ms", "s"]);
}

function formatBytes(bytes) {
  if (bytes < 1024) return `${Math.round(bytes)} B`;
  return formatScaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

/** `formatSi(1.2e9, "op")` is "1.20 Gop". */
function formatSi(value, unit) {
  return formatScaled(value, 1000, ["", "k", "M", "G", "T", "P"].map((prefix) => prefix + unit)).trim();
}

function formatPercent(part, whole) {
  if (!(whole > 0)) return "–";
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.01 ? "< 0.01 %" : `${percent.toFixed(2)} %`;
}

/** `part` as a multiple of `whole`. */
function formatRatio(part, whole) {
  return whole > 0 ? `${(part / whole).toFixed(2)} ×` : "–";
}

function formatHex(number) {
  return `0x${number.toString(16)}`;
}

/** A kernel's symbol without the hash that makes it unique. */
function shortSymbol(symbol) {
  return symbol.replace(/_[0-9a-f]{8}([0-9a-f]{8})?$/, "");
}

/** `text` cut to `length` characters. */
function shorten(text, length) {
  if (text.length <= length) return text;
  return length < 2 ? "" : `${text.slice(0, length - 1)}…`;
}
