// The dashboard: keeps what was heard last, shows it, and keeps the address in step with what is shown.

import { at, attribute, h, text } from "./dom.js";
import { askToken, confirmFlip, token } from "./flip.js";
import { ago, count, millis, perSecond, span } from "./format.js";
import { RouteSheet } from "./route.js";
import { Stream } from "./stream.js";
import { COLUMNS, Table } from "./table.js";

/** Events come every second: after so long without one, what is shown is old. */
const STALE = 3500;

const view = { route: null, q: "", sort: "", window: "1m", latency: "total" };
const CHOICES = { window: ["1m", "10m", "1h"], latency: ["total", "service", "queue"] };
const known = { file: "", generation: null, routes: new Map(), event: null, heard: 0, refusal: null, hash: null, upstreams: new Map() };

const asked = () => new URLSearchParams({ window: view.window, latency: view.latency }).toString();

// --- The address: #/route/NAME?q=…&sort=… ---

function read() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const params = new URLSearchParams(query ?? "");
  const name = /^\/route\/(.+)$/.exec(path)?.[1];
  view.route = null;
  try {
    view.route = name ? decodeURIComponent(name) : null;
  } catch { /* An address that somebody mistyped names no route. */ }
  view.q = params.get("q") ?? "";
  const sort = params.get("sort") ?? "";
  view.sort = COLUMNS.some((column) => column.value && column.key === sort.replace(/^-/, "")) ? sort : "";
  for (const [key, choices] of Object.entries(CHOICES)) {
    view[key] = choices.includes(params.get(key)) ? params.get(key) : choices[0];
  }
}

/** The address of a route, or of none, under what is chosen now. */
function address(route) {
  const params = new URLSearchParams();
  if (view.q) params.set("q", view.q);
  if (view.sort) params.set("sort", view.sort);
  for (const [key, choices] of Object.entries(CHOICES)) if (view[key] !== choices[0]) params.set(key, view[key]);
  const query = params.size ? `?${params}` : "";
  return `#/${route === null ? "" : `route/${encodeURIComponent(route)}`}${query}`;
}

function write({ push = false } = {}) {
  const hash = address(view.route);
  if (hash !== location.hash) history[push ? "pushState" : "replaceState"](null, "", hash);
}

// --- The parts of the page ---

const table = new Table({
  table: at("table"), head: at("head"), body: at("body"), address,
  opened: (name) => { view.route = name; write({ push: true }); showRoute(true); },
  flipped: flip,
  sorted: (key) => {
    const figures = !["name", "serve"].includes(key);
    // Figures are looked at from the largest down.
    const first = figures ? `-${key}` : key;
    const second = figures ? key : `-${key}`;
    sort(view.sort === first ? second : view.sort === second ? "" : first);
  },
});

function sort(key) {
  view.sort = key;
  at("sort").value = key;
  write();
  table.arrange(view.q, view.sort);
}

const sheet = new RouteSheet({
  element: at("route"), asked, token: token.get, flipped: flip,
  route: (name) => merged().find((row) => row.name === name),
  closed: () => {
    const name = view.route;
    view.route = null;
    write({ push: true });
    showRoute();
    table.focus(name);
  },
});

const stream = new Stream({
  asked, token: token.get, heard, refused,
  // Who answers now may be another process, which counts its generations from 1 again.
  begun: () => { known.generation = null; },
});

function showRoute(focus = false) {
  table.chosen = view.route;
  document.body.classList.toggle("opened", view.route !== null);
  if (view.route === null) sheet.close();
  else sheet.open(view.route, focus);
  document.title = view.route === null ? "strangler" : `${view.route} · strangler`;
  table.render();
}

function flip(name) {
  const route = merged().find((row) => row.name === name);
  if (!route?.legacy || !route?.new) return;
  confirmFlip({ file: known.file, hash: known.hash, route });
}

// --- What is heard ---

async function heard(event) {
  known.event = event;
  known.heard = Date.now();
  known.refusal = null;
  if (event.generation !== known.generation) await learn();
  known.hash = event.loaded?.hash ?? null;
  sheet.remember(event);
  show();
}

