// Flipping a route: asks first and says what will happen, then has the gateway edit the file.

import { at, h, say } from "./dom.js";

const KEY = "strangler-token";

/** The token, from the address once and from then on for as long as the tab lives. */
export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
  /** Takes `#token=…` out of the address, so that no bookmark and no screen keeps it. */
  adopt() {
    const given = /^#token=([^&/]+)$/.exec(location.hash);
    if (!given) return;
    try {
      token.set(decodeURIComponent(given[1]));
    } catch { /* Mistyped: it is asked for when it is needed. */ }
    history.replaceState(null, "", "#/");
  },
};

/** The side that does not serve now. */
export function other(serve) {
  return serve === "new" ? "legacy" : "new";
}

function tokenField(why) {
  const input = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  return h("label", { class: "field" }, h("span", {}, why), input);
}

/** Asks for the token; resolves when one was given. */
export function askToken(message) {
  const dialog = at("ask");
  if (dialog.open) return Promise.resolve();
  const form = h("form", { method: "dialog" },
    h("h2", { id: "ask-title" }, "Admin token"),
    h("p", {}, message),
    tokenField("The gateway shows it when it starts, unless the file says where it is (admin_token)."),
    h("div", { class: "buttons" }, h("button", { class: "strong", type: "submit" }, "Continue")));
  dialog.replaceChildren(form);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const value = form.querySelector("input").value.trim();
      if (value) token.set(value);
      resolve();
    }, { once: true });
    dialog.showModal();
  });
}

/** Opens the dialog for one route as it was seen: `file`, `hash` of its content, the route. */
export function confirmFlip({ file, hash, route }) {
  const dialog = at("flip");
  const from = route.serve;
  const to = other(from);
  const place = to === "new" ? route.new : route.legacy;
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const go = h("button", { class: `strong ${to}`, type: "submit" }, `Flip to ${to}`);
  const needsToken = !token.get();
  const form = h("form", {},
    h("h2", { id: "flip-title" }, "Let ", h("span", { class: `side ${to}` }, to), " serve ", h("code", {}, route.name), "?"),
    h("dl", { class: "facts" },
      h("dt", {}, "Edits"), h("dd", {}, h("code", {}, file)),
      h("dt", {}, "Changes"), h("dd", {}, h("code", {}, `serve = "${from}" → "${to}"`)),
      h("dt", {}, "Then"), h("dd", {}, `New requests go to ${place} within a second. Those under way end on the side they began with.`),
      h("dt", {}, "Back"), h("dd", {}, "The same way, at any time.")),
    needsToken && tokenField("Admin token: the gateway shows it when it starts"),
    problem,
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = form.querySelector("input")?.value.trim();
    if (given) token.set(given);
    go.disabled = true;
    const fault = await send(route.name, to, hash);
    go.disabled = false;
    if (fault === null) return dialog.close();
    if (fault.status === 401) {
      token.forget();
      if (!form.querySelector("input")) problem.before(tokenField("The token is not right. Enter the present one:"));
    }
    problem.hidden = false;
    problem.replaceChildren(...explained(fault.message));
  });
  dialog.replaceChildren(form);
  dialog.showModal();
  (form.querySelector("input") ?? go).focus();
}

/** A sentence, and the lines of the file as they were written: carets stay under what they point at. */
function explained(message) {
  const [sentence, ...lines] = message.split("\n");
  const quoted = h("pre", { tabindex: "0", role: "region", "aria-label": "The file" }, lines.join("\n"));
  return lines.length ? [h("p", {}, sentence), quoted] : [h("p", {}, sentence)];
}

/** Gives null when it is done, else why not. */
async function send(name, serve, seen) {
  try {
    const response = await fetch(`/api/routes/${encodeURIComponent(name)}/serve`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token.get() ?? ""}` },
      body: JSON.stringify({ serve, seen }),
    });
    const told = await response.json();
    if (!response.ok) return { status: response.status, message: told.message };
    const from = told.from ?? "what it inherited";
    say(told.changed ? `${told.route}: ${from} → ${told.to} (${told.place})` : `${told.route}: ${told.to} already`);
    return null;
  } catch {
    return { status: 0, message: "The gateway does not answer; nothing is known to have changed." };
  }
}
