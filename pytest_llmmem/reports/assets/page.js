"use strict";

// The page of one session: a row for each test.

const SIGNS = { failed: "✕", error: "✕", passed: "✓", skipped: "–", xfailed: "✕", xpassed: "✓" };
const ORDERS = [
  { name: "worst first", of: (test, rank) => rank, first: -1 },
  { name: "test", of: (test) => test.nodeid, first: -1 },
  { name: "unreclaimable", of: (test) => test.ram?.peak_bytes, first: 1, number: true },
  { name: "files", of: (test) => test.ram?.peak_file_bytes, first: 1, number: true },
  { name: "budget used", of: (test) => shareOf(test.budgets[test.tightest]), first: 1 },
  { name: "time", of: (test) => test.duration_s, first: 1, number: true },
];

function listedTest(test, rank) {
  const [file, ...names] = test.nodeid.split("::");
  const ending = test.state.slice(test.outcome.length + 2);
  const number = (value, caption) => el("span", { className: "number" }, value, el("small", { className: "caption" }, ` ${caption}`));
  return listed(test, rank, {
    cells: [
      el(
        "span",
        { className: `outcome ${test.outcome} ${isFailure(test) ? "bad" : ""}`, "data-sign": SIGNS[test.outcome] },
        test.outcome,
        ending ? el("small", { className: "ending" }, ending) : null,
      ),
      el("span", { className: "name" }, names.length ? el("small", {}, file) : null, names.join("::") || file),
      number(test.ram ? formatSize(test.ram.peak_bytes, test.unit) : "", "unreclaimable"),
      number(test.ram ? formatSize(test.ram.peak_file_bytes, test.unit) : "", "files"),
      test.tightest === null ? el("span", { className: "of" }) : bar(test.budgets[test.tightest]),
      el("span", { className: "number seconds" }, formatSeconds(test.duration_s)),
    ],
    kind: test.outcome,
    name: test.nodeid,
    words: [test.nodeid, test.state, test.model?.source, test.model?.load, test.diagnosis?.id],
    detail,
  });
}

const isFailure = (test) => test.outcome === "failed" || test.outcome === "error";

function bar(budget) {
  const share = shareOf(budget); // undefined for a limit of 0
  const filled = el("i", {});
  filled.style.width = `${(Math.min(share ?? 0, 1.5) / 1.5) * 100}%`;
  return el(
    "span",
    { className: "of" },
    el("span", { className: `bar ${budget.held ? "" : "broken"}`, "aria-hidden": "true" }, filled),
    el("span", { className: `number ${budget.held ? "" : "bad"}` }, budget.share_shown),
    el("small", {}, `of ${budget.name ?? budget.kind} ${budget.limit_shown}`),
  );
}

$("circumstances").querySelector("dl").append(
  ...DATA.environment.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
);
begin(DATA.tests.map(listedTest), ORDERS);
$("cells").append(...matrix(DATA.cells));
