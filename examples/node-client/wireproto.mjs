// A client of the wire protocol: Node's standard library, the codec pipe, calls and streams. All it knows is in
// docs/protocol.md, whose sections are the numbers in brackets. A method is { opcode, request, response, stream }, with
// types of pipe.mjs.
import net from "node:net";
import * as pipe from "./pipe.mjs";

const PREAMBLE = Buffer.from([0xf5, 0x57, 0x50, 1]);
const [HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END] = [1, 2, 3, 4, 5, 6], [ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY] = [7, 8, 9, 10, 11, 12];
const ANSWERS = [RESPONSE, ITEM, END, ERROR], OF_MESSAGES = [REQUEST, RESPONSE, ITEM];
const RECEIVED = { greeting: [WELCOME], open: [...ANSWERS, PING, PONG, GOAWAY], draining: [...ANSWERS, PING, PONG] }; // (7)
const PIPE = 1, HEADER = 16, HELLO_MAX_FRAME = 4096, MAX_FRAME = 1 << 20, MAX_STRAYS = 16;
const NEVER = 0, NOT_PROCESSED = 1, MAYBE_PROCESSED = 2, UNAVAILABLE = 14;

/** A call, or the opening of a connection, that failed: gRPC's status, a reason for programs, and advice (9). */
export class CallError extends Error {
  constructor(status, reason, message, retry = NEVER, retryAfterMs = 0) {
    super(message);
    Object.assign(this, { status, reason, retry, retryAfterMs });
  }
}

/** What the protocol does not allow: the server is told, and the connection ends (8). */
class Broken extends CallError {
  constructor(reason, message = reason) { super(3, reason, message); }
}

function bytes(size, ...numbers) { // big endian numbers of one size
  const out = Buffer.alloc(size * numbers.length);
  numbers.forEach((number, at) => out.writeUIntBE(number, at * size, size));
  return out;
}
const text8 = (text) => Buffer.concat([bytes(1, Buffer.byteLength(text)), Buffer.from(text)]);
const field = (key, value) => value && Buffer.concat([bytes(1, key), bytes(2, value.length), value]); // of metadata (5)

/** Takes a body of fixed layout apart (3, 6). */
class Body {
  constructor(data) { Object.assign(this, { data, at: 0 }); }
  take(size) {
    if ((this.at += size) > this.data.length) throw new Broken("BAD_BODY", "it ends early");
    return this.data.subarray(this.at - size, this.at);
  }
  number(size) { return this.take(size).readUIntBE(0, size); }
  text(lengthSize) {
    const data = this.take(this.number(lengthSize));
    try { return pipe.utf8(data); } catch { throw new Broken("BAD_BODY", "a text is not UTF-8"); }
  }
  skipFields(keySize) { while (this.at < this.data.length) this.number(keySize), this.take(this.number(2)); }
  error() {
    const [status, retry, after, reason, message] = [this.number(1), this.number(1), this.number(4), this.text(1), this.text(2)];
    this.skipFields(1);
    if (status < 1 || status > 16 || retry > 2 || !/^([A-Z][A-Z0-9_]{0,63})?$/.test(reason)) throw new Broken("BAD_BODY", "no such error");
    return new CallError(status, reason, message, retry, after);
  }
}

export class Connection {
  #state = "greeting"; #calls = new Map(); #lastId = 0; #strays = 0; #input = Buffer.alloc(0); #maxFrame = HELLO_MAX_FRAME; #heard; #end;

