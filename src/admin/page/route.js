// One route opened: both sides in figures and curves, and what happened on it.

import { curves, distributions } from "./charts.js";
import { attribute, h, text } from "./dom.js";
import { NONE, ago, clock, count, millis, perSecond, share } from "./format.js";
import { ratio } from "./table.js";

const SIDES = ["legacy", "new"];
const EVERY = 2000;
/** Points of the live curves, one a second. */
const POINTS = 600;

const FIGURES = [
  ["Requests", "requests", count],
  ["Requests/s", "qps", perSecond],
  ["P50", "p50_ms", millis, "p50"],
  ["P90", "p90_ms", millis, "p90"],
  ["P99", "p99_ms", millis, "p99"],
  ["P99.9", "p999_ms", millis],
  ["Mean", "mean_ms", millis, "mean"],
  ["Errors", "error_rate", share, "error_rate"],
];

export class RouteSheet {
  /** `asked()` gives the query of figures, `token()` the token or null. */
  constructor({ element, asked, token, closed, flipped }) {
    Object.assign(this, { element, asked, token, closed, flipped, name: null, live: new Map() });
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
    this.load();
    this.timer = setInterval(() => document.hidden || this.load(), EVERY);
    if (focus) this.title.focus();
  }

  close() {
    if (this.name === null) return;
    clearInterval(this.timer);
    this.curves?.destroy();
    this.distributions?.destroy();
    this.curves = this.distributions = this.detail = null;
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
    this.statuses = h("div", { class: "statuses" });
    this.refused = h("div", {});
    this.slowest = h("div", { class: "wide" });
    this.flips = h("div", {});
    this.curveHost = h("div", { class: "chart", role: "img", "aria-label": "P50 and P99 of both sides over time" });
    this.distributionHost = h("div", { class: "chart", role: "img", "aria-label": "Distribution of both sides' durations" });
    this.noCurve = h("p", { class: "empty" }, "No requests in this window yet.");
    const head = (name, side) => h("th", { scope: "col", class: side }, name);
    this.element.replaceChildren(
      h("header", {},
        h("div", {}, this.title, this.what, this.serve), h("span", { class: "space" }), this.flip,
        h("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => this.closed() }, "✕")),
      this.problem,
      h("table", { class: "figures", "aria-label": "Figures of both sides" },
        h("thead", {}, h("tr", {}, h("td", {}), head("legacy", "legacy"), head("new", "new"), head("new ÷ legacy"))), this.figures),
      h("section", {}, h("h3", {}, "Latency over time"), this.noCurve, this.curveHost),
      h("section", {}, h("h3", {}, "How durations are distributed"), this.distributionHost),
      h("div", { class: "columns" },
        h("section", {}, h("h3", {}, "Statuses, since the start"), this.statuses),
        h("section", {}, h("h3", {}, "Refused by checks, since the start"), this.refused)),
      h("section", {}, h("h3", {}, "Slowest recent requests"), this.slowest),
      h("section", {}, h("h3", {}, "Flips"), this.flips));
    this.curves = curves(this.curveHost, () => this.detail?.flips ?? []);
    this.distributions = distributions(this.distributionHost, () => this.detail?.sides ?? {});
  }

  async load() {
    const name = this.name;
    const token = this.token();
    try {
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const response = await fetch(`/api/routes/${encodeURIComponent(name)}?${this.asked()}`, { headers, cache: "no-store" });
      const told = await response.json();
      if (name !== this.name) return;
      this.problem.hidden = response.ok;
      if (!response.ok) return text(this.problem, response.status === 404 ? `There is no route "${name}" in the table in force.` : told.message);
      this.detail = told;
      this.show(told);
    } catch {
      // The state of the page says already that nothing is heard.
    }
  }

  show(detail) {
    text(this.what, [...detail.methods, `${detail.host ?? ""}${detail.path}`].join(" "));
    const place = detail.serve === "new" ? detail.new : detail.legacy;
    this.serve.replaceChildren("Served by ", h("span", { class: `side ${detail.serve}` }, detail.serve),
      ` (${place ?? NONE}) for ${ago(detail.since)}${detail.checks.length ? `, after the checks ${detail.checks.join(", ")}` : ""}`);
    attribute(this.flip, "hidden", !(detail.legacy && detail.new));
    text(this.flip, `Flip to ${detail.serve === "new" ? "legacy" : "new"}`);
    this.figures.replaceChildren(...FIGURES.map(([label, key, shown, of]) => {
      const compared = of && detail.ratio[of] !== undefined ? ratio(detail, of) : null;
      return h("tr", {}, h("th", { scope: "row" }, label),
        SIDES.map((side) => h("td", {}, shown(detail.sides[side]?.[key]))),
        h("td", { class: "ratio", "data-verdict": compared?.verdict },
          compared && h("span", { class: "value" }, compared.words), compared && h("span", { class: "range" }, compared.range)));
    }));
    this.showCurves();
    this.showDistribution(detail.distribution);
    this.showStatuses(detail.statuses);
    this.list(this.refused, detail.refused, "Nothing was refused.", ["Check", "Reason", "Count"], (one) => [one.check, one.reason, count(one.count)]);
    this.list(this.slowest, detail.slowest ?? [], "None kept yet.", ["Took", "Side", "Status", "Ended", "Request id"], (one) => [
      millis(one.total_ms), h("span", { class: `side ${one.side}` }, one.side), String(one.status), clock(one.when), h("code", {}, one.request_id)]);
    this.list(this.flips, detail.flips ?? [], "Not flipped since the start.", ["When", "From", "To"], (one) => [
      `${clock(one.when)}, ${ago(one.when)} ago`, one.from ?? NONE, h("span", { class: `side ${one.to}` }, one.to)]);
  }

  /** The hour that the gateway keeps, or what this page has seen. */
  showCurves() {
    const points = this.detail?.series ?? this.live.get(this.name) ?? [];
    this.noCurve.hidden = points.length > 1;
    this.curveHost.hidden = points.length < 2;
    if (points.length > 1) this.curves.update([0, 1, 2, 3, 4].map((column) => points.map((point) => point[column])));
  }

  showDistribution({ bounds_ms: bounds, legacy, new: fresh }) {
    const sides = [legacy, fresh];
    const filled = bounds.map((_, step) => sides.some((counts) => counts?.[step] > 0));
    const first = Math.max(0, filled.indexOf(true) - 2);
    const last = Math.min(bounds.length, filled.lastIndexOf(true) + 3);
    const any = filled.includes(true);
    this.distributionHost.hidden = !any;
    if (!any) return;
    const shares = (counts) => {
      const all = counts?.reduce((sum, step) => sum + step, 0) || 0;
      return bounds.slice(first, last).map((_, step) => (all ? (100 * counts[first + step]) / all : null));
    };
    this.distributions.update([bounds.slice(first, last), shares(legacy), shares(fresh)]);
  }

  showStatuses(statuses) {
    const rows = Object.entries(statuses).filter(([, classes]) => classes).map(([side, classes]) => {
      const all = Object.values(classes).reduce((sum, one) => sum + one, 0);
      const some = Object.entries(classes).filter(([, one]) => one > 0);
      const bar = h("span", { class: "stack", "aria-hidden": "true" }, some.map(([name, one]) => {
        const part = h("i", { class: `s${name[0]}` });
        part.style.flexGrow = one / all;
        return part;
      }));
      return h("div", { class: "status" }, h("span", { class: `side ${side}` }, side), bar,
        h("span", {}, some.map(([name, one]) => `${name} ${count(one)}`).join("   ")));
    });
    this.statuses.replaceChildren(...(rows.length ? rows : [h("p", { class: "empty" }, "No answers yet.")]));
  }

  list(host, entries, none, heads, cells) {
    const table = () => h("table", { class: "list" },
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, entries.map((entry) => h("tr", {}, cells(entry).map((cell) => h("td", {}, cell))))));
    host.replaceChildren(entries.length ? table() : h("p", { class: "empty" }, none));
  }
}
