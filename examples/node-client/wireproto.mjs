// A client for major version 1 of the wire protocol, with the pipe codec. The sections named are those of protocol.md.
import { isUtf8 } from 'node:buffer'
import net from 'node:net'
import { decode, encode } from './pipe.mjs'

const [HELLO, WELCOME, REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, GOAWAY] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
const ANSWERS = [RESPONSE, ITEM, END, ERROR]
const RECEIVES = { greeting: [WELCOME], open: [...ANSWERS, PING, PONG, GOAWAY], draining: [...ANSWERS, PING, PONG] } // section 7
const [INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, INTERNAL, UNAVAILABLE] = [3, 4, 8, 9, 13, 14]
const [NEVER, NOT_PROCESSED, MAYBE_PROCESSED, PIPE] = [0, 1, 2, 1]
const [HELLO_MAX_FRAME, MAX_FRAME, HEARTBEAT] = [4096, 1 << 20, 60000] // section 10, as are
const [HELLO_TIMEOUT, IDLE_TIMEOUT, LINGER, LINGER_BYTES, MAX_STRAY_ANSWERS] = [5000, 180000, 1000, 1 << 18, 16]
export class WireError extends Error {
  constructor(status, reason, message = reason, retry = NEVER, retryAfterMs = 0) { Object.assign(super(message), { status, reason, retry, retryAfterMs }) }
  but(retry) { return new WireError(this.status, this.reason, this.message, retry, this.retryAfterMs) }
}
const broken = reason => new WireError(INVALID_ARGUMENT, reason, `the server broke a rule: ${reason}`)
const check = (fine, reason) => { if (!fine) throw broken(reason) }
const ints = (sizes, values) => Buffer.from(sizes.map((size, i) => values[i].toString(16).padStart(2 * size, '0')).join(''), 'hex')
const sized = (size, value) => Buffer.concat([ints([size], [Buffer.byteLength(value)]), Buffer.from(value)])

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
  fields(size) { while (this.left) this.bytes(this.ints([size, 2])[1]) } // all are read over (section 14)
  error() {
    const [status, retry, after] = this.ints([1, 1, 4])
    const error = new WireError(status, this.text(1), this.text(2), retry, after)
    this.fields(1)
    check(status >= 1 && status <= 16 && retry <= 2 && /^([A-Z][A-Z0-9_]{0,63})?$/.test(error.reason), 'BAD_BODY')
    return error
  }
}

function metadata({ deadlineMs, traceparent, authorization, idempotencyKey, credit, entries = {} }) { // section 5
  const u32 = value => value === undefined ? undefined : ints([4], [Math.min(Math.max(Math.floor(value), 0), 0xffffffff)])
  const fields = [[1, u32(deadlineMs)], [2, traceparent], [3, authorization], [4, idempotencyKey], [5, u32(credit)],
    ...Object.entries(entries).map(([name, value]) => [6, Buffer.concat([sized(1, name), Buffer.from(value)])])]
  return Buffer.concat(fields.filter(([, value]) => value !== undefined).flatMap(([key, value]) => [Buffer.from([key]), sized(2, value)]))
}

export const connect = options => new Promise((resolve, reject) => new Connection(options, resolve, reject))
class Connection {
  #state = 'greeting'; #why; #calls = new Map(); #lastId = 0; #lastTaken; #strays = 0; #heard; #timer
  #chunks = []; #size = 0; #between = true; #parser = this.#frames(); #wanted = this.#parser.next().value
  #lost = error => this.#finish(new WireError(UNAVAILABLE, '', error.message ?? 'the connection was lost'))

