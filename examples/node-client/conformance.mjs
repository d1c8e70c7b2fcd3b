// The client under test of the conformance kit (conformance.md): instructions are lines of JSON on stdin, results on stdout.
import { createInterface } from 'node:readline'
import { WireError, connect } from './wireproto.mjs'
import { Gap, follow } from './following.mjs'
import { PayloadError, between, bool, bytes, datetime, enumeration, float, int, list, map, message, optional, preset, since, str, uint64 } from './pipe.mjs'

const inner = message({ name: str, count: int })
const mirror = message({
  flag: bool, number: int, large: uint64, real: float, text: str, data: bytes, moment: optional(datetime),
  color: optional(enumeration(1, 2, 5)), inner: optional(inner), maybe: optional(int), seven: preset(7, int), small: between(0, 255, int),
  numbers: list(int), texts: list(str), inners: list(inner), by_text: map(str, int), by_number: map(int, str), recent: since(2, str),
})
const empty = message({})
const inspected = { remaining_ms: optional(int), traceparent: str, authorization: str, idempotency_key: bytes, entries: map(str, str) }
const METHODS = {
  Mirror: { opcode: 1, compress: true, request: mirror, response: mirror },
  Count: { opcode: 2, compress: true, flags: 8, request: message({ items: int, padding: int, fail: bool }), response: message({ number: int, padding: bytes }) },
  Fail: { opcode: 3, request: message({ status: preset(2, int), retry: int, retry_after_ms: int, message: str }), response: empty },
  Sleep: { opcode: 4, request: message({ milliseconds: int }), response: empty },
  Blob: { opcode: 5, compress: true, request: message({ size: int }), response: message({ data: bytes }) },
  Inspect: { opcode: 6, request: empty, response: message(inspected) },
  Private: { opcode: 7, request: empty, response: message({ subject: str }) },
  Short: { opcode: 8, request: message({ text: str }), response: message({ length: int }) },
  Crash: { opcode: 9, request: empty, response: empty },
  Retired: { opcode: 10, request: empty, response: empty },
  Recent: { opcode: 11, request: empty, response: empty },
  Unserved: { opcode: 12, request: empty, response: empty },
  Sum: { opcode: 13, compress: true, flags: 4, request: message({ number: int, data: bytes, fail: bool, answer: bool, milliseconds: int }), response: message({ total: int, size: int, items: int }) },
  Reflect: { opcode: 14, compress: true, flags: 12, request: message({ number: int, data: bytes, fail: bool, end: bool }), response: message({ number: int, data: bytes }) },
  Note: { opcode: 15, compress: true, flags: 1, request: message({ key: str, number: int, milliseconds: int }) },
  Tail: { opcode: 20, flags: 8, resumable: 'position', request: message({ items: int, forgotten: int }), response: message({ number: int, position: int }) },
  Noted: { opcode: 16, request: message({ key: str }), response: message({ count: int, total: int }) },
}

const one = message({ number: int })
async function *numbers(count) { for (let number = 0; number < count; number++) yield { number } }
async function gather(items) {
  const found = { total: 0, items: 0 }
  for await (const { number } of items) { found.total += Number(number); found.items++ }
  return found
}
async function tell({ number, milliseconds, fail }) {
  if (milliseconds) await new Promise(resolve => setTimeout(resolve, Number(milliseconds)))
  if (fail) throw new WireError(10, 'AS_ASKED')
  return { number }
}
const HANDLERS = { // what the server calls
  0x21: { request: message({ number: int, milliseconds: int, fail: bool }), response: one, handle: tell },
  0x22: { flags: 8, request: message({ count: int }), response: one, handle: ({ count }) => numbers(count) },
  0x23: { flags: 4, request: one, response: message({ total: int, items: int }), handle: gather },
  0x24: { flags: 12, request: one, response: one, async *handle(items) { for await (const { number } of items) yield { number } } },
  0x25: { flags: 1, request: one, handle() {} },
}

// ---- values as the kit writes them in JSON
const FLOATS = { nan: NaN, inf: Infinity, '-inf': -Infinity, '-0.0': -0 }
const toInt = value => typeof value === 'number' ? value : Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value)
const each = (object, work) => Object.fromEntries(Object.entries(object).map(work))

function fromJson(type, value) {
  if (value === null || value === undefined) return value
  if (type.is === 'int') return toInt(value)
  if (type.is === 'float') return FLOATS[value] ?? value
  if (type.is === 'bytes') return Buffer.from(value, 'hex')
  if (type.is === 'list') return value.map(item => fromJson(type.of, item))
  if (type.is === 'map') return new Map(Object.entries(value).map(([key, item]) => [fromJson(type.key, key), fromJson(type.of, item)]))
  if (type.is === 'message') return each(value, ([name, item]) => [name, fromJson(Object.fromEntries(type.fields)[name], item)])
  return value
}

