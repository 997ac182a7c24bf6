"use strict";
// What a chart shows without this script it shows with it too. It adds a cursor that says the values, zoom over time
// for all charts of a group at once, and lines that can be put out of the way.
const WIDTH = 1000;
// The least that an area is wide on paper, in pixels.
const PAPER = 560;
const charts = [...document.querySelectorAll("figure.chart")].map((figure) => ({
  figure,
  area: figure.querySelector(".area"),
  group: figure.dataset.group,
  data: JSON.parse(figure.querySelector("script").textContent),
}));

const forward = { linear: (v) => v, log: (v) => Math.log10(Math.max(v, 1e-12)), log1p: (v) => Math.log10(1 + Math.max(v, 0)) };
const backward = { linear: (v) => v, log: (v) => 10 ** v, log1p: (v) => 10 ** v - 1 };

/** The part of the axis that is seen: two values on its scale. */
function view(chart) {
  const { low, high, scale } = chart.data.x;
  return chart.view || [forward[scale](low), forward[scale](high)];
}

function share(chart, value) {
  const [low, high] = view(chart);
  return (forward[chart.data.x.scale](value) - low) / (high - low);
}

function valueAt(chart, part) {
  const [low, high] = view(chart);
  return backward[chart.data.x.scale](low + part * (high - low));
}

function text(value, unit) {
  if (value === null || value === undefined) return "no value";
  // Three digits that count, and all those before the point.
  const digits = Math.max(3, Math.floor(Math.log10(Math.abs(value) || 1)) + 1);
  return `${value.toLocaleString("en", { maximumSignificantDigits: digits })}${unit ? " " + unit : ""}`;
}

/** The index of the x that is nearest to a value. */
function nearest(xs, value) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle;
    else high = middle;
  }
  return value - xs[low] <= xs[high] - value ? low : high;
}

function setCursor(group, value) {
  for (const chart of charts.filter((each) => each.group === group)) {
    const part = value === null ? -1 : share(chart, value);
    let line = chart.area.querySelector(".cursor");
    if (!line) {
      line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      line.setAttribute("class", "cursor");
      line.setAttribute("y1", "0");
      line.setAttribute("y2", String(chart.area.height.baseVal.value - 22));
      chart.area.append(line);
    }
    line.setAttribute("visibility", part >= 0 && part <= 1 ? "visible" : "hidden");
    line.setAttribute("x1", `${part * 100}%`);
    line.setAttribute("x2", `${part * 100}%`);
    chart.cursor = value;
    (chart.data.lines || []).forEach(([shared, values], index) => {
      const xs = chart.data.xs[shared];
      const output = chart.figure.querySelector(`output[data-line="${index}"]`);
      output.textContent = value === null || !xs.length ? "" : text(values[nearest(xs, value)], chart.data.unit);
    });
    const where = chart.figure.querySelector("output.at");
    if (where) where.textContent = value === null ? "" : `at ${text(value, chart.data.x.unit)}`;
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= rough - 1e-12);
}

/** Shows a part of the time axis in all charts of a group; null for all of it. */
function zoom(group, low, high) {
  for (const chart of charts.filter((each) => each.group === group)) {
    const all = chart.data.x;
    if (all.scale !== "linear") return;
    chart.view = low === null ? null : [Math.max(low, all.low), Math.min(high, all.high)];
    const [from, to] = view(chart);
    const start = ((from - all.low) / (all.high - all.low)) * WIDTH;
    const width = ((to - from) / (all.high - all.low)) * WIDTH;
    for (const drawing of chart.area.querySelectorAll(".draw")) {
      const height = drawing.viewBox.baseVal.height;
      drawing.setAttribute("viewBox", `${start} 0 ${width} ${height}`);
    }
    for (const placed of chart.area.querySelectorAll("[data-x]")) {
      const part = share(chart, Number(placed.dataset.x));
      placed.setAttribute("x", `${part * 100}%`);
      placed.classList.toggle("off", part < 0 || part > 1);
    }
    drawTicks(chart, from, to);
  }
  setCursor(group, null);
}

