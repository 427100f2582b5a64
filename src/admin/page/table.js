// The table of routes: only the rows in view exist, and of those only the cells that changed are touched.

import { spark } from "./charts.js";
import { attribute, h, text } from "./dom.js";
import { ago, count, millis, perSecond, share } from "./format.js";
import { conclude, ratio } from "./verdict.js";

const SIDES = ["legacy", "new"];
const HISTORY = 60;
/** Rows kept above and below the view, so that scrolling never shows a gap. */
const MARGIN = 8;

const figure = (side, key) => (row) => row.sides?.[side]?.[key] ?? null;

const pair = (key, group, field, shown) => SIDES.map((side) => ({
  key: `${key}.${side}`, group, label: side, side, value: figure(side, field), shown,
}));

/** Every column: how it is sorted and, where it is a figure, how it is shown. */
export const COLUMNS = [
  { key: "name", label: "Route", value: (row) => row.name },
  { key: "serve", label: "Serves", value: (row) => row.serve },
  ...pair("qps", "Requests/s", "qps", perSecond),
  ...pair("p50", "P50", "p50_ms", millis),
  ...pair("p99", "P99", "p99_ms", millis),
  ...pair("errors", "Errors", "error_rate", share),
  { key: "ratio50", label: "P50", group: "New ÷ legacy", ratio: "p50", value: (row) => ratio(row, "p50").value },
  { key: "ratio99", label: "P99", group: "New ÷ legacy", ratio: "p99", value: (row) => ratio(row, "p99").value },
  { key: "trend", label: "Trend of P99", title: "P99 of the window, second by second since the page was opened, up to a minute", fixed: true },
  { key: "flip", label: "Flip", fixed: true },
];

class Row {
  constructor(name, table) {
    this.cells = {};
    this.name = name;
    this.element = h("tr", { role: "row", onclick: (event) => this.clicked(event, table) });
    for (const column of COLUMNS) this.element.append((this.cells[column.key] = this.cell(column, table)));
  }

  clicked(event, table) {
    if (event.target.closest("button")) return;
    // A link that is followed into another tab or window is the browser's.
    if (event.target.closest("a") && (event.ctrlKey || event.metaKey || event.shiftKey)) return;
    event.preventDefault();
    table.opened(this.name);
  }

  cell(column, table) {
    const label = column.group ? `${column.group}, ${column.label}` : column.label;
    if (column.key === "name") {
      this.link = h("a", { class: "name", tabindex: "-1" });
      this.path = h("span", { class: "path" });
      return h("th", { role: "rowheader", scope: "row", class: "route" }, this.link, this.path);
    }
    const cell = h("td", { role: "cell", class: `${column.key.replace(".", " ")}${column.ratio ? " ratio" : ""}`, "data-label": column.group ?? column.label, "aria-label": null });
    if (column.key === "serve") {
      this.side = h("span", {});
      this.since = h("span", { class: "since" });
      cell.append(this.side, this.since);
    } else if (column.key === "trend") {
      this.trend = spark(SIDES);
      cell.append(this.trend.element);
    } else if (column.key === "flip") {
      this.button = h("button", { type: "button", class: "flip", tabindex: "-1", "aria-keyshortcuts": "f", onclick: () => table.flipped(this.name) }, "Flip");
      cell.append(this.button);
    }
    if (column.side) cell.title = label;
    return cell;
  }

  show(row, index, history, now) {
    attribute(this.element, "aria-rowindex", index + 3);
    text(this.link, row.name);
    text(this.path, row.path === row.name ? (row.methods ?? []).join(" ") : [...(row.methods ?? []), row.path].join(" "));
    attribute(this.link, "title", row.name);
    attribute(this.path, "title", row.path);
    text(this.side, row.serve);
    attribute(this.side, "class", `side ${row.serve === "new" ? "new" : row.serve === "legacy" ? "legacy" : "both"}`);
    text(this.since, row.since ? ago(row.since, now) : "");
    attribute(this.cells.serve, "title", row.since && `since ${row.since}`);
    for (const column of COLUMNS) {
      const cell = this.cells[column.key];
      if (column.side) {
        text(cell, column.shown(column.value(row)));
        if (column.key.startsWith("errors")) cell.classList.toggle("bad", column.value(row) > 0);
      } else if (column.ratio) {
        const compared = ratio(row, column.ratio);
        conclude(cell, compared);
        attribute(cell, "title", compared.reason);
      }
    }
    const flippable = Boolean(row.legacy && row.new);
    attribute(this.button, "hidden", !flippable);
    attribute(this.button, "aria-label", `Flip ${row.name} to ${row.serve === "new" ? "legacy" : "new"}`);
    this.trend.draw(history);
  }
}