/** The routes themselves change with the generation only, and with who answers. */
async function learn() {
  const headers = token.get() ? { authorization: `Bearer ${token.get()}` } : {};
  const response = await fetch("/api/routes", { headers, cache: "no-store" }).catch(() => null);
  if (!response?.ok) return;
  const told = await response.json();
  known.file = told.file;
  known.generation = told.generation;
  known.routes = new Map(told.routes.map((route) => [route.name, route]));
  // An upstream may be another by now, and a new process counts its failures from nothing.
  known.upstreams.clear();
  known.handlers = "";
  at("upstreams").replaceChildren();
  if (sheet.name !== null) sheet.load();
}

function merged() {
  return (known.event?.routes ?? []).map((row) => ({ ...known.routes.get(row.name), ...row }));
}

function show() {
  table.update(merged());
  showFound();
  showUpstreams(known.event.upstreams ?? []);
  showFile(known.event);
  showState();
  if (sheet.name !== null) sheet.show();
}

function showFound() {
  text(at("count"), table.counted());
  at("empty").hidden = table.order.length > 0;
  text(at("empty"), view.q ? `No route fits "${view.q}".` : "The table has no routes.");
}

function showState() {
  const silent = Date.now() - known.heard;
  const [state, words] = silent <= STALE ? ["live", "live"]
    : known.refusal ? ["refused", `refused: ${known.refusal}`]
      : known.heard === 0 ? ["waiting", "connecting"] : ["stale", `stale for ${Math.round(silent / 1000)} s`];
  document.body.classList.toggle("stale", known.heard > 0 && state !== "live");
  attribute(at("state"), "data-state", state);
  text(at("state"), words);
  // Said aloud when it changes, not every second that it lasts.
  text(at("state-said"), state === "stale" ? "stale" : words);
  if (known.event) {
    text(at("table-state"), `generation ${known.event.generation}, loaded ${ago(known.event.loaded?.when)} ago`);
    at("table-state").title = known.file;
  }
}

function showFile({ rejected, loaded }) {
  at("rejected").hidden = !rejected;
  if (rejected) {
    text(at("rejected-title"), `${known.file || "The file"} was refused ${ago(rejected.when)} ago`);
    text(at("faults"), rejected.faults);
  }
  const warnings = loaded?.warnings ?? [];
  at("warnings").hidden = warnings.length === 0;
  if (warnings.join("\n") !== known.warnings) {
    known.warnings = warnings.join("\n");
    at("warnings").replaceChildren(...warnings.map((warning) => h("p", {}, warning)));
  }
}

function showUpstreams(all) {
  const host = at("upstreams");
  const upstreams = all.filter((one) => one.kind !== "handler");
  for (const [name, card] of known.upstreams) {
    if (upstreams.some((one) => one.name === name)) continue;
    card.element.remove();
    known.upstreams.delete(name);
  }
  for (const upstream of upstreams) {
    const card = known.upstreams.get(upstream.name) ?? upstreamCard(upstream);
    if (!known.upstreams.has(upstream.name)) host.append(card.element);
    known.upstreams.set(upstream.name, card);
    card.show(upstream);
  }
  showHandlers(all.filter((one) => one.kind === "handler"));
}

/** Handlers take no connection and have no queue: their names are all there is to show. */
function showHandlers(handlers) {
  const names = handlers.map((one) => one.name).join(", ");
  if (names === (known.handlers ?? "")) return;
  known.handlers = names;
  at("upstreams").querySelector(".inside")?.remove();
  if (names) at("upstreams").append(h("li", { class: "inside" }, h("p", {}, h("strong", {}, "Handlers"), h("span", { class: "kind" }, "in this process")), h("p", { class: "facts" }, names)));
}

const KINDS = { php: "PHP-FPM", http: "HTTP" };

