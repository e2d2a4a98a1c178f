"use strict";

// What opens under a test: its sizes from report to report, the level that it kept, and where it left it.

const LONG = 16; // letters of a report's name: of a longer one an axis has the end

/** A line as it came, with its machine's reports, each of its points, these by the place of their report, and its steps. */
function withPoints(line) {
  const reports = DATA.machines[line.machine];
  const points = line.places.map((place, number) => ({
    place,
    report: reports[place],
    bytes: line.sizes[number],
    level: line.levels[number],
    allowed: line.allowed[number],
    left: number && line.levels[number] !== line.levels[number - 1] ? line.levels[number - 1] : null, // the level that it left here
  }));
  const at = new Map(points.map((point) => [point.place, point]));
  return { ...line, reports, points, at, steps: points.filter((point) => point.left !== null) };
}

const signed = (bytes) => `${bytes < 0 ? "" : "+"}${formatSize(bytes, DATA.unit)}`;

function shareOfChange(before, after) {
  const percent = Math.round((100 * (after - before)) / before);
  return before ? `${percent > 0 ? "+" : ""}${percent}%` : "";
}

/** From the lowest to the highest that is drawn; from 0 where that is not far below. */
function heightOf({ points }) {
  const low = Math.min(...points.map(({ bytes, level, allowed }) => Math.min(bytes, level - allowed)));
  const high = Math.max(...points.map(({ bytes, level, allowed }) => Math.max(bytes, level + allowed)));
  return { low: low < 0.3 * high ? 0 : low - 0.1 * (high - low), high: high + 0.1 * (high - low) + 1 };
}

/** The point of each report up to the last one; where there is none, the one before it. */
function withoutGaps({ points, at }) {
  const filled = [];
  for (let place = points[0].place; place <= points.at(-1).place; place += 1) filled.push({ ...(at.get(place) ?? filled.at(-1)), place });
  return filled;
}

function trendDetail(line) {
  return el("div", { className: "detail" }, trendChart(line), el("div", { className: "facts" }, steps(line), facts(line)));
}

function trendChart(line) {
  const label = "Memory from report to report. Left and right arrow keys read it report by report.";
  const host = el("div", { className: "chart", tabIndex: 0, role: "group", "aria-label": label });
  const readout = el("p", { className: "readout", role: "status" }, HINT);
  const [size, level] = [el("b", {}), el("b", {})];
  const onMove = (place) => {
    const point = line.at.get(place);
    size.textContent = point ? formatSize(point.bytes, DATA.unit) : "";
    level.textContent = point ? `${formatSize(point.level, DATA.unit)} ± ${formatSize(point.allowed, DATA.unit)}` : "";
    readout.textContent = place === null ? HINT : `${line.reports[place]} · ${point ? whatHappened(point) : "did not run to its end"}`;
  };
  // the chart takes its size from the page, so it is drawn when it is part of it
  requestAnimationFrame(() => {
    const plot = drawTrend(host, line, onMove);
    charts.add(plot);
    host.addEventListener("keydown", (event) => stepThrough(plot, event));
  });
  const legend = el(
    "div",
    { className: "legend" },
    el("span", {}, el("i", { className: "swatch trend" }), line.measure, size),
    el("span", {}, el("i", { className: "swatch level" }), "level", level),
  );
  return el("section", {}, el("h3", {}, "From report to report"), legend, host, readout);
}

function whatHappened({ bytes, level, left }) {
  if (left !== null) return `${signed(bytes - left)}, a new level`;
  return bytes === level ? "at its level" : `${signed(bytes - level)} from its level`;
}