export class Table {
  /** `address(name)` gives the address of a route. */
  constructor({ table, head, body, address, opened, flipped, sorted }) {
    Object.assign(this, { table, head, body, address, opened, flipped, sorted });
    this.rows = new Map();
    this.all = [];
    this.order = [];
    this.histories = new Map();
    this.current = null;
    this.chosen = null;
    this.above = h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", {}));
    this.below = this.above.cloneNode(true);
    this.body.append(this.above, this.below);
    this.makeHead();
    const soon = () => (this.pending ??= requestAnimationFrame(() => { this.pending = null; this.render(); }));
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    this.body.addEventListener("keydown", (event) => this.pressed(event));
    this.body.addEventListener("focusin", (event) => this.focused(event));
  }

  makeHead() {
    const groups = h("tr", { role: "row", "aria-rowindex": 1 });
    const labels = h("tr", { role: "row", "aria-rowindex": 2 });
    this.heads = new Map();
    for (const column of COLUMNS) {
      const cells = COLUMNS.filter((other) => other.group && other.group === column.group);
      if (!column.group) groups.append(h("td", { role: "cell", class: column.key }));
      else if (cells[0] === column) {
        groups.append(h("th", { role: "columnheader", scope: "colgroup", colspan: cells.length, class: `group ${column.ratio ? "" : column.key.split(".")[0]}` }, column.group));
      }
      const label = column.fixed ? h("span", { title: column.title }, column.label)
        : h("button", { type: "button", onclick: () => this.sorted(column.key), "aria-label": column.group ? `${column.group} ${column.label}` : null }, column.label);
      const cell = h("th", { role: "columnheader", scope: "col", class: `${column.key.replace(".", " ")}${column.side ? " side-head" : ""}` }, label);
      this.heads.set(column.key, cell);
      labels.append(cell);
    }
    this.head.append(groups, labels);
    this.table.prepend(h("colgroup", {}, COLUMNS.map((column) => h("col", { class: column.key.replace(".", " ") }))));
  }

  /** Another question was asked: what was heard so far is no past of its answers. */
  forget() {
    this.histories.clear();
  }

  /** Takes what is so now. */
  update(rows) {
    this.all = rows;
    for (const row of rows) {
      const history = this.histories.get(row.name) ?? { legacy: [], new: [] };
      for (const side of SIDES) {
        history[side].push(row.sides?.[side]?.p99_ms ?? null);
        if (history[side].length > HISTORY) history[side].shift();
      }
      this.histories.set(row.name, history);
    }
    if (this.histories.size > 2 * rows.length + 50) {
      const names = new Set(rows.map((row) => row.name));
      for (const name of this.histories.keys()) if (!names.has(name)) this.histories.delete(name);
    }
    this.arrange();
  }

