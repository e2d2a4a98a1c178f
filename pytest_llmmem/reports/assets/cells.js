"use strict";

// The cells of a merged record: a row for each model, a column for each load in each environment.

function matrix(cells) {
  if (!cells.length) return [];
  const rows = Map.groupBy(cells, (cell) => cell.model ?? cell.name);
  const columns = Map.groupBy(cells, columnOf);
  const head = el("tr", {}, el("th", {}), ...[...columns.keys()].map((name) => el("th", { scope: "col" }, name)));
  const body = [...rows].map(([model, its]) => {
    const byColumn = Map.groupBy(its, columnOf);
    const found = [...columns.keys()].map((name) => el("td", {}, ...(byColumn.get(name) ?? []).map(cellButton)));
    return el("tr", {}, el("th", { scope: "row" }, model), ...found);
  });
  return [el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))];
}

const columnOf = ({ environment, load }) => [environment, load].filter(Boolean).join(" \u00b7 ");

/** Shows the cell's tests; pressed again, all of them. */
function cellButton(cell) {
  const bad = cell.outcome !== "passed";
  const peak = cell.peak_bytes === null ? "" : formatSize(cell.peak_bytes);
  const about = [cell.name, cell.sentence, cell.node && `on ${cell.node}`].filter(Boolean).join("\n");
  const sign = SIGNS[cell.outcome] ?? "?";
  const button = el("button", { type: "button", className: bad ? "bad" : "", title: about }, `${sign} ${cell.outcome}`, el("small", {}, ` ${peak}`));
  button.addEventListener("click", () => {
    const filter = cell.name.includes(" ") ? cell.name : `${cell.name}:`;
    $("words").value = $("words").value === filter ? "" : filter;
    $("words").dispatchEvent(new Event("input"));
  });
  return button;
}