/** Draw into host; onMove is told of the place of the report under the cursor, or null. */
function drawTrend(host, line, onMove) {
  const unit = DATA.unit ?? formatSize(Math.max(1, ...line.sizes)).split(" ")[1];
  const bytesOf = DATA.units[unit];
  const { low, high } = heightOf(line);
  const places = [...line.reports.keys()];
  const last = places.length - 1;
  const across = (plot, min, max) => (min === 0 && max === last ? [-0.5, last + 0.5] : [min, max]); // unless zoomed in
  const label = (name = "") => (name.length > LONG ? `…${name.slice(1 - LONG)}` : name);
  const longest = Math.max(...line.reports.map((name) => label(name).length));
  const axis = { stroke: () => colorOf("--muted"), ticks: { show: false }, font: "12px system-ui" };
  const plot = new uPlot(
    {
      width: host.clientWidth,
      height: host.clientHeight,
      padding: [LANE + 8, 14, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      scales: { x: { time: false, range: across }, y: { range: [low / bytesOf, high / bytesOf] } },
      axes: [
        { ...axis, size: 28, grid: { show: false }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500], space: 8 * longest + 16, values: (_, splits) => splits.map((split) => label(line.reports[split])) },
        { ...axis, size: 76, grid: { stroke: () => colorOf("--line"), width: 1 }, values: (_, splits) => splits.map((split) => `${+split.toFixed(4)} ${unit}`) },
      ],
      series: [{}, { stroke: () => colorOf("--ram"), width: 2, spanGaps: true, points: { size: 5, fill: () => colorOf("--ram") } }],
      hooks: {
        drawClear: [(plot) => drawLevels(plot, withoutGaps(line), bytesOf)],
        draw: [(plot) => drawSteps(plot, line.steps, bytesOf)],
        setCursor: [(plot) => onMove(plot.cursor.idx ?? null)],
      },
    },
    [places, places.map((place) => (line.at.has(place) ? line.at.get(place).bytes / bytesOf : null))],
    host,
  );
  new ResizeObserver(() => host.clientWidth && plot.setSize({ width: host.clientWidth, height: host.clientHeight })).observe(host);
  return plot;
}

/** The level that is kept at each report, and around it how far from it is none. */
function drawLevels(plot, points, bytesOf) {
  onCanvas(plot, (ctx, area) => {
    const y = (bytes) => area.top + Math.min(area.height, Math.max(0, Math.round(plot.valToPos(bytes / bytesOf, "y"))));
    for (const { place, level, allowed } of points) {
      const [from, to] = [place - 0.5, place + 0.5].map((edge) => Math.round(xOf(plot, area, edge)));
      const top = y(level + allowed);
      ctx.fillStyle = colorOf("--shade");
      ctx.fillRect(from, top, to - from, y(level - allowed) - top);
      ctx.globalAlpha = 0.4;
      ctx.fillStyle = colorOf("--muted");
      ctx.fillRect(from, y(level), to - from, 1);
      ctx.globalAlpha = 1;
    }
  });
}

/** Where a level was left: a line, and above it by how much; where there is no room for all, the largest. */
function drawSteps(plot, steps, bytesOf) {
  onCanvas(plot, (ctx, area) => {
    const flags = [];
    const inView = steps.filter(({ place }) => place >= plot.scales.x.min && place <= plot.scales.x.max);
    for (const { place, bytes, left } of inView.toSorted((one, other) => sizeOf(other) - sizeOf(one))) {
      const color = bytes > left ? "--bad" : "--muted";
      const x = xOf(plot, area, place);
      stroke(ctx, color, 1.5, [2, 3], [x, area.top - 4], [x, area.top + area.height]);
      ctx.fillStyle = colorOf(color);
      ctx.beginPath();
      ctx.arc(x, area.top + plot.valToPos(bytes / bytesOf, "y"), 4.5, 0, 2 * Math.PI);
      ctx.fill();
      const text = signed(bytes - left);
      const width = ctx.measureText(text).width + 12;
      const from = Math.min(x, area.left + area.width - width);
      if (flags.some((flag) => from < flag.to + 4 && flag.from < from + width + 4)) continue;
      flags.push({ from, to: from + width });
      ctx.fillRect(from, area.top - LANE - 4, width, LANE);
      ctx.fillStyle = colorOf("--panel");
      ctx.fillText(text, from + 6, area.top - LANE / 2 - 3.5);
    }
  });
}

const sizeOf = ({ bytes, left }) => Math.abs(bytes - left);

// Tables of numbers

function steps(line) {
  const row = ({ report, bytes, left }) => [el("th", { className: "report" }, report), formatSize(left, DATA.unit), formatSize(bytes, DATA.unit), signed(bytes - left)];
  return block("Where it changed", ["report", "from", "to", "change"], line.steps.map(row), { wide: line.steps.some(({ report }) => report.length > LONG) });
}

function facts(line) {
  const sizes = line.sizes.toSorted((one, other) => one - other);
  return block("Over all reports", [], [
    ["reports", `${line.points.length} of ${line.reports.length}`],
    ["lowest", formatSize(sizes[0], DATA.unit)],
    ["highest", formatSize(sizes.at(-1), DATA.unit)],
    ["machine", el("td", { className: "text" }, line.machine)],
  ]);
}