  constructor({ host, port, service = '', versions = [1, 1], name = 'node' }, opened, refused) {
    Object.assign(this, { versions, opened, refused })
    this.socket = net.connect({ host, port, noDelay: true, allowHalfOpen: true }) // half open: an ERROR may answer an end of input
      .on('data', chunk => this.#read(chunk)).on('error', this.#lost).on('close', this.#lost)
      .on('end', () => this.#between && !this.#size ? this.#lost({}) : this.#finish(broken('TRUNCATED_FRAME'), true))
    this.socket.write(Buffer.from('f5575001', 'hex')) // section 1
    this.#send(HELLO, { payload: Buffer.concat([ints([1, 1, 4, 4, 4, 8], [...versions, MAX_FRAME, 0, HEARTBEAT, 0]), // section 3
      ints([1, 1], [1, PIPE]), sized(1, 'pipe'), sized(1, name), sized(1, service)]) })
    this.#timer = setTimeout(() => this.#finish(new WireError(DEADLINE_EXCEEDED, 'HELLO_TIMEOUT', 'no WELCOME came')), HELLO_TIMEOUT)
  }

  start(method, request, options = {}) { // a call: await its answer, or cancel() it
    if (this.#state !== 'open') throw this.#why.but(NOT_PROCESSED)
    const [payload, meta] = [encode(method.request, request, this.version), metadata(options)]
    if (meta.length > 0xffff || 12 + meta.length + payload.length > this.maxFrame)
      throw new WireError(RESOURCE_EXHAUSTED, 'REQUEST_TOO_LARGE', `the server takes frames of ${this.maxFrame} bytes`)
    do this.#lastId = this.#lastId % 0xffffffff + 1; while (this.#calls.has(this.#lastId))
    const call = { method, opcode: method.opcode, id: this.#lastId, credit: options.credit ?? 0, items: [], wake() {} }
    call.answer = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }))
    call.answer.catch(() => {}).then(() => { call.over = true; clearTimeout(call.timer); call.wake() })
    call.cancel = (error = new WireError(1, 'CANCELLED', 'the caller cancelled', MAYBE_PROCESSED)) => {
      call.reject(error)
      if (this.#calls.get(call.id) === call && !call.cancelled) this.#send(CANCEL, call) // in flight until its terminal frame (section 4)
      call.cancelled = true
    }
    this.#calls.set(call.id, call)
    this.#send(REQUEST, { ...call, codec: PIPE, version: this.version, meta, payload })
    const late = new WireError(DEADLINE_EXCEEDED, 'DEADLINE', 'the deadline has passed', MAYBE_PROCESSED)
    if (options.deadlineMs < 2 ** 31) call.timer = setTimeout(call.cancel, options.deadlineMs, late)
    return call
  }
  call = async (method, request, options) => this.start(method, request, options).answer
  async *stream(method, request, { credit = 16, ...options } = {}) { // leaving it cancels it
    const call = this.start(method, request, { ...options, credit })
    try {
      for (let taken = 1; ; taken++) {
        while (!call.items.length && !call.over) await new Promise(resolve => { call.wake = resolve })
        if (!call.items.length) return await call.answer // its END, or its error
        yield call.items.shift()
        if (taken * 2 < credit || !this.#calls.has(call.id) || call.cancelled) continue
        this.#send(CREDIT, { ...call, payload: ints([4], [taken]) })
        call.credit += taken
        taken = 0
      }
    } finally { call.cancel() }
  }
  close() { this.#lost({ message: 'the connection was closed' }) }

  #send(kind, { id = 0, opcode = 0, codec = 0, version = 0, meta = Buffer.alloc(0), payload = Buffer.alloc(0) }) { // section 2
    if (this.#state === 'closed') return
    const header = ints([4, 1, 1, 1, 1, 2, 2, 4], [12 + meta.length + payload.length, kind, 0, codec, version, opcode, meta.length, id])
    this.socket.write(Buffer.concat([header, meta, payload]))
  }
  #read(chunk) {
    this.#size += chunk.length
    if (this.#state === 'closed') return this.#size > LINGER_BYTES ? this.socket.destroy() : undefined // dropped (section 8)
    this.#heard = Date.now()
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
      const [ignorable, spoken] = [kind >= 128 && !greeting, kind === RESPONSE || kind === ITEM]
      const checks = [[RECEIVES[this.#state].includes(kind) || kind === ERROR && id === 0, 'UNEXPECTED_KIND'], [flags === 0, 'RESERVED_FLAGS'],
        [codec === (spoken ? PIPE : 0), 'WRONG_CODEC'], [version === (spoken ? this.version : 0), 'WRONG_VERSION'],
        [kind === ERROR || ANSWERS.includes(kind) === id > 0, 'CALL_ID'], [id > 0 || opcode === 0, 'WRONG_OPCODE'], [meta === 0, 'UNEXPECTED_METADATA']]
      if (!ignorable) for (const [fine, reason] of checks) check(fine, reason)
      const payload = yield length - 12
      if (!ignorable) this.#accept(kind, id, opcode, payload)
    }
  }

  #accept(kind, id, opcode, payload) {
    const body = new Body(payload)
    if (kind === WELCOME) return this.#welcome(body)
    if (kind === PING || kind === PONG || kind === END) check(payload.length === (kind === END ? 0 : 8), 'BAD_BODY')
    if (kind === PING || kind === PONG) return kind === PING && this.#send(PONG, { payload })
    if (kind === GOAWAY) return [this.#lastTaken, this.#why, this.#state] = [...body.ints([4]), body.error(), 'draining']
    const error = kind === ERROR && body.error()
    if (error && id === 0) return this.#finish(error)
    const call = this.#calls.get(id)
    if (!call) return check(++this.#strays <= MAX_STRAY_ANSWERS, 'STRAY_ANSWERS')
    check(opcode === call.opcode, 'WRONG_OPCODE')
    check(kind === ERROR || kind !== RESPONSE === Boolean(call.method.stream), 'WRONG_ANSWER')
    if (kind !== ITEM) this.#calls.delete(id)
    else check(call.credit-- > 0, 'CREDIT_EXCEEDED')
    if (error) return call.reject(error)
    if (kind === END || call.cancelled) return call.resolve()
    try {
      const message = decode(call.method.response, payload, this.version)
      kind === RESPONSE ? call.resolve(message) : call.wake(call.items.push(message))
    } catch (problem) { call.cancel(new WireError(INTERNAL, 'BAD_PAYLOAD', problem.message, MAYBE_PROCESSED)) }
  }
  #welcome(body) { // section 3
    const [version, codec, maxFrame, maxCalls, heartbeat] = body.ints([1, 1, 4, 4, 4])
    const offered = version >= this.versions[0] && version <= this.versions[1] && codec === PIPE && !body.bytes(8).some(Boolean)
    check(offered && maxFrame >= HELLO_MAX_FRAME && maxCalls >= 1, 'BAD_BODY')
    Object.assign(this, { version, maxFrame, maxCalls, serverName: body.text(1) })
    body.fields(2)
    this.#state = 'open'
    clearTimeout(this.#timer)
    const beat = () => Date.now() - this.#heard < IDLE_TIMEOUT ? this.#send(PING, { payload: Buffer.alloc(8) }) : this.#lost({ message: 'silence' })
    this.#timer = heartbeat ? setInterval(beat, Math.min(heartbeat, HEARTBEAT)) : undefined
    this.opened(this)
  }
  #finish(why, tell = false) { // section 8; what this side found wrong the server is told
    if (this.#state === 'closed') return
    if (tell) this.#send(ERROR, { payload: Buffer.concat([ints([1, 1, 4], [INVALID_ARGUMENT, NEVER, 0]), sized(1, why.reason), sized(2, why.message)]) })
    this.#state = 'closed'
    this.#why = why
    clearTimeout(this.#timer)
    this.socket.end()
    setTimeout(() => this.socket.destroy(), LINGER).unref()
    this.refused(why)
    for (const call of this.#calls.values()) // behind the call that GOAWAY named none was taken (section 4)
      call.reject(why.but((call.id - this.#lastTaken | 0) > 0 ? NOT_PROCESSED : MAYBE_PROCESSED))
  }
}
