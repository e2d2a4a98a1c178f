"use strict";

// The list of tests: its rows, filter, order, keys and colours.

const SIGNS = { failed: "✕", error: "✕", passed: "✓", skipped: "–", xfailed: "✕", xpassed: "✓" };
// by what to sort, and whether its smallest or its largest comes first
const ORDERS = [
  { name: "worst first", of: (test, rank) => rank, first: -1 },
  { name: "test", of: (test) => test.nodeid, first: -1 },
  { name: "unreclaimable", of: (test) => test.ram?.peak_bytes, first: 1, number: true },
  { name: "files", of: (test) => test.ram?.peak_file_bytes, first: 1, number: true },
  { name: "budget used", of: (test) => shareOf(test.budgets[test.tightest]), first: 1 },
  { name: "time", of: (test) => test.duration_s, first: 1, number: true },
];

const $ = (id) => document.getElementById(id);

// One row

function row(test, rank) {
  const [file, ...names] = test.nodeid.split("::");
  const ending = test.state.slice(test.outcome.length + 2);
  const number = (value, caption) => el("span", { className: "number" }, value, el("small", { className: "caption" }, ` ${caption}`));
  const summary = el(
    "summary",
    {},
    el(
      "span",
      { className: `outcome ${test.outcome} ${isFailure(test) ? "bad" : ""}`, "data-sign": SIGNS[test.outcome] },
      test.outcome,
      ending ? el("small", { className: "ending" }, ending) : null,
    ),
    el("span", { className: "name" }, names.length ? el("small", {}, file) : null, names.join("::") || file),
    number(test.ram ? formatSize(test.ram.peak_bytes, test.unit) : "", "unreclaimable"),
    number(test.ram ? formatSize(test.ram.peak_file_bytes, test.unit) : "", "files"),
    test.tightest === null ? el("span", { className: "of" }) : bar(test.budgets[test.tightest], test.unit),
    el("span", { className: "number seconds" }, formatSeconds(test.duration_s)),
  );
  const details = el("details", {}, summary);
  const item = el("li", {}, details);
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector(".detail")) details.append(detail(test));
    if (details.open && window === top) history.replaceState(null, "", link);
  });
  const link = new URL(`#${test.nodeid}`, location.href).hash;
  const words = [test.nodeid, test.state, test.model?.source, test.model?.load, test.diagnosis?.id].join(" ").toLowerCase();
  return { test, rank, item, details, summary, link, words };
}

const isFailure = (test) => test.outcome === "failed" || test.outcome === "error";

function bar(budget, unit) {
  const share = shareOf(budget); // undefined for a limit of 0
  const filled = el("i", {});
  filled.style.width = `${(Math.min(share ?? 0, 1.5) / 1.5) * 100}%`;
  return el(
    "span",
    { className: "of" },
    el("span", { className: `bar ${budget.held ? "" : "broken"}`, "aria-hidden": "true" }, filled),
    el("span", { className: `number ${budget.held ? "" : "bad"}` }, share === undefined ? "" : `${(share * 100).toFixed(0)}%`),
    el("small", {}, `of ${budget.name ?? budget.kind} ${formatSize(budget.limit_bytes, unit)}`),
  );
}

// Filter and order

const charts = new Set();
const rows = DATA.tests.map(row);
const shown = { outcome: null, words: [], order: ORDERS[0], first: -1 };

function arrange() {
  const keep = ({ test, words }) => (!shown.outcome || test.outcome === shown.outcome) && shown.words.every((word) => words.includes(word));
  const compare = (one, other) => {
    const [a, b] = [one, other].map(({ test, rank }) => shown.order.of(test, rank));
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is unknown comes last
    return a === b ? one.rank - other.rank : (a > b ? -1 : 1) * shown.first;
  };
  const kept = rows.filter(keep).sort(compare);
  $("tests").replaceChildren(...kept.map(({ item }) => item));
  $("shown").textContent = kept.length === rows.length ? "" : `${kept.length} of ${rows.length} tests`;
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

function begin() {
  $("circumstances").querySelector("dl").append(
    ...DATA.environment.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
  const counts = Map.groupBy(DATA.tests, (test) => test.outcome);
  const outcomes = [...counts].map(([outcome, tests]) => ({ value: outcome, content: [outcome, el("b", {}, String(tests.length))] }));
  toggles($("outcomes"), [{ value: null, content: ["all", el("b", {}, String(rows.length))] }, ...outcomes], {
    isOn: (outcome) => shown.outcome === outcome,
    choose: (outcome) => (shown.outcome = outcome),
  });
  toggles(
    $("order"),
    ORDERS.map((choice) => ({ value: choice, content: [choice.name], className: choice.number ? "number" : "" })),
    {
      isOn: (choice) => shown.order === choice,
      choose: (choice) => {
        shown.first = shown.order === choice ? -shown.first : choice.first;
        shown.order = choice;
        $("order").className = shown.first > 0 ? "falling" : "";
      },
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

/** The address may name a test: report.html#tests/test_x.py::test_y. */
function openLinked() {
  const linked = rows.find(({ link }) => link === location.hash);
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
  $("theme").textContent = `Colours: ${name}`;
  $("theme").value = name;
  charts.forEach((plot) => plot.redraw(false));
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  applyTheme(names[(names.indexOf($("theme").value) + 1) % names.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme($("theme").value));
applyTheme("auto");
begin();
