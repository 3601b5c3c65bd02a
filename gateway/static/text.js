// Showing numbers and making elements. Amounts stay the strings that came; Number is for widths and colours.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// "1234567.50" -> "1,234,567.50", digit by digit.
export function grouped(text) {
  if (text === null || text === undefined) return "–";
  const [whole, fraction] = String(text).split(".");
  const shown = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? shown : `${shown}.${fraction}`;
}

// Large amounts of money without their last decimals.
export function money(value) {
  return value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function compact(text) {
  return Number(text).toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 2 });
}

export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}

// A decimal's own zeros at the end say nothing to people: "0.50000" -> "0.5".
export function trimmed(text) {
  return text?.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// The same number with as many decimals as the step has: ("5.1", "0.01") -> "5.10".
export function padded(text, step) {
  const [whole, fraction = ""] = text.split(".");
  const decimals = (step.split(".")[1] ?? "").length;
  return decimals ? `${whole}.${fraction.padEnd(decimals, "0")}` : text;
}

const NOTICE_MS = 6_000;

export function notice(text, kind = "info") {
  const box = make("p", `notice ${kind}`, text);
  $("notices").append(box);
  while ($("notices").children.length > 4) $("notices").firstChild.remove();
  setTimeout(() => box.remove(), NOTICE_MS);
}
