// The WebSocket: one connection for everything, again and again, and no gap goes unnoticed.
//
// Each message names the sequence that it follows. When that is not the one seen last, the channel is left
// and taken again, which brings a snapshot. A new connection brings snapshots of everything.

const QUIET_MS = 30_000; // Without a word for so long, the connection counts as dead.
const PING_MS = 10_000;
const MOST_WAIT_MS = 8_000;
const RETRY_MS = 2_000;
const LATER = new Set(["UNAVAILABLE", "BUSY", "INTERNAL"]); // A part is away: nothing to tell, ask again.

export class Feed {
  // onState("connecting" | "live" | "waiting", ms), onError(code, message)
  constructor(url, { onState, onError }) {
    this.url = url;
    this.onState = onState;
    this.onError = onError;
    this.handlers = new Map(); // Channel -> handler(data, isSnapshot).
    this.sequences = new Map(); // Channel -> sequence seen last.
    this.token = null;
    this.signedIn = false;
    this.attempts = 0;
    this.lastId = 0;
    addEventListener("online", () => this.retryNow());
    setInterval(() => this.keepAlive(), PING_MS);
    this.connect();
  }

  subscribe(channel, handler) {
    this.handlers.set(channel, handler);
    if (this.open && (this.signedIn || !isPrivate(channel))) this.send({ op: "subscribe", channels: [channel] });
  }

  unsubscribe(channel) {
    this.sequences.delete(channel);
    if (this.handlers.delete(channel) && this.open) this.send({ op: "unsubscribe", channels: [channel] });
  }

  signIn(token) {
    this.token = token;
    if (this.open) this.send({ op: "auth", token });
  }

  signOut() {
    this.token = null;
    this.signedIn = false;
    for (const channel of [...this.handlers.keys()].filter(isPrivate)) this.unsubscribe(channel);
  }

  get open() { return this.socket?.readyState === WebSocket.OPEN; }

  send(message) { this.socket.send(JSON.stringify({ ...message, id: ++this.lastId })); }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.onState("connecting");
    const socket = new WebSocket(this.url);
    this.socket = socket;
    this.heard = Date.now();
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => { this.heard = Date.now(); this.receive(JSON.parse(event.data)); };
    socket.onclose = () => { if (socket === this.socket) this.closed(); };
  }

  opened() {
    this.attempts = 0;
    this.sequences.clear();
    this.signedIn = false;
    this.onState("live");
    const open = [...this.handlers.keys()].filter((channel) => !isPrivate(channel));
    if (open.length) this.send({ op: "subscribe", channels: open });
    if (this.token) this.send({ op: "auth", token: this.token });
  }

  closed() {
    this.signedIn = false;
    const wait = Math.min(MOST_WAIT_MS, 500 * 2 ** this.attempts++) * (0.75 + Math.random() / 2);
    this.onState("waiting", wait);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() { if (this.timer) this.connect(); }

  keepAlive() {
    if (!this.open) return;
    if (Date.now() - this.heard > QUIET_MS) {
      const dead = this.socket;
      this.socket = null;
      dead.close();
      this.closed();
    } else {
      this.send({ op: "ping" });
    }
  }

  receive(message) {
    if (message.channel) return this.take(message);
    if (message.op === "authenticated") {
      this.signedIn = true;
      const own = [...this.handlers.keys()].filter(isPrivate);
      if (own.length) this.send({ op: "subscribe", channels: own });
    } else if (message.op === "error") {
      this.refused(message.error);
    }
  }

  refused({ code, message, details }) {
    if (code === "UNAUTHENTICATED") this.signedIn = false;
    if (LATER.has(code)) setTimeout(() => this.askAgain(details?.channel), RETRY_MS);
    else this.onError(code, message);
  }

  askAgain(channel) {
    if (!this.open) return;
    if (this.token && !this.signedIn) this.send({ op: "auth", token: this.token });
    else if (this.handlers.has(channel)) this.send({ op: "subscribe", channels: [channel] });
  }

  take({ channel, type, sequence, previous, data }) {
    const handler = this.handlers.get(channel);
    if (!handler) return; // Left a moment ago.
    const snapshot = type === "snapshot";
    if (!snapshot && this.sequences.get(channel) !== previous) {
      if (this.sequences.delete(channel)) {
        this.send({ op: "unsubscribe", channels: [channel] });
        this.send({ op: "subscribe", channels: [channel] });
      }
      return; // Until the snapshot comes.
    }
    this.sequences.set(channel, sequence);
    handler(data, snapshot);
  }
}

const isPrivate = (channel) => !channel.includes(":");
