// One route opened: both sides in figures and curves, and what happened on it.

import { curves, distributions } from "./charts.js";
import { attribute, h, text } from "./dom.js";
import { NONE, ago, clock, count, millis, perSecond, share } from "./format.js";
import { conclude, errors, ratio } from "./verdict.js";

const SIDES = ["legacy", "new"];
const EVERY = 2000;
/** Points of the live curves, one a second. */
const POINTS = 600;

/** Slowest requests shown of each side. */
const SLOWEST = 5;

/** Why a request is not in the curves. */
const APART = { gateway: "by the gateway", unasked: "unasked", retried: "retried", truncated: "broken off", client_gone: "client gone" };

function apart(counts) {
  if (!counts) return NONE;
  const some = Object.entries(counts).filter(([, requests]) => requests > 0);
  return some.map(([why, requests]) => `${count(requests)} ${APART[why] ?? why}`).join(",\n") || "0";
}

const over = (key) => (route) => ratio(route, key);

const FIGURES = [
  ["Requests", "requests", count],
  ["Measured", "measured", count],
  ["Kept apart", "apart", apart],
  ["Requests/s", "qps", perSecond],
  ["P50", "p50_ms", millis, over("p50")],
  ["P90", "p90_ms", millis, over("p90")],
  ["P99", "p99_ms", millis, over("p99")],
  ["P99.9", "p999_ms", millis],
  ["Mean", "mean_ms", millis, over("mean")],
  ["Errors", "error_rate", share, errors],
  ["CPU per request", "cpu_ms_per_request", millis],
];
/** Steps of a distribution as it is drawn, for each tenfold. */
const STEPS = 12;

/** A place for a table that may be wider than the page. */
const wide = (label) => h("div", { class: "wide", role: "region", "aria-label": label });

export class RouteSheet {
  /** `asked()` gives the query of figures, `token()` the token or null, `route(name)` what was heard of a route. */
  constructor({ element, asked, token, route, closed, flipped }) {
    Object.assign(this, { element, asked, token, route, closed, flipped, name: null, live: new Map() });
    element.addEventListener("keydown", (event) => event.key === "Escape" && this.closed());
  }

  /** Remembers a point of every route's curve, so that one that is opened has a past. */
  remember(event, now = Date.now() / 1000) {
    for (const { name, sides } of event.routes) {
      if (!sides.legacy && !sides.new && !this.live.has(name)) continue;
      const points = this.live.get(name) ?? [];
      points.push([now, sides.legacy?.p50_ms ?? null, sides.legacy?.p99_ms ?? null, sides.new?.p50_ms ?? null, sides.new?.p99_ms ?? null]);
      if (points.length > POINTS) points.shift();
      this.live.set(name, points);
    }
  }

  forget() {
    this.live.clear();
  }

  open(name, focus) {
    if (this.name === name) return;
    this.close();
    this.name = name;
    this.element.hidden = false;
    this.element.scrollTop = 0;
    this.build();
    this.show();
    this.load();
    this.timer = setInterval(() => document.hidden || this.load(), EVERY);
    if (focus) this.title.focus();
  }

