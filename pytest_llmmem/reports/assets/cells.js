"use strict";

// The cells of a merged record: a row for each model, a column for each load in each environment.

const STEP = { share: 0.05, bytes: 16e6 }; // a peak that moved by less has not moved, as in a comparison

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
  const button = el("button", { type: "button", className: bad ? "bad" : "", title: about }, `${sign} ${cell.outcome}`, el("small", {}, ` ${peak}`), ...cellTrend(cell));
  button.addEventListener("click", () => {
    const filter = cell.name.includes(" ") ? cell.name : `${cell.name}:`;
    $("words").value = $("words").value === filter ? "" : filter;
    $("words").dispatchEvent(new Event("input"));
  });
  return button;
}

/** The cell's peak from sweep to sweep, as one small line, and by how much this sweep moved it; nothing without earlier sweeps. */
function cellTrend(cell) {
  const sweeps = [...cell.earlier, { ...cell, sweep: "now" }];
  const points = sweeps.map(({ sweep, peak_bytes: bytes }, place) => ({ sweep, bytes, place })).filter(({ bytes }) => bytes !== null);
  if (!cell.earlier.length || points.length < 2) return [];
  const sizes = points.map(({ bytes }) => bytes);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const margin = Math.max(0.1 * (high - low), 2 * STEP.share * high); // noise must look flat
  const y = (bytes) => (1 - (bytes - low + margin) / (high - low + 2 * margin)).toFixed(3);
  const at = ({ place, bytes }) => `${place},${y(bytes)}`;
  const [before, last] = points.slice(-2);
  const moved = last.bytes - before.bytes;
  const isStep = Math.abs(moved) > STEP.share * before.bytes + STEP.bytes;
  const told = points.map(({ sweep, bytes }) => `${sweep} ${formatSize(bytes)}`).join("\n");
  const svg = shape("svg", { class: "spark", viewBox: `0 0 ${sweeps.length - 1} 1`, preserveAspectRatio: "none", role: "img", "aria-label": `Peak from sweep to sweep: ${told.replaceAll("\n", ", ")}` });
  const title = shape("title", {});
  title.append(told);
  svg.append(title, shape("path", { d: `M${points.map(at).join("L")}` }));
  if (!isStep) return [svg];
  const worse = moved > 0 ? "bad" : "";
  svg.append(shape("path", { class: worse, d: `M${at(before)}L${at(last)}` }));
  return [el("small", { className: worse }, ` ${moved > 0 ? "+" : ""}${Math.round((100 * moved) / before.bytes)}%`), svg];
}