function toJson(type, value) {
  if (value === null || value === undefined) return value
  if (typeof value === 'bigint') return String(value)
  if (type.is === 'float') return Object.keys(FLOATS).find(text => Object.is(FLOATS[text], value)) ?? value
  if (type.is === 'bytes') return value.toString('hex')
  if (type.is === 'list') return value.map(item => toJson(type.of, item))
  if (type.is === 'map') return each(Object.fromEntries(value), ([key, item]) => [key, toJson(type.of, item)])
  if (type.is === 'message') return each(Object.fromEntries(type.fields), ([name, field]) => [name, toJson(field, value[name])])
  return value
}

function failure(error) {
  if (error instanceof PayloadError) return { status: 3, reason: 'BAD_PAYLOAD', message: error.message, retry: 0, retry_after_ms: 0 }
  if (!(error instanceof WireError)) throw error
  return { status: error.status, reason: error.reason, message: error.message, retry: error.retry, retry_after_ms: error.retryAfterMs }
}

function options({ deadline_ms: deadlineMs, traceparent, authorization, idempotency_key: key, entries } = {}) {
  return { deadlineMs, traceparent, authorization, idempotencyKey: key === undefined ? undefined : Buffer.from(key, 'hex'), entries }
}

// ---- steps
async function answer(method, call) {
  try {
    return { response: toJson(method.response, await call()) }
  } catch (error) {
    return { error: failure(error) }
  }
}

async function stream(client, method, request, { do: how, after, credit, take = Infinity, metadata }, given) {
  const items = []
  let told
  if (take <= 0) return { items }
  const begin = more => client.stream(method, request, { ...options(metadata), ...more, credit, items: given, began: call => told = call })
  try {
    for await (const item of how === 'follow' ? follow(method, begin, { after }) : begin({})) {
      items.push(item instanceof Gap ? { gap: item.after ?? null } : toJson(method.response, item))
      if (items.length >= take) return { items }
    }
    const { metadata: said, dropped } = told
    return { items, end: true, metadata: said, dropped }
  } catch (error) {
    return { items, error: failure(error) }
  }
}

class Left extends Error {} // thrown behind the items of an upload that is to be left
async function upload(client, method, items, { leave, metadata }) {
  const given = function* () { yield* items; if (leave) throw new Left() }
  try {
    return { response: toJson(method.response, await client.upload(method, given(), options(metadata))) }
  } catch (error) { return error instanceof Left ? {} : { error: failure(error) } }
}

async function post(client, method, request, { metadata }) {
  try {
    await client.post(method, request, options(metadata))
    return {}
  } catch (error) { return { error: failure(error) } }
}

const STEPS = ['call', 'start', 'wait', 'cancel', 'stream', 'follow', 'upload', 'duplex', 'post', 'close']
async function carryOut(client, step, started) {
  if (step.do === 'close') return client.close(), {}
  if (step.do === 'wait') return answer(started[step.for].method, () => started[step.for].call.answer)
  if (step.do === 'cancel') return started[step.for].call?.cancel(), {}
  const method = METHODS[step.method]
  const request = fromJson(method.request, step.request ?? {})
  if (step.do === 'call') return answer(method, () => client.call(method, request, options(step.metadata)))
  if (step.do === 'stream' || step.do === 'follow') return stream(client, method, request, step)
  if (step.do === 'post') return post(client, method, request, step)
  const items = step.items?.map(item => fromJson(method.request, item))
  if (step.do === 'upload') return upload(client, method, items, step)
  if (step.do === 'duplex') return stream(client, method, undefined, step, items)
  try { // "start"; what fails at once is told by "wait"
    started[step.as] = { method, call: client.start(method, request, options(step.metadata)) }
  } catch (error) {
    started[step.as] = { method, call: { answer: Promise.reject(error), cancel() {} } }
    started[step.as].call.answer.catch(() => {})
  }
  return {}
}

// The first step, if it may go along with HELLO.
function along({ do: how, method, request, metadata }) {
  const { [method]: found } = METHODS
  return how === 'call' ? { method: found, request: fromJson(found.request, request ?? {}), options: options(metadata) } : undefined
}

async function instruct({ host, port, codec, versions, service, steps, handlers, early }) {
  if (codec !== 'pipe') return { unsupported: `the codec ${codec}` }
  const strange = steps.find(step => !STEPS.includes(step.do) || step.method && !METHODS[step.method])
  if (strange) return { unsupported: `the step ${JSON.stringify(strange)}` }
  let client
  try {
    client = await connect({ host, port, service, versions, name: 'node2', handlers: handlers && HANDLERS, early: early ? along(steps[0]) : undefined })
  } catch (error) {
    return { connect_error: failure(error) }
  }
  const [results, started] = [[], {}]
  for (const step of steps) {
    const went = client.early && step === steps[0]
    results.push(await (went ? answer(METHODS[step.method], () => client.early.answer) : carryOut(client, step, started)))
  }
  client.close()
  return { results }
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await instruct(JSON.parse(line))))
