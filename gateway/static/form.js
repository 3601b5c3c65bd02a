// The order form. The exchange is the judge of every order; here is only what helps to fill it in.

import { api, ApiError } from "./api.js";
import { $, grouped, make, money, padded } from "./text.js";

const FIELDS = ["price", "quantity", "quote_quantity"];

export class OrderForm {
  constructor({ onPlaced, onJoin, signedIn }) {
    this.form = $("order");
    this.onPlaced = onPlaced;
    this.onJoin = onJoin;
    this.signedIn = signedIn;
    this.market = null;
    this.balances = new Map();
    this.attempt = null; // An order without an answer, so that sending it again is the same order.
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    this.form.addEventListener("input", () => { this.attempt = null; this.draw(); });
  }

  get values() { return Object.fromEntries(new FormData(this.form)); }

  show(market) {
    this.market = market;
    this.last = null;
    for (const field of FIELDS) this.form[field].value = "";
    for (const id of ["price-unit", "amount-quote", "spend-unit"]) $(id).textContent = market.quote;
    for (const id of ["quantity-unit", "amount-base"]) $(id).textContent = market.base;
    this.form.price.placeholder = `multiple of ${market.tick_size}`;
    this.form.quantity.placeholder = `multiple of ${market.lot_size}`;
    this.form.quote_quantity.placeholder = `at least ${market.min_notional}`;
    this.clearErrors();
    this.draw();
  }

  pickPrice(price) {
    this.form.type.value = "LIMIT";
    this.form.price.value = price;
    this.attempt = null;
    this.draw();
  }

  takeLast(price) {
    this.last = price;
    this.draw();
  }

  takeBalances(balances) {
    this.balances = balances;
    this.draw();
  }

  draw() {
    if (!this.market) return;
    const { side, type, amount } = this.values;
    const limit = type === "LIMIT", marketBuy = !limit && side === "BUY";
    const spend = marketBuy && amount === "quote_quantity";
    this.field("price").hidden = !limit;
    $("amount-in").hidden = !marketBuy;
    this.field("quantity").hidden = spend;
    this.field("quote_quantity").hidden = !spend;
    this.drawTimeInForce(limit);
    const { price, quantity, quote_quantity } = this.values;
    const value = spend ? Number(quote_quantity) : Number(limit ? price : this.last) * Number(quantity);
    const about = limit || spend ? "" : "about ";
    $("value").textContent = value > 0 ? `${about}${money(value)} ${this.market.quote}` : "–";
    const asset = side === "BUY" ? this.market.quote : this.market.base;
    const available = this.balances.get(asset)?.available;
    $("available").textContent = available === undefined ? "–" : `${grouped(available)} ${asset}`;
    const submit = $("submit");
    submit.textContent = this.signedIn() ? `${side === "BUY" ? "Buy" : "Sell"} ${this.market.base}` : "Join to trade";
    submit.classList.toggle("sell", this.signedIn() && side === "SELL");
    submit.classList.toggle("buy", this.signedIn() && side === "BUY");
  }

  drawTimeInForce(limit) {
    const select = this.form.time_in_force;
    select.options[0].disabled = !limit;
    if (!limit && select.value === "GTC") select.value = "IOC";
    if (limit && this.wasLimit === false) select.value = "GTC";
    this.wasLimit = limit;
    const post = this.form.post_only;
    post.disabled = !limit || select.value !== "GTC";
    if (post.disabled) post.checked = false;
    $("post-only-label").classList.toggle("off", post.disabled);
  }

  field(name) { return this.form.querySelector(`[data-field="${name}"]`); }

  order() {
    const { side, type, amount, time_in_force, post_only, ...typed } = this.values;
    const limit = type === "LIMIT";
    const order = { symbol: this.market.symbol, side, type, time_in_force };
    if (limit) order.price = number(typed.price);
    if (!limit && side === "BUY" && amount === "quote_quantity") order.quote_quantity = number(typed.quote_quantity);
    else order.quantity = number(typed.quantity);
    if (post_only) order.post_only = true;
    return order;
  }

  // What is missing is said without asking; everything else is the exchange's to say.
  missing(order) {
    return FIELDS.filter((field) => order[field] === "").map((field) => [field, "Please fill this in."]);
  }

  async submit() {
    if (!this.signedIn()) return this.onJoin();
    this.clearErrors();
    const order = this.order();
    const missing = this.missing(order);
    if (missing.length) return this.showErrors(missing);
    this.attempt ??= { ...order, client_order_id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
    const sent = this.attempt;
    this.busy(true);
    try {
      const accepted = await api("POST", "/orders", sent);
      this.attempt = null;
      this.say(`Order ${accepted.order_id} accepted.`, "good");
      const price = sent.price && padded(sent.price, this.market.tick_size);
      this.onPlaced({ ...sent, ...accepted, price, filled_quantity: "0" });
    } catch (error) {
      this.refused(error);
    } finally {
      this.busy(false);
    }
    return undefined;
  }

  // Without an answer the attempt is kept: pressing the button again asks for the same order.
  refused(error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status !== 0 && error.status !== 503) this.attempt = null;
    const shown = this.showErrors(Object.entries(error.details).filter(([field]) => FIELDS.includes(field)));
    if (!shown) this.say(error.message + (this.attempt ? " Press again to send the same order." : ""), "bad");
  }

  showErrors(errors) {
    for (const [field, text] of errors) {
      $(`${field}-error`).textContent = text;
      this.form[field].setAttribute("aria-invalid", "true");
    }
    if (errors.length) this.form[errors[0][0]].focus();
    return errors.length > 0;
  }

  clearErrors() {
    for (const field of FIELDS) {
      $(`${field}-error`).textContent = "";
      this.form[field].removeAttribute("aria-invalid");
    }
    this.say("");
  }

  say(text, kind = "") {
    $("order-message").replaceChildren(make("span", kind, text));
  }

  busy(busy) { $("submit").disabled = busy; }
}

const number = (text) => text.trim().replaceAll(",", "");