  /** Finds and sorts anew. `sort` is a column's key, with `-` before it for the largest first. */
  arrange(search = this.search ?? "", sort = this.sort ?? "") {
    Object.assign(this, { search, sort });
    const terms = search.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) => {
      const words = `${row.name} ${row.path} ${row.serve} ${row.legacy ?? ""} ${row.new ?? ""}`.toLowerCase();
      return terms.every((term) => words.includes(term));
    };
    this.order = terms.length ? this.all.filter(fits) : [...this.all];
    const down = sort.startsWith("-");
    const column = COLUMNS.find((one) => one.key === sort.replace(/^-/, ""));
    if (column?.value) {
      const compared = (a, b) => {
        const [left, right] = [column.value(a), column.value(b)];
        // What has no figure is last, whichever way it is sorted.
        if (left === null || right === null) return (left === null) - (right === null);
        const sign = typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right;
        return down ? -sign : sign;
      };
      this.order.sort(compared);
    }
    for (const [key, cell] of this.heads) {
      attribute(cell, "aria-sort", key === column?.key ? (down ? "descending" : "ascending") : null);
    }
    this.render();
  }

  /** From the top of one row to the top of the next. */
  get pitch() {
    const row = this.rows.values().next().value?.element;
    return row?.offsetHeight ? row.offsetHeight + parseFloat(getComputedStyle(row).marginBottom) : 45;
  }

  render() {
    const height = this.pitch;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(this.order.length - 1, Math.floor(-top / height) - MARGIN));
    const last = Math.min(this.order.length, Math.ceil((innerHeight - top) / height) + MARGIN);
    const shown = this.order.slice(first, Math.max(first, last));
    this.above.firstChild.style.height = `${first * height}px`;
    this.below.firstChild.style.height = `${(this.order.length - first - shown.length) * height}px`;
    attribute(this.above, "hidden", first === 0);
    attribute(this.below, "hidden", first + shown.length >= this.order.length);
    attribute(this.table, "aria-rowcount", this.order.length + 2);
    const held = this.body.contains(document.activeElement) ? document.activeElement : null;
    const names = new Set(shown.map((row) => row.name));
    for (const [name, row] of this.rows) {
      if (names.has(name)) continue;
      row.element.remove();
      this.rows.delete(name);
    }
    if (!this.order.some((row) => row.name === this.current)) this.current = this.order[0]?.name ?? null;
    const now = Date.now();
    let after = this.above;
    shown.forEach((data, place) => {
      const row = this.rows.get(data.name) ?? new Row(data.name, this);
      this.rows.set(data.name, row);
      if (after.nextSibling !== row.element) after.after(row.element);
      after = row.element;
      row.show(data, first + place, this.histories.get(data.name), now);
      const current = data.name === this.current;
      attribute(row.link, "href", this.address(data.name));
      attribute(row.link, "tabindex", current ? 0 : -1);
      attribute(row.button, "tabindex", current ? 0 : -1);
      attribute(row.element, "aria-current", data.name === this.chosen ? "true" : null);
    });
    // Moving a row takes the focus off it.
    if (held && held !== document.activeElement && held.isConnected) held.focus({ preventScroll: true });
  }

  focused(event) {
    const row = [...this.rows.values()].find((one) => one.element.contains(event.target));
    if (!row || row.name === this.current) return;
    this.current = row.name;
    this.render();
  }

  pressed(event) {
    if (event.target.closest("button")) return;
    const place = this.order.findIndex((row) => row.name === this.current);
    const page = Math.max(1, Math.floor(innerHeight / 60));
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -place, End: this.order.length - 1 - place };
    if (event.key in steps) {
      event.preventDefault();
      this.focus(this.order[Math.max(0, Math.min(this.order.length - 1, place + steps[event.key]))]?.name);
    } else if (event.key === "f" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.flipped(this.current);
    }
  }

  /** Brings a route into view and puts the focus on it. */
  focus(name) {
    const place = this.order.findIndex((row) => row.name === name);
    if (place < 0) return;
    this.current = name;
    if (!this.rows.has(name)) {
      scrollTo({ top: this.body.getBoundingClientRect().top + scrollY + place * this.pitch - innerHeight / 2, behavior: "instant" });
    }
    this.render();
    this.rows.get(name)?.link.focus({ preventScroll: true });
    this.rows.get(name)?.element.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  /** How many of those found each side serves, in words. */
  counted() {
    const served = (side) => this.order.filter((row) => row.serve === side).length;
    const found = this.order.length === this.all.length ? count(this.all.length) : `${count(this.order.length)} of ${count(this.all.length)}`;
    return `${found} ${this.all.length === 1 ? "route" : "routes"}: ${count(served("new"))} on new, ${count(served("legacy"))} on legacy`;
  }
}
