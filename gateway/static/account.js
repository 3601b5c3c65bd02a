// What belongs to the user: balances, open orders, fills. Fed by the private channels alone, which start with
// a snapshot; what an update does not say (an order's price) is asked for once over HTTP.

import { api } from "./api.js";
import { $, clock, grouped, make, notice, trimmed } from "./text.js";

const LIVE = new Set(["ACCEPTED", "OPEN", "PARTIALLY_FILLED"]);
const MOST_FILLS = 100;
const ENDINGS = {
  FILLED: "is filled", CANCELED: "is canceled", REJECTED: "was rejected", EXPIRED: "has expired",
};

export class Account {
  constructor({ onBalances }) {
    this.onBalances = onBalances;
    this.orders = new Map(); // Id -> order, live ones only.
    this.known = new Map(); // Id -> what was placed here, or "ended": updates may overtake the answer.
    this.balances = new Map();
    this.fills = [];
    this.canceling = new Set();
  }

  clear() {
    for (const kept of [this.orders, this.known, this.balances, this.canceling]) kept.clear();
    this.fills = [];
    this.drawOrders();
    this.drawFills();
    this.drawBalances();
  }

  // An order that has just been accepted; its updates may have come before the answer.
  placed(order) {
    if (this.known.get(order.order_id) === "ended") return;
    this.known.set(order.order_id, order);
    this.orders.set(order.order_id, { ...order, ...this.orders.get(order.order_id) });
    this.drawOrders();
  }

  takeOrders(data, snapshot) {
    if (snapshot) {
      this.orders = new Map(data.map((order) => [order.order_id, order]));
    } else {
      this.takeOrder(data);
    }
    this.drawOrders();
  }

  takeOrder(update) {
    const id = update.order_id;
    if (!LIVE.has(update.status)) {
      const why = update.reason ? ` (${update.reason.toLowerCase().replaceAll("_", " ")})` : "";
      const kind = update.status === "FILLED" ? "good" : update.status === "REJECTED" ? "bad" : "info";
      notice(`${update.side} ${update.symbol} order ${ENDINGS[update.status]}${why}.`, kind);
      this.orders.delete(id);
      this.canceling.delete(id);
      this.known.set(id, "ended");
      return;
    }
    const order = { ...this.known.get(id), ...this.orders.get(id), ...update };
    this.orders.set(id, order);
    if (order.type === undefined) this.complete(id); // Placed from elsewhere.
  }

  async complete(id) {
    const order = await api("GET", `/orders/${id}`).catch(() => null);
    if (order && this.orders.has(id)) {
      this.orders.set(id, { ...order, ...this.orders.get(id) });
      this.drawOrders();
    }
  }

  takeFills(data, snapshot) {
    this.fills = snapshot ? data : [data, ...this.fills];
    this.fills.length = Math.min(this.fills.length, MOST_FILLS);
    this.drawFills();
  }

  takeBalances(data, snapshot) {
    if (snapshot) this.balances.clear();
    for (const balance of snapshot ? data : [data]) this.balances.set(balance.asset, balance);
    this.drawBalances();
  }

  async cancel(id) {
    this.canceling.add(id);
    this.drawOrders();
    try {
      await api("DELETE", `/orders/${id}`);
    } catch (error) {
      this.canceling.delete(id);
      notice(`Not canceled: ${error.message}`, "bad");
      this.drawOrders();
    }
  }

  async cancelAll() {
    try {
      const { canceling } = await api("DELETE", "/orders");
      notice(canceling === 1 ? "1 order is being canceled." : `${canceling} orders are being canceled.`);
    } catch (error) {
      notice(`Not canceled: ${error.message}`, "bad");
    }
  }

  drawOrders() {
    const orders = [...this.orders.values()].sort((a, b) => Number(BigInt(b.order_id) - BigInt(a.order_id)));
    $("orders").replaceChildren(...orders.map((order) => this.orderRow(order)));
    $("orders-count").textContent = orders.length;
    $("orders-empty").hidden = orders.length > 0;
    $("cancel-all").hidden = orders.length === 0;
  }

  orderRow(order) {
    const row = make("tr");
    row.dataset.order = order.order_id;
    const amount = order.quantity ? trimmed(order.quantity) : order.quote_quantity ?? "…";
    row.append(
      cell("Market", order.symbol),
      cell("Side", order.side, order.side === "BUY" ? "up" : "down"),
      cell("Price", order.price ? grouped(order.price) : order.type === "MARKET" ? "Market" : "…"),
      cell("Quantity", amount),
      cell("Filled", trimmed(order.filled_quantity ?? "0")),
      cell("Status", order.status.replace("_", " ").toLowerCase(), "status"),
    );
    const button = make("button", "button small", this.canceling.has(order.order_id) ? "Canceling" : "Cancel");
    button.type = "button";
    button.disabled = this.canceling.has(order.order_id);
    button.setAttribute("aria-label", `Cancel ${order.side} ${amount} ${order.symbol}`);
    button.addEventListener("click", () => this.cancel(order.order_id));
    const action = make("td", "action");
    action.append(button);
    row.append(action);
    return row;
  }

  drawFills() {
    $("fills").replaceChildren(...this.fills.map((fill) => {
      const row = make("tr");
      row.append(
        cell("Time", clock(fill.time)),
        cell("Market", fill.symbol),
        cell("Side", fill.side, fill.side === "BUY" ? "up" : "down"),
        cell("Price", grouped(fill.price)),
        cell("Quantity", trimmed(fill.quantity)),
        cell("Fee", `${fill.fee} ${fill.fee_asset}`),
        cell("Role", fill.liquidity.toLowerCase()),
      );
      return row;
    }));
    $("fills-empty").hidden = this.fills.length > 0;
  }

  drawBalances() {
    $("balances").replaceChildren(...[...this.balances.values()].map((balance) => {
      const row = make("tr");
      row.append(
        cell("Asset", balance.asset), cell("Available", grouped(balance.available)),
        cell("Held", grouped(balance.held)),
      );
      return row;
    }));
    $("balances-empty").hidden = this.balances.size > 0;
    this.onBalances(this.balances);
  }
}

function cell(label, text, className) {
  const element = make("td", className, text);
  element.dataset.label = label;
  return element;
}
