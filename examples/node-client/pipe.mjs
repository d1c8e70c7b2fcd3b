// The pipe codec (values.md, sections 11 and 12). A type is a small object; its values in JavaScript are: int a number, or a
// bigint beyond 2^53; bytes a Buffer; a datetime its text, to the microsecond; a map a Map; None null.
import { isUtf8 } from 'node:buffer'
export class PayloadError extends Error {}
const refuse = why => { throw new PayloadError(why) }
const only = (fine, value) => fine ? value : refuse('it is not of its type')
export const [bool, float, str, bytes, datetime] = ['bool', 'float', 'str', 'bytes', 'datetime'].map(is => ({ is }))
export const [int, uint64] = [{ is: 'int', min: -(2n ** 63n), max: 2n ** 63n - 1n }, { is: 'int', min: 0n, max: 2n ** 64n - 1n }]
export const enumeration = (...numbers) => ({ is: 'int', numbers })
export const list = of => ({ is: 'list', of, max: 65536 }) // max_elements, section 10
export const map = (key, of) => ({ is: 'map', key, of, max: 65536 })
export const message = fields => ({ is: 'message', fields: Object.entries(fields) })
export const between = (min, max, type) => ({ ...type, min, max }) // of the value, or of the length
export const optional = type => ({ ...type, none: true, initial: null })
export const preset = (initial, type) => ({ ...type, initial })
export const since = (version, type) => ({ ...type, since: version })
const ZERO = { bool: false, int: 0, float: 0, str: '', bytes: Buffer.alloc(0), list: [], map: new Map() }
const initially = type => type.initial !== undefined || type.numbers ? type.initial : ZERO[type.is]
const defaults = type => Object.fromEntries(type.fields.map(([name, field]) => [name, initially(field)]))
const fieldsIn = (type, version) => type.fields.filter(([, field]) => !(field.since > version))
function bounded(type, value) { // a number, or a length, that of a str in scalar values
  const size = type.is === 'str' ? [...value].length : value.length ?? value.size ?? value
  return size < type.min || size > type.max || type.numbers?.includes(value) === false ? refuse('it is out of bounds') : value
}

// ---- scalars: inside brackets all eight delimiters are escaped, and what is empty is \e
const ESCAPES = { '\\\\': '\\', '\\p': '|', '\\n': '\n', '\\r': '\r' } // the backslash first
const INSIDE = { ...ESCAPES, ...Object.fromEntries([...',:()[]{}'].map(sign => [`\\x${sign.charCodeAt(0).toString(16)}`, sign])) }
const escaped = (text, table) => Object.entries(table).reduce((done, [escape, sign]) => done.replaceAll(sign, () => escape), text)
const writeFloat = value => Object.is(value, -0) ? '-0' : String(value).replace('Infinity', 'inf').replace('NaN', 'nan')
const readFloat = text => ({ nan: NaN, inf: Infinity, '-inf': -Infinity })[text] ??
  only(/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text) && text.length <= 64 && Number.isFinite(Number(text)), Number(text))
const toInt = text => Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text)
const isMoment = text => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(text) && text >= '0001' &&
  new Date(`${text.slice(0, 23)}Z`).toJSON()?.slice(0, 23) === text.slice(0, 23) // 30 February would come back as a day of March

const SCALARS = { // how each is written, and read
  bool: [value => only(typeof value === 'boolean', `${value}`), text => only(/^(true|false)$/.test(text), text === 'true')],
  int: [value => only(typeof value === 'bigint' || Number.isSafeInteger(value), `${value}`),
    text => toInt(only(/^(0|-?[1-9]\d{0,19})$/.test(text), text))],
  float: [value => writeFloat(only(typeof value === 'number', value)), readFloat],
  str: [(value, table) => escaped(only(value.isWellFormed(), value), table), (text, table) => {
    only(table === INSIDE ? !/[|\n\r,:()[\]{}]/.test(text) : !/[|\n\r]/.test(text))
    return text.replace(/\\(x[0-9a-f]{2}|[^]?)/g, escape => table[escape] ?? refuse('an unknown escape'))
  }],
  bytes: [value => value.toString('hex'), text => Buffer.from(only(/^([0-9a-f]{2})*$/.test(text), text), 'hex')],
  datetime: [value => only(isMoment(value), value), text => only(isMoment(text), text)],
}
const readScalar = (type, text, table) => bounded(type, SCALARS[type.is][1](text, table))

// ---- messages, lists and maps
export const encode = (type, value, version) => Buffer.from(writeFields(type, value, version, ESCAPES).join('|'))
function writeFields(type, value, version, table) {
  const full = { ...defaults(type), ...value }
  only(!type.fields.some(([name, field]) => field.since > version && full[name] !== initially(field))) // a request must not lose anything
  return fieldsIn(type, version).map(([name, field]) => write(field, full[name], version, table))
}
function write(type, value, version, table = INSIDE) {
  if (value === null && type.none) return '\\N'
  if (type.is === 'message') return `(${writeFields(type, only(value, value), version)})`
  bounded(type, only(value !== null && value !== undefined, value))
  if (type.is === 'list') return `[${value.map(item => write(type.of, item, version))}]`
  if (type.is === 'map') return `{${[...value].map(([key, item]) => `${write(type.key, key, version)}:${write(type.of, item, version)}`)}}`
  return SCALARS[type.is][0](value, table) || (table === INSIDE ? '\\e' : '')
}

export function decode(type, payload, version) {
  const text = only(isUtf8(payload), payload).toString()
  const fields = fieldsIn(type, version)
  const parts = text || fields.length ? text.split('|') : [] // a "|" always ends a field
  return assemble(type, fields, parts.map((part, index) => {
    const [, field] = fields[index] ?? refuse('it has too many fields')
    return field.is in SCALARS && part !== '\\N' ? readScalar(field, part, ESCAPES) : parse(field, part, version)
  }))
}
function assemble(type, fields, values) { // exactly the fields of the version; those that it lacks get their defaults
  return { ...defaults(type), ...Object.fromEntries(only(values.length === fields.length, fields).map(([name], i) => [name, values[i]])) }
}

function parse(type, text, version) { // a value that has brackets, or None
  let at = 0
  const eat = sign => text.startsWith(sign, at) && (at += sign.length) > 0
  const elements = ([open, close], work) => {
    const done = []
    if (only(eat(open), eat(close))) return done
    do done.push(work(done.length)); while (eat(','))
    return only(eat(close), done)
  }
  const read = type => {
    if (type.none && eat('\\N')) return null
    if (type.is in SCALARS) {
      const [word] = text.slice(at).match(type.is === 'datetime' ? /^[^,)\]}]*/ : /^[^,:)\]}]*/)
      at += word.length
      return readScalar(type, word === '\\e' && 'str bytes'.includes(type.is) ? '' : only(word, word), INSIDE)
    }
    if (type.is === 'list') return bounded(type, elements('[]', () => read(type.of)))
    if (type.is === 'map') {
      const pairs = elements('{}', () => [read(type.key), only(eat(':')) ?? read(type.of)])
      return only(new Map(pairs).size === pairs.length, bounded(type, new Map(pairs)))
    }
    const fields = fieldsIn(type, version)
    return assemble(type, fields, elements('()', index => read(only(fields[index], fields[index])[1])))
  }
  const value = read(type)
  return only(at === text.length, value)
}
