"use strict";

// The page of many reports: a row for each test, with its trend.

const STATES = { grew: "↑", shrank: "↓", "came back": "↕", held: "–" };
const LINES = DATA.lines.map(withPoints);
const SEVERAL_MACHINES = Object.keys(DATA.machines).length > 1;
const ORDERS = [
  { name: "worst first", of: (line, rank) => rank, first: -1 },
  { name: "test", of: (line) => line.nodeid, first: -1 },
  { name: "first", of: (line) => line.sizes[0], first: 1, number: true },
  { name: "last", of: (line) => line.sizes.at(-1), first: 1, number: true },
  { name: "change", of: (line) => line.sizes.at(-1) - line.sizes[0], first: 1, number: true },
  { name: "where it changed", of: (line) => line.steps.at(-1)?.place, first: 1 },
];

function listedLine(line, rank) {
  const [file, ...names] = line.nodeid.split("::");
  const about = [line.measure === "unreclaimable" ? null : line.measure, SEVERAL_MACHINES ? line.machine : null].filter(Boolean);
  const [first, last] = [line.sizes[0], line.sizes.at(-1)];
  const number = (value, caption) => el("span", { className: "number" }, value, el("small", { className: "caption" }, ` ${caption}`));
  return listed(line, rank, {
    cells: [
      el("span", { className: `outcome ${line.state === "grew" ? "bad" : "passed"}`, "data-sign": STATES[line.state] }, line.state),
      el("span", { className: "name" }, names.length ? el("small", {}, file) : null, names.join("::") || file, about.length ? el("small", {}, about.join(", ")) : null),
      number(formatSize(first, DATA.unit), "first"),
      number(formatSize(last, DATA.unit), "last"),
      el("span", { className: `number seconds ${line.state === "grew" ? "bad" : ""}` }, shareOfChange(first, last)),
      el("span", { className: "where" }, spark(line), el("small", {}, whereIn(line))),
    ],
    kind: line.state,
    name: [line.nodeid, ...about].join(" "),
    words: [line.nodeid, line.measure, line.machine, line.state, ...line.steps.map(({ report }) => report)],
    detail: trendDetail,
  });
}

function whereIn({ steps }) {
  const told = steps.map(({ report, bytes, left }) => `${report} ${signed(bytes - left)}`);
  return told.length > 2 ? `${told.length} times, last ${told.at(-1)}` : told.join(", ");
}

/** The trend as one small line, colored where a level was left. */
function spark(line) {
  const { low, high } = heightOf(line);
  const wide = line.reports.length;
  const y = (bytes) => (1 - (bytes - low) / (high - low)).toFixed(3);
  const at = ({ place, bytes }) => `${place + 0.5},${y(bytes)}`;
  const svg = shape("svg", { class: "spark", viewBox: `0 0 ${wide} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const [{ place: start }] = line.points;
  svg.append(
    shape("path", { d: `M${start},${y(line.sizes[0])}H${start + 0.5}L${line.points.map(at).join("L")}h0.5` }),
    ...line.points.flatMap((point, number) => (point.left === null ? [] : [shape("path", { class: point.bytes > point.left ? "bad" : "", d: `M${at(line.points[number - 1])}L${at(point)}` })])),
  );
  return svg;
}

begin(LINES.map(listedLine), ORDERS);
