// The calls that the server begins, for a client that answers them. The sections named are those of wire.md.
import { decode, encode } from './pipe.mjs'
import { WireError, check, errorBody, ints } from './wireproto.mjs'

const [REQUEST, RESPONSE, ITEM, END, ERROR, CANCEL, CREDIT] = [3, 4, 5, 6, 7, 8, 9]
const [ONE_WAY, ITEMS_FOLLOW, ITEMS_COME_BACK] = [1, 4, 8]
const [TOP_BIT, CIRCLE, MAX_CROSSED, REFILL, U32_MAX, MAX_FRAME] = [2 ** 31, 2 ** 31, 1000, 8, 0xffffffff, 1 << 20]
const [NEVER, NOT_PROCESSED, MAYBE_PROCESSED] = [0, 1, 2]
const [MOST, FIRST, ONE_WAY_CREDIT] = [32, [64, 1 << 16], 64] // what HELLO says
const refusal = (status, reason, retry) => new WireError(status, reason, reason, retry)

export class Answers { // handlers: opcode -> { flags, request, response, handle }, by whose flags handle is given a message or the items
  #calls = new Map(); #last = 0; #crossed = MAX_CROSSED; #items = [0, 0]; #oneWay = ONE_WAY_CREDIT; #owed = 0
  constructor(handlers, client, send) { Object.assign(this, { handlers, client, send }) }
  static most = MOST
  static fields = () => Buffer.concat([ints([2, 2, 4, 4], [5, 8, ...FIRST]), ints([2, 2, 4], [6, 4, ONE_WAY_CREDIT])])