function drawTicks(chart, from, to) {
  const group = chart.area.querySelector(".xticks");
  const height = chart.area.height.baseVal.value - 22;
  const step = niceStep((to - from) / 8);
  const made = [];
  const labels = [];
  for (let n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9; n += 1) {
    const part = share(chart, n * step);
    const x = `${part * 100}%`;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: height, class: "grid" })) line.setAttribute(name, value);
    const label = document.createElementNS("http://www.w3.org/2000/svg", "text");
    for (const [name, value] of Object.entries({ x, y: height + 15, class: "xm" })) label.setAttribute(name, value);
    const unit = chart.data.x.unit === "s" ? " s" : "";
    label.textContent = Number((n * step).toFixed(6)).toLocaleString("en") + unit;
    made.push(line, label);
    labels.push([part, label]);
  }
  group.replaceChildren(...made);
  fit(labels, Math.min(PAPER, chart.area.getBoundingClientRect().width));
}

/** Ends a label that would run over the right end where it stands, and takes away one that runs into the next. */
function fit(labels, width) {
  let free = Infinity;
  for (const [part, label] of labels.reverse()) {
    const size = label.getComputedTextLength();
    const past = part * width + size / 2 > width;
    label.classList.toggle("xe", past);
    const end = part * width + (past ? 0 : size / 2);
    if (end > free) label.remove();
    else free = end - size;
  }
}

/** The values that the left and right keys go to: those of the chart's first line, or a hundredth of the axis. */
function step(chart, direction) {
  const [low, high] = [valueAt(chart, 0), valueAt(chart, 1)];
  const now = chart.cursor ?? (direction > 0 ? low : high);
  const xs = chart.data.xs && chart.data.xs[0];
  if (!xs || !xs.length) return Math.min(high, Math.max(low, now + (direction * (high - low)) / 100));
  const at = nearest(xs, now) + (chart.cursor === null || chart.cursor === undefined ? 0 : direction);
  return xs[Math.min(xs.length - 1, Math.max(0, at))];
}

for (const chart of charts) {
  const { area, group } = chart;
  const part = (event) => {
    const box = area.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  let from = null;
  area.addEventListener("pointermove", (event) => setCursor(group, valueAt(chart, part(event))));
  area.addEventListener("pointerleave", () => setCursor(group, null));
  area.addEventListener("pointerdown", (event) => {
    from = event.pointerType === "mouse" ? part(event) : null;
  });
  area.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [low, high] = [from, part(event)].sort((a, b) => a - b);
    from = null;
    if (high - low > 0.01) zoom(group, valueAt(chart, low), valueAt(chart, high));
  });
  area.addEventListener("dblclick", () => zoom(group, null, null));
  area.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (direction) setCursor(group, step(chart, direction));
    else if (event.key === "+" || event.key === "-") {
      const [low, high] = view(chart);
      const centre = chart.cursor ?? (low + high) / 2;
      const half = ((high - low) / 2) * (event.key === "+" ? 0.5 : 2);
      zoom(group, centre - half, centre + half);
    } else if (event.key === "Escape") zoom(group, null, null);
    else return;
    event.preventDefault();
  });
  chart.figure.querySelectorAll("span.key.line").forEach((key, index) => {
    const button = document.createElement("button");
    button.className = key.className.replace(" line", "");
    button.type = "button";
    button.title = "hide or show";
    button.setAttribute("aria-pressed", "true");
    button.append(...key.childNodes);
    key.replaceWith(button);
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      area.querySelectorAll("path.line")[index].classList.toggle("off", !shown);
    });
  });
}

for (const each of document.querySelectorAll(".screen")) each.hidden = false;

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => {
    const source = button.parentElement.querySelector("pre");
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    // A page that was opened from a file may have no clipboard but the selection's.
    const copied = document.execCommand("copy");
    button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
  });
}

// What is wider than the page scrolls: it says so, and the keyboard reaches it.
function hint() {
  for (const box of document.querySelectorAll(".scroll")) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("wide", wide);
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
hint();
addEventListener("resize", hint);
document.addEventListener("toggle", hint, true);
