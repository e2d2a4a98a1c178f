"use strict";

// One test's memory over time, drawn by uPlot. The numbers come packed: see _packed in html.py.

const DATA = JSON.parse(document.getElementById("record").textContent);

const COLUMNS = [
  { name: "unreclaimable", title: "unreclaimable", color: "--ram", width: 2, filled: true },
  { name: "file", title: "files", color: "--file", width: 1.5 },
  { name: "vram", title: "VRAM", color: "--vram", width: 2, dash: [2, 4] },
];

/** The lines of one chart: what all hold, and each rank's own. */
function columnsOf({ steps, ranks }) {
  const own = ranks.map((rank, at) => ({ name: "rank", title: `rank ${rank}`, color: "--muted", width: 1, dash: [2 + 4 * at, 2] }));
  return [...COLUMNS.slice(0, steps.length - 1 - ranks.length), ...own];
}

const LANE = 18; // px of height for the names of phases

async function unpack(packed) {
  const deflated = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const total = bytes.length / 4;
  const points = total / packed.steps.length;
  return packed.steps.map((step, column) => {
    let whole = 0;
    return Float64Array.from({ length: points }, (_, point) => {
      const at = column * points + point;
      whole += bytes[at] | (bytes[at + total] << 8) | (bytes[at + 2 * total] << 16) | (bytes[at + 3 * total] << 24);
      return whole * step;
    });
  });
}