  /** Connects and greets; `versions` are the oldest and the newest of the service that the caller speaks. */
  static open({ host, port, service, versions = [1, 1], name = "node" }) {
    return new Promise((resolve, reject) => new Connection(host, port, { service, versions, name }, resolve, reject));
  }
  constructor(host, port, wanted, opened, refused) {
    Object.assign(this, { wanted, opened, refused });
    const lost = (message) => this.#over(new CallError(UNAVAILABLE, "", message));
    // Half open, because the reason for our end is still to be sent when the server has ended its side.
    this.socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true });
    this.socket.on("connect", () => this.#greet()).on("data", (data) => this.#receive(data)).on("end", () => this.#ended());
    this.socket.on("error", (error) => lost(error.message)).on("close", () => lost("the connection was lost"));
  }
  #greet() { // (3)
    const { versions, name, service } = this.wanted, offer = [bytes(1, ...versions), bytes(4, MAX_FRAME, 0, 0, 0, 0), bytes(1, 1, PIPE)];
    this.socket.write(PREAMBLE);
    this.#send(HELLO, {}, ...offer, text8("pipe"), text8(name), text8(service));
  }
  #send(kind, { id = 0, opcode = 0, metadata = Buffer.alloc(0) } = {}, ...parts) { // (2)
    const payload = Buffer.concat(parts), [codec, version] = kind === REQUEST ? [PIPE, this.version] : [0, 0];
    const [length, head] = [bytes(4, 12 + metadata.length + payload.length), bytes(1, kind, 0, codec, version)];
    const data = [length, head, bytes(2, opcode, metadata.length), bytes(4, id), metadata, payload];
    if (this.socket.writable) this.socket.write(Buffer.concat(data));
  }

  // Receiving: whatever is wrong is thrown as Broken.

  #receive(data) {
    this.#heard = Date.now();
    this.#input = Buffer.concat([this.#input, data]);
    try {
      while (!this.#end && (this.greeted ? this.#frame() : this.#preamble()));
    } catch (problem) {
      if (!(problem instanceof Broken)) throw problem;
      this.#fail(problem);
    }
  }
  #preamble() { // (1)
    const first = this.#input.subarray(0, 4);
    if (!PREAMBLE.subarray(0, first.length).equals(first)) {
      this.#over(new CallError(9, "FOREIGN_PROTOCOL", `the server begins with ${first.toString("hex")}`));
      this.socket.destroy(); // we send nothing to whoever that is
    } else if (first.length === 4) this.#input = this.#input.subarray(4);
    return (this.greeted = first.length === 4);
  }
  #frame() { // (2), the checks in their order
    if (this.#input.length < 4) return false;
    const length = this.#input.readUInt32BE(0);
    if (length > this.#maxFrame) throw new Broken("FRAME_TOO_LARGE", `a frame of ${length} bytes`);
    if (length < HEADER - 4) throw new Broken("FRAME_TOO_SHORT");
    if (this.#input.length < 4 + length) return false;
    const data = this.#input.subarray(0, 4 + length), [kind, flags, codec, version] = data.subarray(4, 8);
    this.#input = this.#input.subarray(4 + length);
    const [opcode, metadataLength, id] = [data.readUInt16BE(8), data.readUInt16BE(10), data.readUInt32BE(12)];
    if (HEADER + metadataLength > data.length) throw new Broken("METADATA_OVERRUN");
    if (kind >= 128 && this.#state !== "greeting") return true; // to be ignored
    if (kind < HELLO || (kind > GOAWAY && kind < 128)) throw new Broken("UNKNOWN_KIND", `kind ${kind}`);
    const final = kind === ERROR && !id, ofMessage = OF_MESSAGES.includes(kind);
    if (!final && !RECEIVED[this.#state].includes(kind)) throw new Broken("UNEXPECTED_KIND", `kind ${kind} while ${this.#state}`);
    if (flags) throw new Broken("RESERVED_FLAGS");
    if (codec !== (ofMessage ? PIPE : 0)) throw new Broken("WRONG_CODEC");
    if (version !== (ofMessage ? this.version : 0)) throw new Broken("WRONG_VERSION");
    if (!final && ANSWERS.includes(kind) === !id) throw new Broken("CALL_ID");
    if (!id && opcode) throw new Broken("WRONG_OPCODE");
    if (metadataLength) throw new Broken("UNEXPECTED_METADATA");
    const payload = data.subarray(HEADER);
    if (final) this.#leave(new Body(payload).error());
    else if (id) this.#answer(kind, id, opcode, payload);
    else if (kind === WELCOME) this.#welcome(new Body(payload));
    else if (kind === GOAWAY) this.#goaway(new Body(payload));
    else if (payload.length !== 8) throw new Broken("BAD_BODY", "a PING or PONG has 8 bytes");
    else if (kind === PING) this.#send(PONG, {}, payload);
    return true;
  }
  #welcome(body) { // (3)
    const [version, codec, maxFrame, maxCalls, heartbeat, ...features] = [1, 1, 4, 4, 4, 4, 4].map((size) => body.number(size));
    body.text(1), body.skipFields(2);
    const [oldest, newest] = this.wanted.versions, offered = version >= oldest && version <= newest && codec === PIPE && !features.some(Boolean);
    if (!offered || maxFrame < HELLO_MAX_FRAME || !maxCalls) throw new Broken("BAD_BODY", "WELCOME says what it must not");
    if (heartbeat) this.timer = setInterval(() => this.#beat(heartbeat), heartbeat / 2).unref();
    [this.version, this.theirMaxFrame, this.#maxFrame, this.#state] = [version, maxFrame, MAX_FRAME, "open"];
    this.opened(this);
  }
  #beat(heartbeat) { // (4)
    if (Date.now() - this.#heard > 3 * heartbeat) this.socket.destroy();
    else if (Date.now() - this.#heard >= heartbeat) this.#send(PING, {}, Buffer.from("nodejs!!"));
  }
  #answer(kind, id, opcode, payload) { // (4)
    const call = this.#calls.get(id);
    if (!call && ++this.#strays > MAX_STRAYS) throw new Broken("STRAY_ANSWERS");
    if (!call) return;
    if (call.method.opcode !== opcode) throw new Broken("WRONG_OPCODE");
    if (kind !== ERROR && !call.method.stream !== (kind === RESPONSE)) throw new Broken("WRONG_ANSWER");
    if (kind === ITEM && --call.credit < 0) throw new Broken("CREDIT_EXCEEDED");
    if (kind === END && payload.length) throw new Broken("BAD_BODY", "an END is empty");
    const error = kind === ERROR && new Body(payload).error();
    if (kind !== ITEM) this.#calls.delete(id);
    if (call.cancelled || error) return call.cancelled || call.fail(error);
    if (kind === END) return call.done();
    try {
      call.take(pipe.decode(call.method.response, payload, this.version));
    } catch (problem) { // a payload that is wrong fails its call, and the connection goes on (8)
      this.#cancel(id);
      call.fail(new CallError(13, "BAD_PAYLOAD", problem.message, MAYBE_PROCESSED));
    }
  }
  #goaway(body) { // (4)
    const last = body.number(4), error = Object.assign(body.error(), { retry: NOT_PROCESSED });
    this.#state = "draining";
    for (const [id, call] of this.#calls) if (id !== last && (id - last) >>> 0 < 2 ** 31) this.#calls.delete(id), call.fail(error);
  }

  // Calling (4). Options are deadlineMs, traceparent, authorization, idempotencyKey (a Buffer) and entries.

  /** Calls a unary method. The promise has cancel(), after which it is never settled. */
  call(method, request, options) {
    let id;
    const answer = new Promise((take, fail) => { id = this.#begin(method, request, options, { take, fail }); });
    return Object.assign(answer, { cancel: () => this.#cancel(id) });
  }
  /** Calls a stream; items come by `for await`, and leaving the loop cancels it. Credit goes back as items are taken. */
  async *stream(method, request, { credit = 64, ...options } = {}) {
    const queue = []; // items, and behind them null or an error
    let wake, taken = 0;
    const put = (each) => { queue.push(each), wake?.(); };
    const id = this.#begin(method, request, { ...options, credit }, { take: put, fail: put, done: () => put(null) });
    try {
      for (;;) {
        if (!queue.length) await new Promise((resolve) => { wake = resolve; });
        const next = queue.shift(), call = this.#calls.get(id);
        if (next === null) return;
        if (next instanceof Error) throw next;
        yield next;
        if (++taken < credit / 2 || !call || call.cancelled || !this.#calls.has(id)) continue;
        this.#send(CREDIT, { id, opcode: method.opcode }, bytes(4, taken));
        [call.credit, taken] = [call.credit + taken, 0];
      }
    } finally {
      this.#cancel(id);
    }
  }
  #begin(method, request, { deadlineMs, traceparent, authorization, idempotencyKey, entries = {}, credit } = {}, call) {
    const own = Object.entries(entries).map(([name, value]) => field(6, Buffer.concat([text8(name), Buffer.from(value)])));
    const texts = [traceparent, authorization].map((text, at) => field(2 + at, text && Buffer.from(text)));
    const others = [field(1, deadlineMs && bytes(4, deadlineMs)), field(4, idempotencyKey), field(5, method.stream && bytes(4, credit))];
    const metadata = Buffer.concat([...texts, ...others, ...own].filter(Boolean));
    if (this.#state !== "open") throw this.#end ?? new CallError(UNAVAILABLE, "SHUTTING_DOWN", "the server takes no more calls", NOT_PROCESSED);
    const payload = pipe.encode(method.request, request, this.version);
    const length = 12 + metadata.length + payload.length;
    if (length > this.theirMaxFrame) throw new CallError(8, "REQUEST_TOO_LARGE", "it is longer than the server accepts");
    do this.#lastId = (this.#lastId % 0xffffffff) + 1; while (this.#calls.has(this.#lastId));
    const id = this.#lastId, late = new CallError(4, "DEADLINE", "the time is over", MAYBE_PROCESSED);
    this.#calls.set(id, { ...call, method, credit });
    this.#send(REQUEST, { id, opcode: method.opcode, metadata }, payload);
    if (deadlineMs) setTimeout(() => this.#cancel(id) && call.fail(late), deadlineMs).unref();
    return id;
  }
  #cancel(id) { // whether there was something to cancel
    const call = this.#calls.get(id);
    if (!call || call.cancelled) return false;
    this.#send(CANCEL, { id, opcode: call.method.opcode });
    return (call.cancelled = true);
  }

  // The end (8).

  /** Ends the connection; calls in flight fail. */
  close() { this.#leave(new CallError(UNAVAILABLE, "", "the client was closed")); }
  #ended() {
    if (this.#input.length && !this.#end) this.#fail(new Broken("TRUNCATED_FRAME"));
    else this.#leave(new CallError(UNAVAILABLE, "", "the server ended the connection"));
  }
  #fail({ status, reason, message }) {
    this.#send(ERROR, {}, bytes(1, status, NEVER), bytes(4, 0), text8(reason), bytes(2, Buffer.byteLength(message)), Buffer.from(message));
    this.#leave(new CallError(status, reason, message));
  }
  #leave(error) { // sends no more; what still comes is dropped, for a second
    this.#over(error);
    this.socket.end();
    setTimeout(() => this.socket.destroy(), 1000).unref();
  }
  #over(error) {
    if (this.#end) return;
    [this.#end, this.#state] = [error, "closed"];
    clearInterval(this.timer);
    this.refused(error); // does nothing once the connection was opened
    const { status, reason, message, retryAfterMs } = error, lost = new CallError(status, reason, message, MAYBE_PROCESSED, retryAfterMs);
    for (const call of this.#calls.values()) if (!call.cancelled) call.fail(lost);
    this.#calls.clear();
  }
}
