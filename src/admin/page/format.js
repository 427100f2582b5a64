// Numbers and times as people read them. What is not known is a dash.

export const NONE = "–";

const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const digits = (value, count) => value.toFixed(count);

/** Three significant digits, or all of them before the point. */
function three(value) {
  if (value >= 100) return integer.format(value);
  if (value >= 10) return digits(value, 1);
  return digits(value, 2);
}

export function count(value) {
  return value === null || value === undefined ? NONE : integer.format(value);
}

export function millis(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.005) return "0 ms";
  return value >= 1000 ? `${three(value / 1000)} s` : `${three(value)} ms`;
}

export function perSecond(value) {
  if (value === null || value === undefined) return NONE;
  return value === 0 ? "0" : three(value);
}

export function share(value) {
  if (value === null || value === undefined) return NONE;
  const percent = value * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.01) return "<0.01 %";
  return `${percent < 10 ? digits(percent, 2) : digits(percent, 1)} %`;
}

/** A difference of two shares, in points of a hundred. */
export function points(value) {
  const shown = Math.abs(value * 100).toFixed(2);
  return `${shown === "0.00" ? "" : value > 0 ? "+" : "−"}${shown}`;
}

export function times(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 10) return `${digits(value, 1)}×`;
  // Of a side that is a hundred times as fast, two decimals say next to nothing.
  return `${value > 0 && value < 0.1 ? value.toPrecision(2) : digits(value, 2)}×`;
}

/** How long ago. */
export function ago(moment, now = Date.now()) {
  return span(Math.max(0, (now - Date.parse(moment)) / 1000));
}

/** So many seconds, in the largest unit that fits. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function clock(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? NONE : date.toLocaleTimeString("en-GB");
}
