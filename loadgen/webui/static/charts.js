// Three pictures over one time axis: latency on a log scale, throughput, and who led when.
"use strict";

const Charts = (() => {
  const LEFT = 86, RIGHT = 12, TOP = 8, BOTTOM = 20, ROW = 26;
  const KINDS = {"no leader": "none", "no answer": "silent"};

  function element(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // To three digits that count.
  function ms(value) {
    if (value === null || value === undefined) return "-";
    const [size, unit] = value < 1000 ? [value, "ms"] : [value / 1000, "s"];
    return `${size.toFixed(size < 1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0)} ${unit}`;
  }

  function axis(svg, height, from, to) {
    const width = svg.clientWidth, x = at => LEFT + (at - from) / (to - from) * (width - LEFT - RIGHT);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const step = width < 600 ? 30 : 15;
    const drawn = [];
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      drawn.push(element("line", {class: "grid", x1: x(at), x2: x(at), y1: TOP, y2: height - BOTTOM}));
      const clock = new Date(at * 1000).toLocaleTimeString([], {hour12: false});
      // As near to its line as the picture has room for all of it.
      drawn.push(element("text", {x: Math.min(x(at), width - 28), y: height - 5, "text-anchor": "middle"}, clock));
    }
    return {width, x, drawn};
  }

  function gaps(drawn, x, height, none, from, to) {
    for (const [start, end] of none) {
      if (end < from) continue;
      const left = x(Math.max(start, from));
      drawn.push(element("rect", {
        class: "gap", x: left, y: TOP, width: Math.max(1, x(Math.min(end, to)) - left), height: height - TOP - BOTTOM,
      }));
    }
  }

  // A line for what follows second by second, a dot for what stands alone.
  function lines(drawn, points, name, x, y) {
    let path = "", last = null;
    points.forEach(([at, value], index) => {
      if (value === null) { last = null; return; }
      const joined = last !== null && at - last <= 1;
      const next = points[index + 1];
      if (!joined && (!next || next[1] === null || next[0] - at > 1)) {
        drawn.push(element("circle", {class: `dot ${name}`, cx: x(at + .5), cy: y(value), r: 2.5}));
      }
      path += `${joined ? "L" : "M"}${x(at + .5).toFixed(1)} ${y(value).toFixed(1)}`;
      last = at;
    });
    if (path) drawn.push(element("path", {class: `line ${name}`, d: path}));
  }

  function latency(svg, points, none, from, to) {
    const height = svg.clientHeight, {x, width, drawn} = axis(svg, height, from, to);
    const seen = points.flatMap(point => point.slice(3)).filter(value => value !== null && value > 0);
    const low = Math.floor(Math.log10(Math.min(0.1, ...seen))), high = Math.ceil(Math.log10(Math.max(10, ...seen)));
    const y = value => {
      const share = (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
      return height - BOTTOM - share * (height - TOP - BOTTOM);
    };
    for (let power = low; power <= high; power++) {
      const label = power < 3 ? `${+(10 ** power).toPrecision(1)} ms` : `${10 ** (power - 3)} s`;
      drawn.push(element("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(10 ** power), y2: y(10 ** power)}));
      drawn.push(element("text", {x: LEFT - 6, y: y(10 ** power) + 4, "text-anchor": "end"}, label));
    }
    gaps(drawn, x, height, none, from, to);
    [["max", 5], ["p99", 4], ["p50", 3]].forEach(([name, column]) =>
      lines(drawn, points.map(point => [point[0], point[column]]), name, x, y));
    svg.replaceChildren(...drawn);
  }

  function rate(svg, points, none, from, to) {
    const height = svg.clientHeight, {x, width, drawn} = axis(svg, height, from, to);
    const most = Math.max(10, ...points.map(point => Math.max(point[1], point[2]))), unit = 10 ** Math.floor(Math.log10(most));
    const top = Math.ceil(most / unit) * unit;
    const y = value => height - BOTTOM - value / top * (height - TOP - BOTTOM);
    for (const value of [0, top / 2, top]) {
      drawn.push(element("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)}));
      drawn.push(element("text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, `${value.toLocaleString("en")}/s`));
    }
    gaps(drawn, x, height, none, from, to);
    const successes = points.map(point => [point[0], point[1]]);
    if (successes.length > 1) {
      const edge = successes.map(([at, value]) => `L${x(at + .5).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      const last = successes[successes.length - 1][0];
      drawn.push(element("path", {class: "area", d: `M${x(successes[0][0] + .5)} ${y(0)}${edge}L${x(last + .5)} ${y(0)}Z`}));
    }
    lines(drawn, successes, "ops", x, y);
    for (const [at, , failures] of points) {
      if (!failures) continue;
      const high = Math.max(3, y(0) - y(failures));
      drawn.push(element("rect", {class: "fails", x: x(at), y: y(0) - high, width: Math.max(2, x(at + 1) - x(at) - 1), height: high}));
    }
    svg.replaceChildren(...drawn);
  }

  function timeline(svg, rows, none, from, to) {
    const height = TOP + BOTTOM + ROW * Math.max(1, rows.length);
    svg.style.height = `${height}px`;
    const {x, drawn} = axis(svg, height, from, to);
    gaps(drawn, x, height, none, from, to);
    rows.forEach((row, index) => {
      const middle = TOP + ROW * (index + .5);
      const name = row.name.length > 12 ? `…${row.name.slice(-11)}` : row.name;
      drawn.push(element("text", {x: LEFT - 6, y: middle + 4, "text-anchor": "end"}, name));
      for (const [start, end, kind, term] of row.spans) {
        if (end <= from) continue;
        const left = x(Math.max(start, from)), size = Math.max(1, x(Math.min(end, to)) - left), leads = kind === "leader";
        const high = leads ? 18 : 8;
        const name = leads ? `t${term % 5}` : KINDS[kind] || kind;
        const bar = element("rect", {class: `span ${name}`, x: left, y: middle - high / 2, width: size, height: high, rx: 2});
        bar.append(element("title", {}, term === null ? `${row.name}: ${kind}` : `${row.name}: ${kind}, term ${term}`));
        drawn.push(bar);
        if (leads && size > 48) drawn.push(element("text", {class: "in", x: left + 6, y: middle + 4}, `term ${term}`));
      }
    });
    svg.replaceChildren(...drawn);
  }

  // When nobody led, of the time that was looked at.
  function leaderless(rows) {
    const spans = rows.flatMap(row => row.spans);
    if (!spans.length) return [];
    const leading = spans.filter(span => span[2] === "leader").sort((one, other) => one[0] - other[0]);
    const found = [];
    let until = Math.min(...spans.map(span => span[0]));
    for (const [start, end] of leading) {
      if (start > until) found.push([until, start]);
      until = Math.max(until, end);
    }
    const last = Math.max(...spans.map(span => span[1]));
    if (last > until) found.push([until, last]);
    return found;
  }

  return {latency, rate, timeline, leaderless, ms};
})();