/** A custom property of the page as the color that it is now, light or dark. */
function colorOf(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** How many phases a phase lies within: a load within setup is on the second lane. */
function depthOf(phase, phases) {
  const end = phase.started_s + phase.seconds;
  const around = (other) =>
    other.seconds > phase.seconds && other.started_s <= phase.started_s + 1e-3 && other.started_s + other.seconds >= end - 1e-3;
  return phases.filter(around).length;
}

const lanesOf = (phases) => 1 + Math.max(-1, ...phases.map((phase) => phase.depth));

/** Budgets that are lines on this chart: those of the whole test that count RAM or VRAM. */
function linesOf(test) {
  return test.budgets.filter((budget) => budget.name === null && ["max_ram", "max_vram"].includes(budget.kind));
}

/** Draw into host; onMove is told of the bytes and of the point under the cursor, or null. */
async function drawChart(host, test, { unit, onMove }) {
  const [seconds, ...columns] = await unpack(test.timeline);
  const bytesOf = DATA.units[unit];
  const phases = test.phases.map((phase) => ({ ...phase, depth: depthOf(phase, test.phases) }));
  const limits = linesOf(test);
  const end = Math.max(seconds.at(-1), ...phases.map((phase) => phase.started_s + phase.seconds), ...test.timeline.marks.map((mark) => mark.seconds));

  // all of the test, also what comes after its last sample; unless zoomed in
  const across = (plot, min, max) => (min === seconds[0] && max === seconds.at(-1) ? [Math.min(0, min), end] : [min, max]);
  const upTo = (plot, min, max) => {
    const near = limits.map((budget) => budget.limit_bytes / bytesOf).filter((limit) => limit < 2.5 * max);
    return [Math.min(0, min ?? 0), Math.max(1.06 * (max ?? 0), ...near.map((limit) => 1.1 * limit), 1e-6)];
  };
  const axis = { stroke: () => colorOf("--muted"), grid: { stroke: () => colorOf("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const plot = new uPlot(
    {
      width: host.clientWidth,
      height: host.clientHeight,
      padding: [lanesOf(phases) * LANE + 6, 14, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      scales: { x: { time: false, range: across }, y: { range: upTo } },
      axes: [
        { ...axis, size: 28, values: (_, splits) => splits.map((split) => `${+split.toFixed(4)} s`) },
        { ...axis, size: 76, values: (_, splits) => splits.map((split) => `${+split.toFixed(4)} ${unit}`) },
      ],
      series: [{}, ...columnsOf(test.timeline).map(seriesOf)],
      hooks: {
        drawClear: [(plot) => drawPhases(plot, phases)],
        draw: [(plot) => drawMarks(plot, test.timeline.marks), (plot) => drawLimits(plot, limits, unit)],
        setCursor: [(plot) => onMove({ seconds, columns }, plot.cursor.idx ?? null)],
      },
    },
    [seconds, ...columns.map((column) => column.map((bytes) => bytes / bytesOf))],
    host,
  );
  new ResizeObserver(() => host.clientWidth && plot.setSize({ width: host.clientWidth, height: host.clientHeight })).observe(host);
  return plot;
}

function seriesOf({ name, color, width, dash, filled }) {
  const stroke = () => colorOf(color);
  const fill = filled && (() => colorOf(`${color}-soft`));
  return { label: name, stroke, fill, width, dash, points: { show: false } };
}

/** Draw in CSS pixels, and never outside of what is given. */
function onCanvas(plot, draw) {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.scale(ratio, ratio);
  ctx.font = "12px system-ui";
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  draw(ctx, { left: bbox.left / ratio, top: bbox.top / ratio, width: bbox.width / ratio, height: bbox.height / ratio });
  ctx.restore();
}

const xOf = (plot, area, seconds) => area.left + Math.min(area.width, Math.max(0, plot.valToPos(seconds, "x")));

/** Every other phase is shaded; its name stands above, where it fits. */
function drawPhases(plot, phases) {
  onCanvas(plot, (ctx, area) => {
    const outer = phases.filter((phase) => phase.depth === 0);
    phases.forEach((phase) => {
      const from = xOf(plot, area, phase.started_s);
      const width = xOf(plot, area, phase.started_s + phase.seconds) - from;
      const lane = area.top - (lanesOf(phases) - phase.depth) * LANE;
      ctx.fillStyle = colorOf("--shade");
      if (outer.indexOf(phase) % 2 === 0) ctx.fillRect(from, area.top, width, area.height);
      if (width < 1) return;
      ctx.fillRect(from, lane, Math.max(1, width - 1), LANE - 2);
      if (ctx.measureText(phase.name).width + 8 > width) return;
      ctx.fillStyle = colorOf("--muted");
      ctx.fillText(phase.name, from + 4, lane + LANE / 2 - 0.5);
    });
  });
}

/** Where a shard begins: a dotted line. A breach or a death: a line, a flag, and when it was. */
function drawMarks(plot, marks) {
  onCanvas(plot, (ctx, area) => {
    const inView = marks.filter(({ seconds }) => seconds >= plot.scales.x.min && seconds <= plot.scales.x.max);
    for (const { seconds } of inView.filter((mark) => mark.kind === "shard")) {
      const x = xOf(plot, area, seconds);
      stroke(ctx, "--muted", 1, [1, 4], [x, area.top], [x, area.top + area.height]);
    }
    inView.filter((mark) => mark.kind !== "shard").forEach(({ seconds, kind }, row) => {
      const x = xOf(plot, area, seconds);
      const text = `${kind} at ${seconds.toFixed(2)} s`;
      const width = ctx.measureText(text).width + 12;
      const left = x + width > area.left + area.width ? x - width : x;
      const y = area.top + 4 + row * (LANE + 4);
      stroke(ctx, "--bad", 2, [], [x, area.top], [x, area.top + area.height]);
      ctx.fillStyle = colorOf("--bad");
      ctx.fillRect(left, y, width, LANE);
      ctx.fillStyle = colorOf("--panel");
      ctx.fillText(text, left + 6, y + LANE / 2 + 0.5);
    });
  });
}

/** A budget as a dashed line with its name; one far above says so instead of flattening the curves. */
function drawLimits(plot, limits, unit) {
  onCanvas(plot, (ctx, area) => {
    let above = 0;
    for (const { kind, limit_bytes, count } of limits) {
      const value = limit_bytes / DATA.units[unit];
      const text = `${kind} ${formatSize(limit_bytes, unit)}${count === "unreclaimable" ? "" : ` ${count}`}`;
      const outside = value > plot.scales.y.max;
      const y = outside ? area.top + 12 + LANE * above++ : area.top + plot.valToPos(value, "y");
      if (!outside) stroke(ctx, "--ink", 1.5, [7, 5], [area.left, y], [area.left + area.width, y]);
      ctx.lineWidth = 3;
      ctx.strokeStyle = colorOf("--panel");
      ctx.fillStyle = colorOf("--ink");
      const place = [outside ? `${text}, above this chart` : text, area.left + 8, outside ? y : y - 9];
      ctx.strokeText(...place);
      ctx.fillText(...place);
    }
  });
}

function stroke(ctx, color, width, dash, from, to) {
  ctx.strokeStyle = colorOf(color);
  ctx.lineWidth = width;
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
  ctx.setLineDash([]);
}