function upstreamCard({ name, kind, limit }) {
  const fill = h("i", {});
  const use = h("b", {});
  const queue = h("span", {});
  const wait = h("span", {});
  const full = h("span", {});
  const failures = h("span", { class: "bad" });
  const element = h("li", { "data-name": name },
    h("p", {}, h("strong", {}, name), h("span", { class: "kind" }, KINDS[kind] ?? kind)),
    limit && h("span", { class: "meter", "aria-hidden": "true" }, fill),
    h("p", { class: "facts" }, use, queue, wait, full, failures));
  const past = [];
  return { element, show(upstream) {
    past.push([upstream.waits, upstream.wait_seconds, upstream.failures]);
    if (past.length > 60) past.shift();
    const [waits, seconds, failed] = past[0];
    const [now, total, lost] = past.at(-1);
    if (limit) fill.style.width = `${Math.min(100, (100 * upstream.in_use) / limit)}%`;
    element.classList.toggle("full", Boolean(limit) && upstream.in_use >= limit);
    text(use, limit ? `${upstream.in_use} of ${limit} in use` : `${upstream.in_use} in use, ${upstream.idle} idle`);
    text(queue, kind === "php" ? `${count(upstream.waiting)} queued` : "");
    text(wait, kind === "php" && now > waits ? `wait ${millis(((total - seconds) / (now - waits)) * 1000)}` : "");
    const filling = upstream.saturation_seconds;
    text(full, filling === null ? "" : filling === 0 ? "full" : `full in ${span(filling)}`);
    text(failures, lost > failed ? `✕ ${perSecond((lost - failed) / past.length)} failures/s` : "");
  } };
}

async function refused(status, message) {
  if (status !== 401) {
    known.refusal = message;
    return showState();
  }
  token.forget();
  await askToken(`This port can be reached from other machines, so that reading takes the token as well. (${message})`);
  stream.start();
}

// --- What is done ---

function choices(id, changed) {
  const host = at(id);
  const buttons = CHOICES[id].map((value) => h("button", { type: "button", role: "radio", onclick: () => choose(value) }, value));
  const mark = () => buttons.forEach((button) => {
    const chosen = button.textContent === view[id];
    attribute(button, "aria-checked", String(chosen));
    attribute(button, "tabindex", chosen ? 0 : -1);
  });
  const choose = (value) => {
    view[id] = value;
    write();
    mark();
    changed();
  };
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const values = CHOICES[id];
    choose(values[(values.indexOf(view[id]) + step + values.length) % values.length]);
    buttons.find((button) => button.textContent === view[id]).focus();
  });
  host.append(...buttons);
  return mark;
}

const anew = () => {
  sheet.forget();
  table.forget();
  stream.start();
  if (sheet.name !== null) sheet.load();
};
const marks = [choices("window", anew), choices("latency", anew)];

// The names of columns are out of sight on a phone: what they sort by is chosen here.
at("sort").append(h("option", { value: "" }, "as the file"), ...COLUMNS.filter((column) => column.value).flatMap(({ key, group, label }) =>
  [["-", "↓"], ["", "↑"]].map(([sign, arrow]) => h("option", { value: `${sign}${key}` }, `${group ? `${group} ` : ""}${label} ${arrow}`))));
at("sort").addEventListener("change", () => sort(at("sort").value));

// Followed as a link, its hash would be taken for an address of the page.
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  table.focus(table.current);
});

at("search").addEventListener("input", () => {
  view.q = at("search").value;
  write();
  table.arrange(view.q, view.sort);
  showFound();
});
at("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault();
    table.focus(table.order[0]?.name);
  } else if (event.key === "Escape" && view.q === "") at("search").blur();
});

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open]") || event.target.matches?.("input, select")) return;
  if (event.key === "/") {
    event.preventDefault();
    at("search").focus();
  } else if (event.key === "Escape" && view.route !== null) sheet.closed();
});

const THEMES = { "": "◐", light: "☀", dark: "☾" };

function paint(theme) {
  attribute(document.documentElement, "data-theme", theme || null);
  text(at("theme"), THEMES[theme] ?? THEMES[""]);
  attribute(at("theme"), "aria-label", `Colours: ${theme || "as the system has them"}`);
  at("theme").title = at("theme").getAttribute("aria-label");
  document.dispatchEvent(new Event("theme"));
}

at("theme").addEventListener("click", () => {
  const themes = Object.keys(THEMES);
  const next = themes[(themes.indexOf(localStorage.getItem("strangler-theme") ?? "") + 1) % themes.length];
  localStorage.setItem("strangler-theme", next);
  paint(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));

function follow() {
  token.adopt();
  read();
  at("search").value = view.q;
  at("sort").value = view.sort;
  marks.forEach((mark) => mark());
  table.arrange(view.q, view.sort);
  showRoute();
}

addEventListener("popstate", () => {
  const before = asked();
  follow();
  if (asked() === before) stream.start();
  else anew();
});
paint(localStorage.getItem("strangler-theme") ?? "");
follow();
setInterval(showState, 1000);
showState();
if (!document.hidden) stream.start();
