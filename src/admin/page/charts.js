// Everything drawn: small lines in the table, and with uPlot the curves of an opened route. Legacy is dashed and
// new is solid wherever lines meet, so that colour is never the only sign.

import { svg } from "./dom.js";
import { NONE, clock, millis } from "./format.js";

const WIDTH = 112;
const HEIGHT = 26;

/** A small line for each side, drawn anew only when it changed. */
export function spark(sides) {
  const lines = Object.fromEntries(sides.map((side) => [side, svg("path", { class: `line ${side}` })]));
  const element = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true" }, ...Object.values(lines));
  const drawn = {};
  const draw = (history) => {
    const all = sides.flatMap((side) => history?.[side] ?? []).filter((value) => value !== null);
    const top = Math.max(...all, 0.001) * 1.08;
    for (const side of sides) {
      const values = history?.[side] ?? [];
      const from = WIDTH - 3 - (values.length - 1) * ((WIDTH - 6) / 59);
      let pen = "M";
      let path = "";
      values.forEach((value, index) => {
        if (value === null) { pen = "M"; return; }
        const x = (from + index * ((WIDTH - 6) / 59)).toFixed(1);
        path += `${pen}${x} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1)}`;
        pen = "L";
      });
      if (drawn[side] !== path) lines[side].setAttribute("d", (drawn[side] = path));
    }
  };
  return { element, draw };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axes(x, y) {
  const common = () => ({ stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: `11px ${colour("sans")}` });
  return [{ ...common(), size: 30, ...x }, { ...common(), size: 58, ...y }];
}

/** A plot that fits its host's width, follows the theme, and is made anew only for a new theme or other series. */
function plot(host, height, options) {
  let chart = null;
  let data = null;
  const draw = () => {
    chart?.destroy();
    host.replaceChildren();
    chart = new uPlot({ width: host.clientWidth || 600, height, ...options() }, data, host);
  };
  const width = new ResizeObserver(() => chart && host.clientWidth && chart.setSize({ width: host.clientWidth, height }));
  width.observe(host);
  const repaint = () => data && draw();
  document.addEventListener("theme", repaint);
  return {
    update(next) {
      data = next;
      if (chart) chart.setData(next);
      else draw();
    },
    destroy() {
      width.disconnect();
      document.removeEventListener("theme", repaint);
      chart?.destroy();
    },
  };
}

/** A legend whose markers are drawn as their lines are. Where nothing is pointed at, curves show what is latest. */
const legend = () => ({
  live: true,
  markers: {
    width: (chart, series) => Math.round(chart.series[series].width) + 1,
    dash: (chart, series) => {
      const [length] = chart.series[series].dash ?? [];
      return length === undefined ? "solid" : length < 4 ? "dotted" : "dashed";
    },
  },
});

const line = (side, label, width, dash) => ({
  label, stroke: colour(side), width, dash, points: { show: false, size: 4, fill: colour(side), filter: alone }, spanGaps: false,
  value: (chart, value, series, at) => millis(at == null ? chart.data[series].at(-1) : value),
});

/** Places of values with nothing on either side: they make no line, so that each is drawn as a dot. */
function alone(chart, series) {
  const values = chart.data[series];
  const places = [...values.keys()].filter((at) => values[at] !== null && (values[at - 1] ?? values[at + 1] ?? null) === null);
  return places.length ? places : null;
}

const moment = (seconds) => (seconds == null ? NONE : clock(seconds * 1000));

/** Draws what `marks()` gives: upright lines at `at` of the x axis, each with its name beside it, in rows. */
const marked = (marks) => (chart) => {
  const { ctx, bbox } = chart;
  const px = devicePixelRatio;
  ctx.save();
  ctx.font = `${11 * px}px ${colour("sans")}`;
  for (const { at, name, stroke, dash = [], row = 0 } of marks()) {
    const x = chart.valToPos(at, "x", true);
    if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.setLineDash(dash.map((length) => length * px));
    ctx.lineWidth = px;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const right = x > bbox.left + bbox.width * 0.8;
    ctx.textAlign = right ? "right" : "left";
    ctx.fillText(name, x + (right ? -5 : 5) * px, bbox.top + 12 * (row + 1) * px);
  }
  ctx.restore();
};

/** P50 and P99 of both sides over time, with flips as marks. */
export function curves(host, flips) {
  const marks = () =>
    flips().map(({ when, to }) => ({ at: Date.parse(when) / 1000, name: `→ ${to}`, stroke: colour(to === "new" ? "new" : "legacy") }));
  return plot(host, 230, () => ({
    cursor: { drag: { x: false, y: false } },
    legend: legend(),
    scales: { y: { range: (_, __, max) => [0, (max || 1) * 1.1] } },
    axes: axes({ space: 90, values: (_, splits) => splits.map(moment) }, { values: (_, splits) => splits.map((value) => millis(value)) }),
    series: [
      { value: (chart, seconds, _, at) => moment(at == null ? chart.data[0].at(-1) : seconds) },
      line("legacy", "legacy P50", 1, [2, 3]),
      line("legacy", "legacy P99", 2, [7, 4]),
      line("new", "new P50", 1),
      line("new", "new P99", 2),
    ],
    hooks: { draw: [marked(marks)] },
  }));
}

/** How the durations of both sides are distributed, over each other; `figures()` gives the quantiles to mark. */
export function distributions(host, figures) {
  const quantiles = () =>
    [["legacy", [4, 3]], ["new", []]].flatMap(([side, dash], row) => {
      const { p50_ms: p50, p99_ms: p99 } = figures()[side] ?? {};
      const marks = [{ at: p50, name: `P50 ${side}` }, { at: p99, name: `P99 ${side}` }];
      return marks.filter(({ at }) => at).map((mark) => ({ ...mark, stroke: colour(side), dash, row }));
    });
  const area = (side, dash) => ({
    label: side, stroke: colour(side), fill: `${colour(side)}2e`, width: 1.5, dash, points: { show: false },
    paths: uPlot.paths.stepped({ align: -1 }), value: (_, value) => (value == null ? "" : `${value.toFixed(1)} %`),
  });
  return plot(host, 200, () => ({
    cursor: { drag: { x: false, y: false } },
    legend: legend(),
    scales: { x: { time: false, distr: 3 }, y: { range: (_, __, max) => [0, (max || 1) * 1.25] } },
    axes: axes({ values: (_, splits) => splits.map((value) => (value ? millis(value) : null)) }, { values: (_, splits) => splits.map((value) => `${value} %`) }),
    series: [{ label: "up to", value: (_, value) => (value == null ? "" : millis(value)) }, area("legacy", [5, 3]), area("new")],
    hooks: { draw: [marked(quantiles)] },
  }));
}
