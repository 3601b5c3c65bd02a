// Pieces that both halves of the page use.

import { make } from "./text.js";

export function link(href, text) {
  const anchor = make("a", "", text);
  anchor.href = href;
  return anchor;
}

// A sentence, in which `names` stand as code.
export function words(tag, className, text) {
  const element = make(tag, className);
  element.append(...text.split("`").map((part, n) => (n % 2 ? make("code", "", part) : part)));
  return element;
}

const SHOWN_MS = 1_500;

// A block of text to copy. Without the clipboard (no secure context) the button selects the text instead.
export function code(text, label = "Copy") {
  const block = make("div", "code");
  const shown = make("pre", "", text);
  shown.tabIndex = 0;
  const button = make("button", "copy", label);
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = label; }, SHOWN_MS);
  });
  block.append(shown, button);
  return block;
}

export function folded(summary, ...inside) {
  const details = make("details");
  details.append(make("summary", "", summary), ...inside);
  return details;
}

// Rows of cells, which are texts or elements; a table of its own scrolls by itself in a narrow window.
export function table(heads, rows, className = "") {
  const box = make("div", "wide");
  const made = make("table", className);
  const head = make("tr");
  head.append(...heads.map((text) => make("th", "", text)));
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    for (const cell of row) {
      const place = make("td");
      place.append(cell);
      line.append(place);
    }
    body.append(line);
  }
  const top = make("thead");
  top.append(head);
  made.append(top, body);
  box.append(made);
  return box;
}
