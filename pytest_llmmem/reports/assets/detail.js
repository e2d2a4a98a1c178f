"use strict";

// What opens under a test. Text is only ever set as text, never as markup. A part that a test does not have is null.

function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The same for a drawing. */
function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** As format_size in core/sizes.py: three significant digits or so, in unit, or in the decimal unit that fits. */
function formatSize(bytes, unit = null) {
  unit ??= ["TB", "GB", "MB", "kB"].find((name) => Math.abs(bytes) >= 0.9995 * DATA.units[name]) ?? "B";
  const value = bytes / DATA.units[unit];
  const size = Math.abs(value);
  return `${value.toFixed(unit === "B" || size >= 100 ? 0 : size >= 10 ? 1 : 2)} ${unit}`;
}

const formatSeconds = (seconds) => `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
const budgetName = ({ kind, name, rank }) => [kind, name, rank === null ? null : `rank ${rank}`].filter(Boolean).join(" ");
const shareOf = (budget) => (budget?.limit_bytes ? budget.actual_bytes / budget.limit_bytes : undefined);

function detail(test) {
  return el(
    "div",
    { className: "detail" },
    why(test),
    test.timeline ? timeline(test) : null,
    moments(test),
    el("div", { className: "facts" }, peaks(test), budgets(test), ...steps(test), phases(test), devices(test), ranks(test), model(test), trials(test), baseline(test), notes(test)),
  );
}

function why(test) {
  if (!test.reasons.length) return null;
  return el("div", { className: `why ${isFailure(test) ? "" : "mild"}` }, ...test.reasons.map((reason) => el("p", {}, reason)));
}

/** The breach and the death in words, and the one stack that was taken at them. */
function moments(test) {
  const marks = (test.timeline?.marks ?? []).filter((mark) => mark.kind !== "shard");
  if (!marks.length && !test.stack.length) return null;
  return el(
    "section",
    {},
    ...marks.map((mark) => el("p", { className: "bad moment" }, `${mark.kind} at ${mark.seconds.toFixed(2)} s: ${mark.text}`)),
    ...(test.stack.length
      ? [el("h3", {}, test.stack_words), el("pre", { tabIndex: 0 }, test.stack.join("\n"))]
      : []),
  );
}

function timeline(test) {
  const unit = test.unit ?? formatSize(Math.max(1, test.ram?.peak_bytes ?? 0, test.ram?.peak_file_bytes ?? 0)).split(" ")[1];
  const label = "Memory over time. Left and right arrow keys read it point by point.";
  const host = el("div", { className: "chart", tabIndex: 0, role: "group", "aria-label": label });
  const readout = el("p", { className: "readout", role: "status" }, HINT);
  const entries = columnsOf(test.timeline).map(entry);

  const onMove = ({ seconds, columns }, point) => {
    entries.forEach(({ value }, column) => (value.textContent = point === null ? "" : formatSize(columns[column][point], unit)));
    readout.textContent = point === null ? HINT : describe(test, seconds, point);
  };
  // the chart takes its size from the page, so it is drawn when it is part of it
  requestAnimationFrame(async () => {
    try {
      const plot = await drawChart(host, test, { unit, onMove });
      charts.add(plot);
      host.addEventListener("keydown", (event) => stepThrough(plot, event));
      entries.forEach(({ button }, column) => button.addEventListener("click", () => toggleLine(plot, column + 1, button)));
    } catch (error) {
      host.append(el("p", {}, `This browser cannot draw the chart (${error.message}). The numbers are below.`));
    }
  });
  const legend = el("div", { className: "legend" }, ...entries.map(({ button }) => button));
  return el("section", {}, el("h3", {}, "Memory over time"), legend, host, readout);
}

const HINT = matchMedia("(hover: none)").matches ? "" : "Move over the chart to read it, drag to zoom in, double-click to zoom out.";

function entry({ name, title, color, dash }) {
  const swatch = el("i", { className: `swatch ${name}` });
  swatch.style.color = `var(${color})`;
  swatch.style.setProperty("--dash", `${dash?.[0] ?? 0}px`);
  const value = el("b", {});
  return { value, button: el("button", { type: "button", ariaPressed: "true", title: "Show or hide this line" }, swatch, title, value) };
}

function toggleLine(plot, series, button) {
  plot.setSeries(series, { show: !plot.series[series].show });
  button.ariaPressed = String(plot.series[series].show);
}

/** Arrow keys move the chart's cursor to the next point, with Shift to the twentieth. */
function stepThrough(plot, event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const seconds = plot.data[0];
  const from = plot.cursor.idx ?? (step > 0 ? -1 : seconds.length);
  const point = Math.min(seconds.length - 1, Math.max(0, from + step * (event.shiftKey ? 20 : 1)));
  plot.setCursor({ left: plot.valToPos(seconds[point], "x"), top: 0 });
}

/** When a point is, the phases that it lies in, and the last mark before it. */
function describe(test, seconds, point) {
  const now = seconds[point];
  const inside = test.phases.filter((phase) => phase.started_s <= now && now <= phase.started_s + phase.seconds);
  const marks = test.timeline.marks.filter((mark) => mark.seconds <= now);
  const parts = [`${now.toFixed(3)} s`, inside.map((phase) => phase.name).join(", "), marks.at(-1)?.text];
  return parts.filter(Boolean).join(" · ");
}

// Tables of numbers

function block(title, heads, rows, { wide = false } = {}) {
  if (!rows.length) return null;
  const cell = (content, column) => (content instanceof Node ? content : el(column ? "td" : "th", {}, content));
  const head = heads.length ? el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))) : null;
  const line = (cells) => el("tr", {}, ...cells.map(cell));
  const table = el("table", {}, head, el("tbody", {}, ...rows.map(line)));
  return el("section", wide ? { className: "wide" } : {}, el("h3", {}, title), el("div", { className: "scroll" }, table));
}

const sizeIfKnown = (bytes, unit = null) => (bytes === null ? "unknown" : formatSize(bytes, unit));
const withSmall = (content, small, tag = "th") => el(tag, {}, content, el("small", {}, small));

function peaks({ ram, unit, disk_written_bytes, run_peaks_bytes }) {
  const how = ram?.method === "kernel" ? "the kernel’s high-water mark" : `sampled every ${ram?.interval_ms} ms`;
  const measured = ram
    ? [
        ["unreclaimable", `${formatSize(ram.peak_bytes, unit)} ± ${formatSize(ram.error_bytes)}`],
        ["mapped files", formatSize(ram.peak_file_bytes, unit)],
        [withSmall("resident", how), formatSize(ram.peak_resident_bytes, unit)],
        [withSmall("resident, absolute", `with the ${formatSize(ram.baseline_bytes)} from before the test`), formatSize(ram.absolute_peak_bytes)],
      ]
    : [["memory", "unknown: the worker died before the test began"]];
  const runs = run_peaks_bytes.map((bytes, run) => [`unreclaimable, run ${run + 1}`, formatSize(bytes, unit)]);
  return block("Peaks", [], [...measured, ...runs, ["written to disk", sizeIfKnown(disk_written_bytes)]]);
}

function budgets(test) {
  const line = (budget) => [
    withSmall(budgetName(budget), budget.limit),
    budget.limit_shown,
    withSmall(budget.used_shown, budget.count === "device" ? "by the driver" : budget.count, "td"),
    el("td", { className: budget.held ? "" : "bad" }, budget.held ? "held" : "broken"),
  ];
  return block("Budgets", ["", "limit", "used", ""], test.budgets.map(line));
}

function phases(test) {
  const line = (phase) => [phase.name, formatSize(phase.peak_bytes, test.unit), sizeIfKnown(phase.peak_resident_bytes, test.unit), formatSeconds(phase.seconds)];
  return block("Phases, each above its own beginning", ["", "unreclaimable", "resident", "time"], test.phases.map(line));
}

const KINDS = ["parameters", "gradients", "optimizer", "activations", "inputs", "kv_cache", "temporary"];

/** A bar for each phase of each step, all to one scale: what the tensors were there for when they were most. */
function steps(test) {
  return test.steps.map((memory) => {
    const most = Math.max(1, ...memory.phases.map((phase) => phase.peak_bytes));
    const predicted = new Map((memory.predicted?.phases ?? []).map((phase) => [`${phase.phase} ${phase.step}`, phase.peak_bytes]));
    const bar = (phase) => el("div", { className: "stack" }, ...KINDS.filter((kind) => phase.by_kind[kind]).map((kind) => {
      const part = el("i", { className: kind, title: `${kind} ${formatSize(phase.by_kind[kind])}` });
      part.style.width = `${(100 * phase.by_kind[kind]) / most}%`;
      return part;
    }));
    const nameOf = (phase) => `${phase.phase} ${phase.step}`;
    const sizes = [
      ["tensors", (phase) => phase.peak_bytes],
      ["predicted", (phase) => predicted.get(nameOf(phase)) ?? null],
      ["process", (phase) => phase.process_peak_bytes],
    ].filter(([, of]) => memory.phases.some((phase) => of(phase) !== null));
    const line = (phase) => {
      const made = [phase.op, phase.module && `in ${phase.module}`].filter(Boolean).join(" ");
      const known = sizes.map(([, of]) => (of(phase) === null ? "" : formatSize(of(phase))));
      return [withSmall(nameOf(phase), made), el("td", { className: "text" }, bar(phase)), ...known];
    };
    const kinds = KINDS.filter((kind) => memory.largest_by_kind[kind]);
    const legend = kinds.map((kind) => el("span", {}, el("i", { className: `key ${kind}` }), `${kind} ${formatSize(memory.largest_by_kind[kind])}`));
    const by = memory.name === "predicted_step" ? "by the rules of" : "on";
    const table = block(`Tensors of ${memory.name}, ${by} ${memory.device}`, ["", "by kind", ...sizes.map(([head]) => head)], memory.phases.map(line), { wide: true });
    table?.append(el("p", { className: "kinds" }, ...legend));
    const kept = memory.kept.map(({ module, bytes }) => `${module || "outside of modules"} ${formatSize(bytes)}`);
    if (kept.length) table?.append(el("p", { className: "kinds" }, `kept for backward, most: ${kept.join(", ")}`));
    return table;
  });
}

function devices(test) {
  const line = (vram) => [vram.device, formatSize(vram.peak_allocated_bytes), formatSize(vram.peak_reserved_bytes), formatSize(vram.peak_fragmented_bytes), sizeIfKnown(vram.peak_device_bytes)];
  return block("VRAM", ["", "allocated", "reserved", "in pieces", "device"], test.vram.map(line));
}

function ranks(test) {
  const line = (rank) => [
    String(rank.rank),
    formatSize(rank.peak_bytes),
    formatSize(rank.peak_resident_bytes),
    rank.held_bytes === null ? "" : formatSize(rank.held_bytes),
    el("td", { className: "text" }, rank.ending?.kind.replaceAll("_", " ") ?? "", el("small", {}, rank.ending?.error ?? rank.ending?.note ?? "")),
  ];
  return block("Ranks", ["rank", "unreclaimable", "resident", "holds", ""], test.ranks.map(line), { wide: true });
}

function model(test) {
  const it = test.model;
  return it && block("Model", [], [
    ["source", it.source],
    ["load", it.load],
    ["parameters", it.parameters.toLocaleString("en")],
    ["weights", formatSize(it.weights_bytes)],
    ["largest shard", formatSize(it.largest_shard_bytes)],
    ["still mapped after the load", sizeIfKnown(it.mapped_bytes)],
  ]);
}

function trials(test) {
  const line = (trial) => [
    trial.load,
    trial.fits ? "fits" : el("td", { className: "bad" }, trial.ending.replaceAll("_", " ")),
    sizeIfKnown(trial.peak_bytes),
    sizeIfKnown(trial.peak_resident_bytes),
    formatSize(trial.disk_bytes),
    formatSeconds(trial.seconds),
    el("td", { className: "text" }, trial.why, trial.call ? el("code", {}, trial.call) : null),
  ];
  return block("Loads tried, in order", ["load", "", "unreclaimable", "resident", "disk", "time", ""], test.trials.map(line), { wide: true });
}

const baseline = (test) => list("Beside its baseline", test.baseline ? [test.baseline.sentence] : []);
const notes = (test) => list("Notes", test.notes);

function list(title, lines) {
  if (!lines.length) return null;
  return el("section", { className: "wide" }, el("h3", {}, title), el("ul", { className: "notes" }, ...lines.map((line) => el("li", {}, line))));
}
