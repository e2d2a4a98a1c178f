"use strict";

// A list of things that open, with its filter, order, keys and colors.

const $ = (id) => document.getElementById(id);
const charts = new Set();
const shown = { rows: [], kind: null, words: [], order: null, first: -1 };

/** One row of the list. What is under it is made when it is first opened; its name is its address in the page. */
function listed(thing, rank, { cells, kind, name, words, detail }) {
  const summary = el("summary", {}, ...cells);
  const details = el("details", {}, summary);
  const link = new URL(`#${name}`, location.href).hash;
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector(".detail")) details.append(detail(thing));
    if (details.open && window === top) history.replaceState(null, "", link);
  });
  return { thing, rank, kind, link, details, summary, item: el("li", {}, details), words: words.join(" ").toLowerCase() };
}

/** Show rows in the first of the orders: each has a name, what it sorts by, and whether the smallest (-1) or the largest (1) comes first. */
function begin(rows, orders) {
  shown.rows = rows;
  sortBy(orders[0], orders[0].first);
  const counts = Map.groupBy(rows, ({ kind }) => kind);
  const kinds = [...counts].map(([kind, { length }]) => ({ value: kind, content: [kind, el("b", {}, String(length))] }));
  toggles($("outcomes"), [{ value: null, content: ["all", el("b", {}, String(rows.length))] }, ...kinds], {
    isOn: (kind) => shown.kind === kind,
    choose: (kind) => (shown.kind = kind),
  });
  toggles(
    $("order"),
    orders.map((order) => ({ value: order, content: [order.name], className: order.number ? "number" : "" })),
    {
      isOn: (order) => shown.order === order,
      choose: (order) => sortBy(order, shown.order === order ? -shown.first : order.first),
    },
  );
  $("words").addEventListener("input", () => {
    shown.words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    arrange();
  });
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  arrange();
  openLinked();
  addEventListener("hashchange", openLinked);
}

function sortBy(order, first) {
  Object.assign(shown, { order, first });
  $("order").className = first > 0 ? "falling" : "";
}

function arrange() {
  const keep = ({ kind, words }) => (!shown.kind || kind === shown.kind) && shown.words.every((word) => words.includes(word));
  const compare = (one, other) => {
    const [a, b] = [one, other].map(({ thing, rank }) => shown.order.of(thing, rank));
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is unknown comes last
    return a === b ? one.rank - other.rank : (a > b ? -1 : 1) * shown.first;
  };
  const kept = shown.rows.filter(keep).sort(compare);
  $("tests").replaceChildren(...kept.map(({ item }) => item));
  $("shown").textContent = kept.length === shown.rows.length ? "" : `${kept.length} of ${shown.rows.length} tests`;
}

function toggles(host, choices, { isOn, choose }) {
  const buttons = choices.map((choice) => {
    const button = el("button", { type: "button", className: choice.className ?? "" }, ...choice.content);
    button.addEventListener("click", () => {
      choose(choice.value);
      refresh();
      arrange();
    });
    return { button, value: choice.value };
  });
  const refresh = () => buttons.forEach(({ button, value }) => (button.ariaPressed = String(isOn(value))));
  host.append(...buttons.map(({ button }) => button));
  refresh();
}

/** The address may name a row: report.html#tests/test_x.py::test_y. */
function openLinked() {
  const linked = shown.rows.find(({ link }) => link === location.hash);
  if (!linked) return;
  linked.details.open = true;
  linked.summary.focus();
}

// Keys

document.addEventListener("keydown", (event) => {
  const typing = event.target === $("words");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("words").select();
  } else if (event.key === "Escape") {
    escape(event.target);
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const summaries = [...document.querySelectorAll("#tests summary")];
    const at = typing ? -1 : summaries.indexOf(event.target);
    if (at < 0 && !typing) return;
    event.preventDefault();
    summaries[at + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
  }
});

/** From the filter: clear it. From inside a test: close it. */
function escape(target) {
  if (target === $("words")) {
    target.value = "";
    target.dispatchEvent(new Event("input"));
    return;
  }
  const details = target.closest?.("#tests details");
  if (!details) return;
  details.open = false;
  details.querySelector("summary").focus();
}

// Light and dark

const THEMES = { auto: "light dark", light: "light", dark: "dark" };

function applyTheme(name) {
  document.documentElement.style.colorScheme = THEMES[name];
  $("theme").textContent = `Colors: ${name}`;
  $("theme").value = name;
  charts.forEach((plot) => plot.redraw(false));
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  applyTheme(names[(names.indexOf($("theme").value) + 1) % names.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme($("theme").value));
applyTheme("auto");
