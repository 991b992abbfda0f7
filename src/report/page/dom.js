// Building the page's elements. Strings become text nodes, never markup.

function byId(id) {
  return document.getElementById(id);
}

/** An element with properties (`class`, `title`, `onclick`, `data-…`) and children; strings among them are text. */
function element(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** The same for an element of SVG. */
function svgElement(tag, properties = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function furnish(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Rows of `term`, `description` as a definition list. */
function definitions(rows) {
  const items = rows.filter((row) => row !== null).flatMap(([term, description]) => [
    element("dt", {}, term),
    element("dd", {}, description),
  ]);
  return element("dl", {}, ...items);
}

/** Fills a `<select>` with `[value, text]` pairs. */
function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}
