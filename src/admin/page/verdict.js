// What may be concluded from the figures of both sides: the same words and signs in the table and on a route's page.

import { attribute, h, text } from "./dom.js";
import { NONE, points, times } from "./format.js";

const SIGN = { faster: "▼ ", slower: "▲ ", unclear: "≈ " };
const CHANCE = "no difference beyond chance";
const LACK = "not enough yet";
const NOTHING = { value: null, sign: "", words: NONE, range: "", verdict: null, meaning: "", reason: null };

/** New over legacy: the number, the interval that holds the truth, and what may be concluded from it. */
export function ratio(row, key) {
  const value = row.ratio?.[key] ?? null;
  const sure = row.confidence?.[key];
  if (value === null) return NOTHING;
  const range = sure?.enough ? `${times(sure.low).replace("×", "")} to ${times(sure.high)}` : LACK;
  const meaning = { faster: "new is faster", slower: "new is slower", unclear: CHANCE }[sure?.verdict] ?? "";
  return { ...concluded(value, sure?.verdict, sure), words: times(value), range, meaning };
}

/** The error rate of new less that of legacy, in the same form: of rates that may be 0 there is no ratio. */
export function errors(row) {
  const sure = row.confidence?.error_rate;
  const value = sure?.difference ?? null;
  if (value === null) return NOTHING;
  const range = sure.enough ? `${points(sure.low)} to ${points(sure.high)}` : LACK;
  const meaning = { fewer: "new has fewer", more: "new has more", unclear: CHANCE }[sure.verdict] ?? "";
  const verdict = { fewer: "faster", more: "slower" }[sure.verdict] ?? sure.verdict;
  return { ...concluded(value, verdict, sure), words: `${points(value)} points`, range, meaning };
}

const concluded = (value, verdict = null, sure = null) => ({ value, verdict, sign: SIGN[verdict] ?? "", reason: sure?.reason ?? null });

/** Writes it into a cell. A sign is for the eye; its meaning is said to who listens, too. */
export function conclude(cell, { sign, words, range, verdict, meaning }) {
  if (!cell.firstChild) {
    cell.append(h("span", { class: "sign", "aria-hidden": "true" }), ...["value", "range", "meaning"].map((part) => h("span", { class: part })));
  }
  [sign, words, range, meaning].forEach((part, place) => text(cell.children[place], part));
  attribute(cell, "data-verdict", verdict);
}
