// A client for major version 1 of the wire protocol, with the pipe codec. The sections named are those of wire.md.
import { isUtf8 } from 'node:buffer'
import net from 'node:net'
import zlib from 'node:zlib'
import { Answers } from './answering.mjs'
import { decode, encode } from './pipe.mjs'

const [HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
const [OF_MESSAGES, OF_CALLS, EMPTY] = [[REQUEST, RESPONSE, ITEM], [REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT], [END, CANCEL]]
const RECEIVES = { greeting: [WELCOME], open: [...OF_CALLS, PING, PONG, GOAWAY], draining: [...OF_CALLS, PING, PONG] } // section 7
const [ONE_WAY, PACKED, ITEMS_FOLLOW, ITEMS_COME_BACK, REQUEST_FLAGS] = [1, 2, 4, 8, [0, 1, 4, 8, 12]] // section 2, as are
const [ZLIB, PACKED_FROM] = [1, 512]
const [TOP_BIT, CIRCLE, MAX_CROSSED, REFILL] = [2 ** 31, 2 ** 31, 1000, 8] // section 4, as are
const [MAX_CHATTER, CHATTER_PER_SECOND, CHATTER_PER_FRAME] = [1000, 20, 4]
const [UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, INTERNAL, UNAVAILABLE, DATA_LOSS] = [2, 3, 4, 8, 9, 13, 14, 15]
const [NEVER, NOT_PROCESSED, MAYBE_PROCESSED, PIPE] = [0, 1, 2, 1]
const [HELLO_MAX_FRAME, MAX_FRAME, HEARTBEAT] = [4096, 1 << 20, 60000] // section 10, as are
const [HELLO_TIMEOUT, LINGER, LINGER_BYTES, MAX_STRAY_ANSWERS, MIN_HEARTBEAT, HEARTBEATS] = [5000, 1000, 1 << 18, 16, 1000, 3]
export class WireError extends Error {
  constructor(status, reason, message = reason, retry = NEVER, retryAfterMs = 0) { Object.assign(super(message), { status, reason, retry, retryAfterMs }) }
  but(retry) { return new WireError(this.status, this.reason, this.message, retry, this.retryAfterMs) }
}
const broken = reason => new WireError(reason === 'TOO_MANY_FRAMES' ? RESOURCE_EXHAUSTED : INVALID_ARGUMENT, reason, `the server broke a rule: ${reason}`)
export const errorBody = error => Buffer.concat([ints([1, 1, 4], [error.status, error.retry, error.retryAfterMs]), sized(1, error.reason), sized(2, error.message)])
const U32_MAX = 0xffffffff
export const check = (fine, reason) => { if (!fine) throw broken(reason) }
export const ints = (sizes, values) => Buffer.from(sizes.map((size, i) => values[i].toString(16).padStart(2 * size, '0')).join(''), 'hex')
const sized = (size, value) => Buffer.concat([ints([size], [Buffer.byteLength(value)]), Buffer.from(value)])

function unpacked(payload) { // what a packed payload stands for, and never more than it says (section 2)
  try {
    const [size, stream] = [payload.readUInt32BE(), payload.subarray(4)]
    const { buffer, engine } = zlib.inflateSync(stream, { maxOutputLength: size, info: true })
    if (buffer.length === size && engine.bytesWritten === stream.length) return buffer
  } catch {} // it is cut, or holds more, or is none
  throw new WireError(DATA_LOSS, 'BAD_PAYLOAD', 'the answer is packed wrongly', MAYBE_PROCESSED)
}

class Body { // reads integers and bodies of fixed layout (section 6)
  constructor(all) { Object.assign(this, { all, at: 0 }) }
  get left() { return this.all.length - this.at }
  bytes(size) {
    check(size <= this.left, 'BAD_BODY')
    return this.all.subarray(this.at, this.at += size)
  }
  ints = sizes => sizes.map(size => this.bytes(size).readUIntBE(0, size))
  text(size) {
    const bytes = this.bytes(...this.ints([size]))
    check(isUtf8(bytes), 'BAD_BODY')
    return bytes.toString()
  }
  fields(size, known = {}) { // those that are known, by their lengths; all others are read over (section 14)
    const found = new Map()
    while (this.left) {
      const [type, length] = this.ints([size, 2])
      const value = this.bytes(length)
      if (!(type in known)) continue
      check(!found.has(type) && length === (known[type] ?? length), 'BAD_BODY')
      found.set(type, value)
    }
    return found
  }
  tail(wanted) { // the first field of that type; the rest is read over, and may be there again
    let found
    while (this.left) {
      const [type, length] = this.ints([1, 2])
      const value = this.bytes(length)
      if (type === wanted) found ??= value
    }
    return found
  }
  error() {
    const [status, retry, after] = this.ints([1, 1, 4])
    const [reason, message] = [this.bytes(...this.ints([1])).toString('latin1'), this.text(2)]
    const packed = this.tail(1)
    check(status !== 0, 'BAD_BODY')
    const known = /^([A-Z][A-Z0-9_]{0,63})?$/.test(reason) // what is not known is read as section 6 says
    const escaped = reason.replace(/[^ -[\]-~]/g, byte => `\\x${byte.charCodeAt().toString(16).padStart(2, '0')}`)
    return Object.assign(new WireError(status > 16 ? UNKNOWN : status, known ? reason : '', known ? message : `${message} [reason: ${escaped}]`.trim(),
      retry > 2 ? NEVER : retry, after), { packed })
  }
}

function metadata({ deadlineMs, traceparent, authorization, idempotencyKey, credit, resumeAfter, entries = {} }) { // section 5
  const u32 = value => value === undefined ? undefined : ints([4], [Math.min(Math.max(Math.floor(value), 0), U32_MAX)])
  const fields = [[1, u32(deadlineMs)], [2, traceparent], [3, authorization], [4, idempotencyKey], [5, credit && ints([4, 4], credit)], [7, resumeAfter],
    ...Object.entries(entries).map(([name, value]) => [6, Buffer.concat([sized(1, name), Buffer.from(value)])])]
  return Buffer.concat(fields.filter(([, value]) => value !== undefined).flatMap(([key, value]) => [Buffer.from([key]), sized(2, value)]))
}

const KEYS = { [RESPONSE]: [2, 6], [ERROR]: [2, 6], [END]: [2, 6, 8], [ITEM]: [8] } // of answers (section 5)
function beside(kind, block) {
  const said = { metadata: {}, dropped: 0 }
  const fine = (yes, problem) => { if (!yes) throw new WireError(DATA_LOSS, 'BAD_METADATA', `of the answer, ${problem}`, MAYBE_PROCESSED) }
  const seen = new Set()
  for (let at = 0, next; at < block.length; at = next) {
    fine(at + 3 <= block.length, 'it ends inside a key')
    const key = block[at] & 0x7f
    next = at + 3 + block.readUInt16BE(at + 1)
    fine(next <= block.length, 'a value is cut')
    const value = block.subarray(at + 3, next)
    if (!KEYS[kind].includes(key)) { fine(block[at] < 0x80, `key ${key} must be understood`); continue }
    const name = key === 6 ? value.subarray(1, 1 + value[0]).toString('latin1') : key === 2 ? 'traceparent' : ''
    fine(!seen.has(name), `${name || 'dropped'} is there twice`)
    seen.add(name)
    if (key === 8) { fine(value.length === 4, 'dropped has 4 bytes'); said.dropped = value.readUInt32BE(); continue }
    const text = key === 6 ? value.subarray(1 + value[0]) : value
    if (key === 6) fine(value.length > value[0] && /^[a-z0-9._-]{1,64}$/.test(name) && isUtf8(text), 'an entry is broken')
    else fine(/^[ -~]+$/.test(text.toString('latin1')), 'the trace is not printable ASCII')
    said.metadata[name] = text.toString()
  }
  return said
}
function details(method, packed, version) { // of an error, if the method declares them by their full name (section 6)
  if (!packed?.length || packed.length < 1 + packed[0]) return undefined
  const fields = method.errors?.[packed.subarray(1, 1 + packed[0]).toString()]
  try { return fields && decode(fields, packed.subarray(1 + packed[0]), version) } catch { return undefined }
}

export const connect = options => new Promise((resolve, reject) => new Connection(options, resolve, reject))
class Connection {
  #state = 'greeting'; #why; #calls = new Map(); #order = 0; #lastTaken; #strays = 0; #beats = 0; #looked; #timer
  #theirLast = 0; #crossed = MAX_CROSSED; #firstCredit = [0, 0]; #oneWay; #posts = []
  #held; #chatter = MAX_CHATTER; #counted = Date.now(); #asked = 0
  #chunks = []; #size = 0; #between = true; #parser = this.#frames(); #wanted = this.#parser.next().value
  #lost = error => this.#finish(new WireError(UNAVAILABLE, '', error.message ?? 'the connection was lost'))

  // "early" is a unary call, { method, request, options }, that goes along with HELLO if it may: then "early" is its call.
  constructor({ host, port, service = '', versions = [1, 1], name = 'node', handlers, early }, opened, refused) {
    Object.assign(this, { versions, opened, refused, answers: handlers && new Answers(handlers, this, (kind, fields) => this.#send(kind, fields)) })
    this.socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true }) // half open: an ERROR may answer an end of input
      .on('data', chunk => this.#read(chunk)).on('error', this.#lost).on('close', this.#lost)
      .on('end', () => this.#between && !this.#size ? this.#lost({}) : this.#finish(broken('TRUNCATED_FRAME'), true))
    this.socket.write(Buffer.from('f5575001', 'hex')) // section 1
    const hello = Buffer.concat([ints([1, 1, 4, 4, 4, 8], [...versions, MAX_FRAME, handlers ? Answers.most : 0, HEARTBEAT, 0]), // section 3
      ints([1, 1], [1, PIPE]), sized(1, 'pipe'), sized(1, name), sized(1, service), ints([2, 2, 1], [2, 1, ZLIB]), handlers ? Answers.fields() : Buffer.alloc(0)])
    const along = early && !early.method.flags && early.options?.authorization === undefined ? this.#along(early, HELLO_MAX_FRAME - 22 - hello.length) : Buffer.alloc(0)
    this.#send(HELLO, { payload: along.length ? Buffer.concat([hello, ints([2, 2, 2], [3, 2, along.length])]) : hello })
    if (along.length) this.socket.write(along)
    this.#timer = setTimeout(() => this.#finish(new WireError(DEADLINE_EXCEEDED, 'HELLO_TIMEOUT', 'no WELCOME came')), HELLO_TIMEOUT)
  }

  #along({ method, request, options = {} }, most) { // the bytes of a call for HELLO, in the newest version; none where it cannot be
    const began = Date.now()
    Object.assign(this, { version: this.versions[1], maxFrame: most })
    this.#state = 'open' // as far as this call goes
    this.#held = []
    try {
      this.early = this.start(method, request, options)
      const left = () => options.deadlineMs && options.deadlineMs - (Date.now() - began)
      this.early.again = () => this.start(method, request, { ...options, deadlineMs: left() }).answer.then(this.early.resolve, this.early.reject)
    } catch {} // it is too long for HELLO, or refused as it will be later
    const bytes = Buffer.concat(this.#held)
    this.#held = undefined
    this.#state = 'greeting'
    return bytes
  }
  start(method, request, options = {}) { // a call: await its answer, or cancel() it
    if (this.#state !== 'open') throw this.#why.but(NOT_PROCESSED)
    const { opcode, flags = 0 } = method
    const [payload, meta] = [flags & ITEMS_FOLLOW ? Buffer.alloc(0) : encode(method.request, request, this.version), metadata(options)]
    if (meta.length > 0xffff || 12 + meta.length + payload.length > this.maxFrame)
      throw new WireError(RESOURCE_EXHAUSTED, 'REQUEST_TOO_LARGE', `the server takes frames of ${this.maxFrame} bytes`)
    do this.#order++; while (this.#order % CIRCLE === 0 || this.#calls.has(this.#order % CIRCLE)) // ids begin anew, their order does not
    const call = { method, opcode, flags, order: this.#order, id: this.#order % CIRCLE, items: [], waiting: [] }
    Object.assign(call, { metadata: {}, dropped: 0 }) // what stands beside its answer (section 5)
    Object.assign(call, { credit: [...options.credit ?? [0, 0]], room: [...this.#firstCredit] }) // of the answer half, and of the other one
    call.wake = () => call.waiting.splice(0).forEach(go => go())
    call.changed = () => new Promise(resolve => call.waiting.push(resolve))
    call.answer = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }))
    call.answer.catch(() => {}).then(() => { call.over = true; clearTimeout(call.timer); call.wake() })
    call.cancel = (error = new WireError(1, 'CANCELLED', 'the caller cancelled', MAYBE_PROCESSED)) => {
      call.reject(error)
      if (this.#calls.get(call.id) === call && !call.cancelled) this.#send(CANCEL, { ...call, flags: 0 }) // in flight until its terminal frame (section 4)
      call.cancelled = true
    }
    flags & ONE_WAY ? call.resolve() : this.#calls.set(call.id, call) // a one-way call is over at once
    this.#message(REQUEST, call, flags, payload, meta)
    const late = new WireError(DEADLINE_EXCEEDED, 'DEADLINE', 'the deadline has passed', MAYBE_PROCESSED)
    if (options.deadlineMs < 2 ** 31) call.timer = setTimeout(call.cancel, options.deadlineMs, late)
    return call
  }
  call = async (method, request, options) => this.start(method, request, options).answer
  async upload(method, items, options) { // any iterable; what it throws cancels the call
    const call = this.start(method, undefined, options)
    await this.#feed(call, items)
    return call.answer
  }
  async post(method, request, options) { // a one-way call: it waits for credit, and for nothing else
    while (this.#oneWay < 1 && this.#state === 'open') await new Promise(resolve => this.#posts.push(resolve))
    this.start(method, request, options)
    this.#oneWay--
  }
  async #feed(call, items) { // each item when there is credit for it, until the call is over
    const goesOn = () => this.#calls.get(call.id) === call && !call.over && !call.cancelled
    try {
      for await (const item of items) {
        const payload = encode(call.method.request, item, this.version)
        if (12 + payload.length > this.maxFrame) throw new WireError(RESOURCE_EXHAUSTED, 'REQUEST_TOO_LARGE', `the server takes frames of ${this.maxFrame} bytes`)
        while (goesOn() && Math.min(...call.room) < 1) await call.changed()
        if (!goesOn()) return
        this.#message(ITEM, call, 0, payload)
        call.room = [call.room[0] - 1, call.room[1] - payload.length]
      }
      if (goesOn()) this.#send(END, { ...call, flags: 0 })
    } catch (error) {
      call.cancel(error)
      throw error
    }
  }
  // Items, and bytes, of credit. Leaving it cancels it. Of a duplex call "items" go out meanwhile.
  async *stream(method, request, { credit = 16, window = 1 << 20, items, began, ...options } = {}) {
    const call = this.start(method, request, { ...options, credit: [credit, window] })
    began?.(call) // whose metadata are there at its end, and dropped with each item
    if (items) this.#feed(call, items).catch(() => {}) // it has failed the call
    try {
      for (let owed = [0, 0]; ;) {
        while (!call.items.length && !call.over) await call.changed()
        if (!call.items.length) return await call.answer // its END, or its error
        const [item, size] = call.items.shift()
        yield item
        owed = [owed[0] + 1, owed[1] + size]
        if (owed[0] * 2 < credit && owed[1] * 2 < window || !this.#calls.has(call.id) || call.cancelled) continue
        this.#send(CREDIT, { ...call, flags: 0, payload: ints([4, 4], owed) })
        call.credit = call.credit.map((left, i) => left + owed[i])
        owed = [0, 0]
      }
    } finally { call.cancel() }
  }
  close() { this.#lost({ message: 'the connection was closed' }) }

  #message(kind, call, flags, payload, meta) { // packed, where its method asks for it and it becomes shorter
    const stream = this.packing && call.method.compress && payload.length >= PACKED_FROM && zlib.deflateSync(payload)
    const packed = stream && 4 + stream.length < payload.length
    if (packed) [flags, payload] = [flags | PACKED, Buffer.concat([ints([4], [payload.length]), stream])]
    this.#send(kind, { ...call, flags, codec: PIPE, version: this.version, meta, payload })
  }
  #send(kind, { id = 0, opcode = 0, flags = 0, codec = 0, version = 0, meta = Buffer.alloc(0), payload = Buffer.alloc(0) }) { // section 2
    if (this.#state === 'closed') return
    const header = ints([4, 1, 1, 1, 1, 2, 2, 4], [12 + meta.length + payload.length, kind, flags, codec, version, opcode, meta.length, id])
    this.#held ? this.#held.push(header, meta, payload) : this.socket.write(Buffer.concat([header, meta, payload]))
  }
  #read(chunk) {
    this.#size += chunk.length
    if (this.#state === 'closed') return this.#size > LINGER_BYTES ? this.socket.destroy() : undefined // dropped (section 8)
    this.#beats = 0
    this.#looked = Date.now()
    if (this.#state !== 'greeting') this.#timer?.refresh()
    this.#chunks.push(chunk)
    if (this.#size < this.#wanted) return
    const bytes = new Body(Buffer.concat(this.#chunks))
    try {
      while (bytes.left >= this.#wanted && this.#state !== 'closed') this.#wanted = this.#parser.next(bytes.bytes(this.#wanted)).value
    } catch (error) { this.#finish(error, true) }
    this.#size = bytes.left
    this.#chunks = [bytes.bytes(bytes.left)]
  }
  *#frames() {
    const preamble = (yield 4).toString('hex')
    const known = preamble.startsWith('f55750')
    if (preamble !== 'f5575001') return this.#finish(known ? new WireError(FAILED_PRECONDITION, 'UNSUPPORTED_MAJOR') : broken('FOREIGN_PROTOCOL'))
    for (;; this.#between = true) { // the checks in the order of section 2
      const length = (yield 4).readUInt32BE()
      this.#between = false
      const greeting = this.#state === 'greeting'
      check(length <= (greeting ? HELLO_MAX_FRAME : MAX_FRAME), 'FRAME_TOO_LARGE')
      check(length >= 12, 'FRAME_TOO_SHORT')
      const [kind, flags, codec, version, opcode, meta, id] = new Body(yield 12).ints([1, 1, 1, 1, 2, 2, 4])
      check(12 + meta <= length, 'METADATA_OVERRUN')
      check(kind >= HELLO && kind <= GOAWAY || kind >= 128, 'UNKNOWN_KIND')
      const [ignorable, spoken] = [kind >= 128 && !greeting, OF_MESSAGES.includes(kind)]
      const [shape, packed] = [flags & ~PACKED, (flags & PACKED) > 0]
      const checks = [[RECEIVES[this.#state].includes(kind) || kind === ERROR && id === 0, 'UNEXPECTED_KIND'],
        [(kind === REQUEST ? REQUEST_FLAGS.includes(shape) : shape === 0) && (!packed || this.packing && spoken), 'RESERVED_FLAGS'],
        [codec === (spoken ? PIPE : 0), 'WRONG_CODEC'], [version === (spoken ? this.version : 0), 'WRONG_VERSION'],
        [kind === ERROR || kind === CREDIT || OF_CALLS.includes(kind) === id > 0, 'CALL_ID'], [id > 0 || opcode === 0, 'WRONG_OPCODE'],
        [meta === 0 || kind === REQUEST || kind in KEYS && id > 0 && id < TOP_BIT, 'UNEXPECTED_METADATA']]
      if (!ignorable) for (const [fine, reason] of checks) check(fine, reason)
      const rest = yield length - 12
      this.#count(kind)
      if (ignorable) continue
      const payload = rest.subarray(meta)
      check(!packed || payload.length > 4 && payload.readUInt32BE() > 0, 'BAD_BODY')
      const size = packed ? payload.readUInt32BE() : payload.length // what counts, everywhere
      check(12 + meta + size <= MAX_FRAME, 'FRAME_TOO_LARGE')
      this.#accept(kind, id, opcode, payload, shape, rest.subarray(0, meta), packed, size)
    }
  }

  #count(kind) { // chatter means nothing here; time, and other frames, let more of it come (section 4)
    const chatter = kind >= 128 || kind === PONG && this.#asked === 0
    if (kind === PONG && !chatter) this.#asked--
    const more = (Date.now() - this.#counted) / 1000 * CHATTER_PER_SECOND + (chatter ? 0 : CHATTER_PER_FRAME)
    this.#chatter = Math.min(this.#chatter + more, MAX_CHATTER) - chatter
    this.#counted = Date.now()
    check(this.#chatter >= 0, 'TOO_MANY_FRAMES')
  }
  #accept(kind, id, opcode, payload, flags, meta, packed, size) {
    const body = new Body(payload)
    if (kind === WELCOME) return this.#welcome(body)
    if (EMPTY.includes(kind)) check(payload.length === 0, 'BAD_BODY')
    if (kind === PING || kind === PONG || kind === CREDIT) check(payload.length === 8, 'BAD_BODY')
    if (kind === PING || kind === PONG) return kind === PING && this.#send(PONG, { payload })
    if (kind === GOAWAY) {
      [this.#lastTaken, this.#why, this.#state] = [...body.ints([4]), body.error(), 'draining']
      return this.#posted()
    }
    const error = kind === ERROR && body.error()
    if (error && id === 0) return this.#finish(Object.assign(error, { told: true }))
    const [items, bytes] = kind === CREDIT ? body.ints([4, 4]) : [1, 0]
    check(items + bytes > 0 && (id > 0 || bytes === 0), 'BAD_BODY')
    if (id === 0) return check((this.#oneWay += items) <= U32_MAX, 'CREDIT_OVERFLOW') ?? this.#posted()
    if (this.answers && (kind === REQUEST || id >= TOP_BIT)) return this.answers.accept(kind, id, opcode, packed ? unpacked(payload) : payload, flags, meta, [items, bytes], size)
    if (kind === REQUEST || id >= TOP_BIT) return this.#theirs(kind, id, opcode, payload, flags)
    const call = this.#calls.get(id)
    if (!call) return check(++this.#strays <= MAX_STRAY_ANSWERS, 'STRAY_ANSWERS')
    check(opcode === call.opcode, 'WRONG_OPCODE')
    const answers = call.flags & ITEMS_COME_BACK ? [ERROR, ITEM, END] : [ERROR, RESPONSE]
    check(answers.includes(kind) || kind === CREDIT && call.flags & ITEMS_FOLLOW, 'WRONG_HALF')
    if (kind === CREDIT) {
      call.room = [call.room[0] + items, call.room[1] + bytes]
      return check(Math.max(...call.room) <= U32_MAX, 'CREDIT_OVERFLOW') ?? call.wake()
    }
    if (kind !== ITEM) this.#calls.delete(id)
    else check(Math.min(...call.credit) > 0, 'CREDIT_EXCEEDED')
    if (kind === ITEM) call.credit = [call.credit[0] - 1, call.credit[1] - size]
    if (call.cancelled) return call.resolve() // which nobody hears
    try {
      const said = beside(kind, meta)
      call.dropped += said.dropped // so many items were left out, up to here
      if (kind !== ITEM) call.metadata = said.metadata
    } catch (problem) { return call.cancel(problem) }
    if (call.again && error?.reason === 'TOO_MANY_CALLS') return call.again() // nobody knew how many there may be
    if (error) return call.reject(Object.assign(error, { metadata: call.metadata, details: details(call.method, error.packed, this.version) }))
    if (kind === END) return call.resolve()
    try {
      const message = decode(call.method.response, packed ? unpacked(payload) : payload, this.version)
      kind === RESPONSE ? call.resolve(message) : call.wake(call.items.push([message, size]))
    } catch (problem) { call.cancel(problem.status ? problem : new WireError(INTERNAL, 'BAD_PAYLOAD', problem.message, MAYBE_PROCESSED)) }
  }
  #theirs(kind, id, opcode, payload, flags) { // calls that the server begins: all are refused, so that none is in flight (section 4)
    if (kind === ITEM) check(false, 'CREDIT_EXCEEDED') // no ITEM was allowed, so none can have crossed
    if (kind === RESPONSE || kind === ERROR) check(false, 'WRONG_HALF')
    if (kind !== REQUEST) return check(this.#crossed-- > 0, 'TOO_MANY_FRAMES')
    check(!(flags & ITEMS_FOLLOW) || payload.length === 0, 'BAD_BODY')
    const ahead = (id % CIRCLE - this.#theirLast + CIRCLE) % CIRCLE
    check(id > TOP_BIT && ahead > 0 && ahead < CIRCLE / 2, 'CALL_ID')
    check(flags !== ONE_WAY, 'CREDIT_EXCEEDED')
    this.#theirLast = id % CIRCLE
    this.#crossed = Math.min(this.#crossed + REFILL, MAX_CROSSED)
    this.#send(ERROR, { id, opcode, payload: errorBody(new WireError(RESOURCE_EXHAUSTED, 'TOO_MANY_CALLS', 'no calls are taken here', NOT_PROCESSED)) })
  }
  #welcome(body) { // section 3
    const [version, codec, maxFrame, maxCalls, heartbeat] = body.ints([1, 1, 4, 4, 4])
    const offered = version >= this.versions[0] && version <= this.versions[1] && codec === PIPE && !body.bytes(8).some(Boolean)
    check(offered && maxFrame >= HELLO_MAX_FRAME && maxCalls >= 1 && (heartbeat === 0 || heartbeat >= MIN_HEARTBEAT), 'BAD_BODY')
    Object.assign(this, { version, maxFrame, maxCalls, serverName: body.text(1) })
    const fields = body.fields(2, { 1: undefined, 2: 1, 4: 1, 5: 8, 6: 4 })
    const opcodes = (fields.get(1) ?? Buffer.alloc(0)).toString('hex').match(/.{1,12}/g) ?? [] // of what this client lacks: no digests
    check(opcodes.every(pair => pair.length === 12) && new Set(opcodes.map(pair => pair.slice(0, 4))).size === opcodes.length, 'BAD_BODY')
    check(!fields.has(2) || fields.get(2)[0] === ZLIB, 'BAD_BODY') // all that was offered
    this.packing = fields.has(2)
    check(!fields.has(4) || fields.get(4).equals(Buffer.of(1)), 'BAD_BODY') // the control version: 1 was offered
    this.#firstCredit = new Body(fields.get(5) ?? Buffer.alloc(8)).ints([4, 4])
    this.#oneWay = (fields.get(6) ?? Buffer.alloc(4)).readUInt32BE()
    this.#state = 'open'
    clearTimeout(this.#timer)
    const period = Math.min(heartbeat, HEARTBEAT)
    const beat = () => { // of silence; who was stopped, so that this comes late, has to read for another one before it judges
      this.#beats = Date.now() - this.#looked > 1.5 * period ? 1 : this.#beats + 1
      this.#looked = Date.now()
      if (this.#beats >= HEARTBEATS) return this.#lost({ message: 'silence' })
      this.#send(PING, { payload: Buffer.alloc(8) })
      this.#asked++
    }
    this.#timer = heartbeat ? setInterval(beat, period) : undefined
    if (this.early && version !== this.versions[1]) { // it was skipped, and its id with it
      this.#calls.clear()
      this.#order = 0
      this.early.again()
    }
    this.opened(this)
  }
  #posted() { this.#posts.splice(0).forEach(go => go()) } // whoever waits to post looks again
  #finish(why, tell = false) { // section 8; what this side found wrong the server is told
    if (this.#state === 'closed') return
    if (tell) this.#send(ERROR, { payload: errorBody(why) })
    this.#state = 'closed'
    this.#why = why
    clearTimeout(this.#timer)
    this.socket.end()
    setTimeout(() => this.socket.destroy(), LINGER).unref()
    this.refused(this.early && !why.told ? why.but(MAYBE_PROCESSED) : why) // an early call is in doubt, unless the server says otherwise
    this.#posted()
    // Behind the call that GOAWAY named none was taken, by the order in which they began (section 4).
    const last = this.#order - (this.#order - this.#lastTaken % CIRCLE + CIRCLE) % CIRCLE
    for (const call of this.#calls.values()) call.reject(why.but(call.order > last ? NOT_PROCESSED : MAYBE_PROCESSED))
  }
}