  accept(kind, id, opcode, payload, flags, meta, [items, bytes], size) {
    if (kind === REQUEST) return this.#begin(id, opcode, payload, flags, meta)
    check(kind !== RESPONSE && kind !== ERROR, 'WRONG_HALF')
    const call = this.#calls.get(id)
    if (!call && kind === ITEM) {
      this.#items = [this.#items[0] - 1, this.#items[1] - size]
      return check(Math.min(...this.#items) >= 0, 'CREDIT_EXCEEDED')
    }
    if (!call) return check(this.#crossed-- > 0, 'TOO_MANY_FRAMES')
    check(opcode === call.opcode, 'WRONG_OPCODE')
    if (kind === ITEM || kind === END) check(call.flags & ITEMS_FOLLOW && !call.complete, 'WRONG_HALF')
    if (kind === CREDIT) check(call.flags & ITEMS_COME_BACK, 'WRONG_HALF')
    if (kind === CREDIT) call.credit = [call.credit[0] + items, call.credit[1] + bytes]
    check(Math.max(...call.credit) <= U32_MAX, 'CREDIT_OVERFLOW')
    if (kind === ITEM) {
      check(Math.min(...call.room) > 0, 'CREDIT_EXCEEDED')
      call.room = [call.room[0] - 1, call.room[1] - size]
      call.items.push(payload)
    }
    if (kind === END) call.complete = true
    if (kind === CANCEL) this.#over(call, ERROR, errorBody(refusal(1, 'CANCELLED', MAYBE_PROCESSED)))
    call.wake()
  }

  #begin(id, opcode, payload, flags, meta) { // in the order of section 4
    check(!(flags & ITEMS_FOLLOW) || payload.length === 0, 'BAD_BODY')
    const ahead = (id % CIRCLE - this.#last + CIRCLE) % CIRCLE
    check(id > TOP_BIT && ahead > 0 && ahead < CIRCLE / 2 && !this.#calls.has(id), 'CALL_ID')
    this.#last = id % CIRCLE
    if (flags & ONE_WAY) check(this.#oneWay-- > 0, 'CREDIT_EXCEEDED')
    const method = this.handlers[opcode]
    const call = { id, opcode, flags, method, room: [...FIRST], credit: [0, 0], items: [], waiting: [], owed: [0, 0] }
    call.wake = () => call.waiting.splice(0).forEach(go => go())
    call.changed = () => new Promise(resolve => call.waiting.push(resolve))
    if (!(flags & ONE_WAY)) this.#calls.set(id, call)
    const problem = this.#calls.size > MOST ? refusal(8, 'TOO_MANY_CALLS', NOT_PROCESSED)
      : !method ? refusal(12, 'UNKNOWN_OPCODE', NOT_PROCESSED) : (method.flags ?? 0) !== flags ? refusal(12, 'WRONG_SHAPE', NOT_PROCESSED) : undefined
    if (problem) return this.#over(call, ERROR, errorBody(problem))
    for (let at = 0; at + 3 <= meta.length; at += 3 + meta.readUInt16BE(at + 1)) { // section 5
      if (meta[at] === 1) call.timer = setTimeout(() => this.#over(call, ERROR, errorBody(refusal(4, 'DEADLINE', MAYBE_PROCESSED))), Math.min(meta.readUInt32BE(at + 3), 2 ** 31 - 1))
      if (meta[at] === 5) call.credit = [meta.readUInt32BE(at + 3), meta.readUInt32BE(at + 7)]
    }
    this.#run(call, payload)
  }

  async #run(call, payload) {
    const { method, flags } = call
    try {
      const given = flags & ITEMS_FOLLOW ? this.#given(call) : this.#read(method, payload)
      if (!(flags & ITEMS_COME_BACK)) {
        const answer = await method.handle(given)
        return flags & ONE_WAY ? undefined : this.#over(call, RESPONSE, encode(method.response, answer, this.client.version))
      }
      for await (const item of method.handle(given)) {
        const bytes = encode(method.response, item, this.client.version)
        while (!call.over && Math.min(...call.credit) < 1) await call.changed()
        if (call.over) return
        call.credit = [call.credit[0] - 1, call.credit[1] - bytes.length]
        this.send(ITEM, { id: call.id, opcode: call.opcode, codec: 1, version: this.client.version, payload: bytes })
      }
      this.#over(call, END, Buffer.alloc(0))
    } catch (error) {
      this.#over(call, ERROR, errorBody(error instanceof WireError ? error : refusal(13, 'INTERNAL', MAYBE_PROCESSED)))
    } finally {
      if (flags & ONE_WAY && ++this.#owed * 2 >= ONE_WAY_CREDIT) { // it returns as handlers do
        this.send(CREDIT, { payload: ints([4, 4], [this.#owed, 0]) })
        this.#oneWay += this.#owed
        this.#owed = 0
      }
    }
  }
  #read(method, payload) {
    try { return decode(method.request, payload, this.client.version) } catch (error) { throw refusal(3, 'BAD_PAYLOAD', NEVER) }
  }
  async *#given(call) { // credit returns as items are taken
    for (;;) {
      while (!call.items.length && !call.complete && !call.over) await call.changed()
      if (call.over || !call.items.length) return
      const payload = call.items.shift()
      yield this.#read(call.method, payload)
      call.owed = [call.owed[0] + 1, call.owed[1] + payload.length]
      if (call.complete || call.over || call.owed[0] * 2 < FIRST[0] && call.owed[1] * 2 < FIRST[1]) continue
      this.send(CREDIT, { id: call.id, opcode: call.opcode, payload: ints([4, 4], call.owed) })
      call.room = call.room.map((left, i) => left + call.owed[i])
      call.owed = [0, 0]
    }
  }
  #over(call, kind, payload) { // its terminal frame, once
    if (call.over) return
    call.over = true
    clearTimeout(call.timer)
    call.wake()
    if (call.flags & ONE_WAY) return
    this.#calls.delete(call.id)
    this.#crossed = Math.min(this.#crossed + REFILL, MAX_CROSSED)
    if (call.flags & ITEMS_FOLLOW && !call.complete) this.#items = this.#items.map((left, i) => left + call.room[i] + i * MAX_FRAME) // what may cross
    const spoken = kind === RESPONSE ? { codec: 1, version: this.client.version } : {}
    this.send(kind, { id: call.id, opcode: call.opcode, payload, ...spoken })
  }
}
