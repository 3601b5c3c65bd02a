// The page's root: which market is shown, who is signed in, and what goes where.

import { Account } from "./account.js";
import { api, session } from "./api.js";
import { Book } from "./book.js";
import { Chart } from "./chart.js";
import { Feed } from "./feed.js";
import { OrderForm } from "./form.js";
import { Tape } from "./tape.js";
import { $, compact, grouped, make, notice } from "./text.js";

const INTERVALS = ["1m", "5m", "15m", "1h", "1d"];
const OWN = ["orders", "balances", "fills"];

const state = { markets: [], market: null, interval: "1m", last: null };

const form = new OrderForm({
  onPlaced: (order) => account.placed(order),
  onJoin: () => join(),
  signedIn: () => session.token !== null,
});
const account = new Account({ onBalances: (balances) => form.takeBalances(balances) });
const book = new Book((price) => form.pickPrice(price));
const tape = new Tape();
const chart = new Chart($("chart"));
const feed = new Feed(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  onState: showConnection,
  onError: (code, message) => (code === "UNAUTHENTICATED" && session.token ? signOut(message) : notice(message, "bad")),
});

start();

async function start() {
  for (const interval of INTERVALS) addSegment($("intervals"), interval, () => showInterval(interval));
  $("join").addEventListener("click", join);
  $("leave").addEventListener("click", () => signOut());
  $("recharge").addEventListener("click", recharge);
  $("cancel-all").addEventListener("click", () => account.cancelAll());
  addTabs();
  showSession();
  if (session.token) signIn();
  await loadMarkets();
  const asked = location.hash.slice(1);
  for (const market of state.markets) addSegment($("markets"), market.symbol, () => showMarket(market));
  showMarket(state.markets.find((market) => market.symbol === asked) ?? state.markets[0]);
}

async function loadMarkets() {
  while (!state.markets.length) {
    state.markets = await api("GET", "/markets").catch(() => []);
    if (!state.markets.length) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

// ---- market ------------------------------------------------------------------------------------

function showMarket(market) {
  if (state.market) {
    for (const kind of ["depth", "trades", "ticker"]) feed.unsubscribe(`${kind}:${state.market.symbol}`);
    feed.unsubscribe(candles());
  }
  state.market = market;
  state.last = null;
  history.replaceState(null, "", `#${market.symbol}`);
  press($("markets"), market.symbol);
  for (const part of [book, tape, chart]) part.clear();
  for (const id of ["book", "trades"]) {
    $(`${id}-price-unit`).textContent = `Price (${market.quote})`;
    $(`${id}-quantity-unit`).textContent = `Qty (${market.base})`;
  }
  form.show(market);
  feed.subscribe(`depth:${market.symbol}`, (data, snapshot) => book.take(data, snapshot));
  feed.subscribe(`trades:${market.symbol}`, (data, snapshot) => tape.take(data, snapshot));
  feed.subscribe(`ticker:${market.symbol}`, showTicker);
  showInterval(state.interval);
}

const candles = () => `klines:${state.market.symbol}:${state.interval}`;

function showInterval(interval) {
  feed.unsubscribe(candles());
  state.interval = interval;
  press($("intervals"), interval);
  chart.clear();
  const channel = candles();
  feed.subscribe(channel, (data, snapshot) => {
    if (snapshot) loadCandles(channel);
    else [data].flat().forEach((candle) => chart.update(candle));
  });
}

// The snapshot on the channel says that the stream has begun; the history comes over HTTP.
async function loadCandles(channel) {
  const { symbol } = state.market;
  try {
    const history = await api("GET", `/klines?symbol=${symbol}&interval=${state.interval}&limit=500`);
    if (channel === candles()) chart.show(history);
  } catch (error) {
    notice(`No candles: ${error.message}`, "bad");
  }
}

function showTicker(ticker) {
  const last = $("ticker-last");
  if (state.last !== null && ticker.last !== null && ticker.last !== state.last) {
    last.className = Number(ticker.last) > Number(state.last) ? "up" : "down";
  }
  if (ticker.last !== state.last) form.takeLast(ticker.last);
  state.last = ticker.last;
  last.textContent = grouped(ticker.last);
  const open = Number(ticker.open), change = open ? (100 * (Number(ticker.last) - open)) / open : null;
  $("ticker-change").textContent = change === null ? "–" : `${change > 0 ? "+" : ""}${change.toFixed(2)} %`;
  $("ticker-change").className = change > 0 ? "up" : change < 0 ? "down" : "";
  $("ticker-high").textContent = grouped(ticker.high);
  $("ticker-low").textContent = grouped(ticker.low);
  $("ticker-volume").textContent = `${compact(ticker.volume)} ${state.market.base}`;
  document.title = `${grouped(ticker.last)} ${ticker.symbol} · Exchange`;
}

// ---- session -----------------------------------------------------------------------------------

async function join() {
  $("join").disabled = true;
  try {
    const user = await api("POST", "/test/join");
    session.token = user.token;
    signIn();
    notice(`Welcome. You are user ${user.user_id} and have play money to trade with.`, "good");
  } catch (error) {
    const closed = error.status === 404;
    notice(closed ? "This exchange has no test users." : `Could not join: ${error.message}`, "bad");
  } finally {
    $("join").disabled = false;
  }
}

function signIn() {
  const take = {
    orders: (data, snapshot) => account.takeOrders(data, snapshot),
    balances: (data, snapshot) => account.takeBalances(data, snapshot),
    fills: (data, snapshot) => account.takeFills(data, snapshot),
  };
  for (const channel of OWN) feed.subscribe(channel, take[channel]);
  feed.signIn(session.token);
  showSession();
}

function signOut(why) {
  session.token = null;
  feed.signOut();
  account.clear();
  showSession();
  if (why) notice(`You have been signed out: ${why}`, "bad");
}

function showSession() {
  const signedIn = session.token !== null;
  $("join").hidden = signedIn;
  for (const id of ["leave", "recharge"]) $(id).hidden = !signedIn;
  form.draw();
}

async function recharge() {
  try {
    const { balances } = await api("POST", "/test/recharge");
    account.takeBalances(balances, true);
    notice("Your balances have been filled up.", "good");
  } catch (error) {
    notice(`Not recharged: ${error.message}`, "bad");
  }
}

// ---- chrome ------------------------------------------------------------------------------------

function showConnection(now, waitMs) {
  const texts = { connecting: "Connecting", live: "Live", waiting: `Offline, again in ${Math.ceil(waitMs / 1000)} s` };
  $("connection").dataset.state = now;
  $("connection").firstElementChild.textContent = texts[now];
}

function addSegment(group, text, onPress) {
  const button = make("button", "segment", text);
  button.type = "button";
  button.dataset.name = text;
  button.addEventListener("click", onPress);
  group.append(button);
}

function press(group, name) {
  for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
}

function addTabs() {
  const tabs = [$("tab-orders"), $("tab-fills")];
  const select = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      $(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[1 - index];
      select(other);
      other.focus();
    });
  });
}