  close() {
    if (this.name === null) return;
    clearInterval(this.timer);
    this.curves?.destroy();
    this.distributions?.destroy();
    this.curves = this.distributions = this.series = null;
    this.name = null;
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  build() {
    this.title = h("h2", { id: "route-title", tabindex: "-1" }, this.name);
    this.what = h("p", { class: "what" });
    this.serve = h("p", { class: "serving" });
    this.flip = h("button", { type: "button", class: "strong", hidden: true, onclick: () => this.flipped(this.name) });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.figures = h("tbody", {});
    this.reasons = h("ul", { class: "reasons", "aria-label": "Why not enough yet" });
    this.statuses = h("div", { class: "statuses" });
    this.refused = wide("Refused by checks");
    this.slowest = wide("Slowest recent requests");
    this.flips = wide("Flips");
    this.curveHost = h("div", { class: "chart", role: "img", "aria-label": "P50 and P99 of both sides over time" });
    this.distributionHost = h("div", { class: "chart", role: "img", "aria-label": "Distribution of both sides' durations" });
    this.noCurve = h("p", { class: "empty" }, "No requests in this window yet.");
    const head = (name, side) => h("th", { scope: "col", class: side }, name);
    this.content = h("div", {},
      h("table", { class: "figures", "aria-label": "Figures of both sides" },
        h("thead", {}, h("tr", {}, h("td", {}), head("legacy", "legacy"), head("new", "new"), head("new ÷ legacy"))), this.figures), this.reasons,
      h("section", {}, h("h3", {}, "Latency over time"), this.noCurve, this.curveHost),
      h("section", {}, h("h3", {}, "How durations are distributed"), this.distributionHost),
      h("div", { class: "columns" },
        h("section", {}, h("h3", {}, "Statuses"), this.statuses),
        h("section", {}, h("h3", {}, "Refused by checks, since the start"), this.refused)),
      h("section", {}, h("h3", {}, "Slowest recent requests"), this.slowest),
      h("section", {}, h("h3", {}, "Flips"), this.flips));
    this.element.replaceChildren(
      h("header", {},
        h("div", {}, this.title, this.what, this.serve), this.flip,
        h("button", { type: "button", class: "plain close", "aria-label": "Close", onclick: () => this.closed() }, "✕")),
      this.problem, this.content);
    this.curves = curves(this.curveHost, () => this.series?.flips ?? []);
    this.distributions = distributions(this.distributionHost, () => this.route(this.name)?.sides ?? {});
  }

  async load() {
    const name = this.name;
    const token = this.token();
    try {
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const response = await fetch(`/api/series?route=${encodeURIComponent(name)}&${this.asked()}`, { headers, cache: "no-store" });
      const told = await response.json();
      if (name !== this.name) return;
      this.problem.hidden = response.ok;
      this.content.hidden = response.status === 404;
      if (!response.ok) return text(this.problem, response.status === 404 ? `There is no route "${name}" in the table in force.` : told.message);
      this.series = told;
      this.showSeries(told);
    } catch {
      // The state of the page says already that nothing is heard.
    }
  }

  /** What is heard every second. */
  show() {
    const route = this.route(this.name);
    if (!route?.methods) return;
    text(this.what, [...route.methods, `${route.host ?? ""}${route.path}`].join(" "));
    const place = route.serve === "new" ? route.new : route.legacy;
    this.serve.replaceChildren("Served by ", h("span", { class: `side ${route.serve}` }, route.serve),
      ` (${place ?? NONE}) for ${ago(route.since)}${route.checks.length ? `, after the checks ${route.checks.join(", ")}` : ""}`);
    attribute(this.flip, "hidden", !(route.legacy && route.new));
    text(this.flip, `Flip to ${route.serve === "new" ? "legacy" : "new"}`);
    this.figures.replaceChildren(...FIGURES.map(([label, key, shown, of]) => {
      const cell = h("td", { class: "ratio" });
      if (of) conclude(cell, of(route));
      return h("tr", { class: key }, h("th", { scope: "row" }, label),
        SIDES.map((side) => h("td", {}, shown(route.sides[side]?.[key]))), cell);
    }));
    const lacking = FIGURES.map(([label, , , of]) => [label, of?.(route).reason]).filter(([, reason]) => reason);
    this.reasons.replaceChildren(...lacking.map(([label, reason]) => h("li", {}, `${label} ${reason}`)));
    this.showStatuses(route);
    this.showCurves();
  }

  /** What is asked for every few seconds. */
  showSeries(series) {
    this.showCurves();
    this.showDistribution(series.sides);
    this.list(this.refused, series.refused, "Nothing was refused.", ["Check", "Reason", "Count"], (one) => [one.check, one.reason, count(one.count)]);
    const slowest = SIDES.flatMap((side) => series.slowest[side].slice(0, SLOWEST).map((one) => ({ side, ...one })));
    this.list(this.slowest, slowest, "None yet.", ["Side", "Took", "Waited", "In the side", "Status", "Kept apart", "Ended", "Request id"], (one) => [
      h("span", { class: `side ${one.side}` }, one.side), millis(one.total_ms), millis(one.queue_ms), millis(one.service_ms), String(one.status),
      one.apart ? APART[one.apart] ?? one.apart : "", clock(one.when), h("code", {}, one.request_id)]);
    this.list(this.flips, [...series.flips].reverse(), "Not flipped since the start.", ["When", "From", "To"], (one) => [
      `${clock(one.when)}, ${ago(one.when)} ago`, one.from ?? NONE, h("span", { class: `side ${one.to}` }, one.to)]);
  }

  /** What the gateway kept; while that is next to nothing, what this page has seen. */
  showCurves() {
    const { time, seconds, sides } = this.series ?? { time: [] };
    const column = (side, key) => sides[side]?.[key] ?? time.map(() => null);
    let columns = null;
    if (time.length > 3) {
      // Each point is of a slice of time and stands in its middle.
      const middles = time.map((end, place) => end - seconds[place] / 2);
      columns = [middles, ...SIDES.flatMap((side) => [column(side, "p50_ms"), column(side, "p99_ms")])];
    } else {
      const points = this.live.get(this.name) ?? [];
      if (points.length > 1) columns = [0, 1, 2, 3, 4].map((place) => points.map((point) => point[place]));
    }
    this.noCurve.hidden = columns !== null;
    this.curveHost.hidden = columns === null;
    if (columns) this.curves.update(columns);
  }

  /** The gateway's fine buckets in steps that can be told apart. */
  showDistribution(sides) {
    const counted = SIDES.map((side) => {
      const steps = new Map();
      for (const { from_ms: from, to_ms: to, count: some } of sides[side]?.distribution ?? []) {
        const step = Math.floor(Math.log10(Math.max(Math.sqrt(from * to), to / 2, 0.001)) * STEPS);
        steps.set(step, (steps.get(step) ?? 0) + some);
      }
      return steps;
    });
    const all = counted.flatMap((steps) => [...steps.keys()]);
    this.distributionHost.hidden = all.length === 0;
    if (all.length === 0) return;
    const [first, last] = [Math.min(...all) - 2, Math.max(...all) + 2];
    const axis = Array.from({ length: last - first + 1 }, (_, step) => first + step);
    const shares = (steps) => {
      const sum = [...steps.values()].reduce((one, other) => one + other, 0);
      return axis.map((step) => (sum ? (100 * (steps.get(step) ?? 0)) / sum : null));
    };
    this.distributions.update([axis.map((step) => 10 ** ((step + 1) / STEPS)), ...counted.map(shares)]);
  }

  showStatuses({ sides, gateway }) {
    const rows = SIDES.filter((side) => sides[side]).map((side) => {
      const some = Object.entries(sides[side].statuses ?? {}).filter(([, one]) => one > 0);
      const bar = h("span", { class: "stack", "aria-hidden": "true" }, some.map(([name, one]) => {
        const part = h("i", { class: `s${name[0]}` });
        part.style.flexGrow = one;
        return part;
      }));
      return h("div", { class: "status" }, h("span", { class: `side ${side}` }, side), bar,
        h("span", {}, some.map(([name, one]) => `${name} ${count(one)}`).join("   ")));
    });
    if (gateway > 0) rows.push(h("p", { class: "dim" }, `${count(gateway)} answered by the gateway itself`));
    this.statuses.replaceChildren(...(rows.length ? rows : [h("p", { class: "empty" }, "No answers in this window yet.")]));
  }

  list(host, entries, none, heads, cells) {
    const table = () => h("table", { class: "list" },
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, entries.map((entry) => h("tr", {}, cells(entry).map((cell) => h("td", {}, cell))))));
    host.replaceChildren(entries.length ? table() : h("p", { class: "empty" }, none));
    // What scrolls must be within reach of the keyboard.
    attribute(host, "tabindex", host.scrollWidth > host.clientWidth ? 0 : null);
  }
}
