// The latest trades, newest on top.

import { $, clock, grouped, make } from "./text.js";

const ROWS = 40;

export class Tape {
  constructor() { this.list = $("trades"); }

  clear() { this.list.replaceChildren(); }

  // Trades oldest first, as they come.
  take(trades, snapshot) {
    if (snapshot) this.clear();
    const rows = trades.slice(-ROWS).map((trade) => {
      const row = make("li", trade.taker_side === "BUY" ? "up" : "down");
      row.append(
        make("span", "price", grouped(trade.price)),
        make("span", "quantity", trade.quantity),
        make("span", "time", clock(trade.time)),
      );
      return row;
    });
    this.list.prepend(...rows.reverse());
    while (this.list.children.length > ROWS) this.list.lastChild.remove();
  }
}
