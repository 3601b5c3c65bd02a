// The order book: levels by price, drawn at most once a frame into rows that are made once.

import { $, grouped, make, money } from "./text.js";

const ROWS = 12;

export class Book {
  constructor(onPick) {
    this.sides = { bids: new Map(), asks: new Map() };
    this.rows = { bids: makeRows($("bids"), onPick), asks: makeRows($("asks"), onPick) };
    this.scheduled = false;
  }

  clear() {
    this.sides.bids.clear();
    this.sides.asks.clear();
    this.draw();
  }

  take(data, snapshot) {
    for (const name of ["bids", "asks"]) {
      const side = this.sides[name];
      if (snapshot) side.clear();
      for (const [price, quantity] of data[name]) {
        if (Number(quantity) === 0) side.delete(price);
        else side.set(price, quantity);
      }
    }
    this.draw();
  }

  draw() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => { this.scheduled = false; this.drawNow(); });
  }

  drawNow() {
    const bids = best(this.sides.bids, (a, b) => b - a);
    const asks = best(this.sides.asks, (a, b) => a - b);
    const most = Math.max(bids.at(-1)?.total ?? 0, asks.at(-1)?.total ?? 0);
    drawSide(this.rows.bids, bids, most);
    drawSide(this.rows.asks, asks, most);
    const bid = bids[0], ask = asks[0];
    $("mid").textContent = bid && ask ? grouped(((bid.value + ask.value) / 2).toFixed(2)) : "–";
    const spread = bid && ask ? ask.value - bid.value : null;
    $("spread").textContent = spread === null ? "Spread –" :
      `Spread ${money(spread)} (${((100 * spread) / ask.value).toFixed(3)} %)`;
  }
}

function best(side, order) {
  const levels = [...side].map(([price, quantity]) => ({ price, quantity, value: Number(price) }));
  levels.sort((a, b) => order(a.value, b.value));
  levels.length = Math.min(levels.length, ROWS);
  let total = 0;
  for (const level of levels) {
    total += Number(level.quantity);
    level.total = total;
  }
  return levels;
}

function makeRows(list, onPick) {
  return Array.from({ length: ROWS }, () => {
    const item = make("li", "level vacant");
    const button = make("button", "level-button");
    button.type = "button";
    button.disabled = true;
    const cells = ["price", "quantity", "total"].map((name) => make("span", name));
    button.append(...cells);
    button.addEventListener("click", () => onPick(button.dataset.price));
    item.append(button);
    list.append(item);
    return { item, button, cells };
  });
}

function drawSide(rows, levels, most) {
  rows.forEach(({ item, button, cells }, index) => {
    const level = levels[index];
    item.classList.toggle("vacant", !level);
    button.disabled = !level;
    const [price, quantity, total] = level ? [level.price, level.quantity, level.total.toFixed(4)] : ["", "", ""];
    set(cells[0], price && grouped(price));
    set(cells[1], quantity && grouped(quantity));
    set(cells[2], total && grouped(total));
    button.dataset.price = price;
    item.style.setProperty("--depth", level && most ? (level.total / most).toFixed(4) : "0");
  });
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
