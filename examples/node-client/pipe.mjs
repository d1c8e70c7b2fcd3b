// The codec pipe (11, 12). A message is a list of fields [name, type, { since, or }]; `or` is the value of one not given.
// A type is "bool", "int", "uint", "float", "str", "bytes" (a Buffer), "datetime" (its text), { int: [least, most] },
// { enum: [numbers] }, { message: [fields] }, { optional: type }, { list: type } or { map: [key type, value type] }.
// An integer that a number cannot hold is a BigInt.

const ESCAPES = { "\\": "\\\\", "|": "\\p", "\n": "\\n", "\r": "\\r" };
for (const each of ",:()[]{}") ESCAPES[each] = `\\x${each.charCodeAt().toString(16)}`;
const MEANT = Object.fromEntries(Object.entries(ESCAPES).map(([plain, escape]) => [escape, plain]));
const RANGES = { int: [-(2n ** 63n), 2n ** 63n - 1n], uint: [0n, 2n ** 64n - 1n] }, INT = /^(?:0|-?[1-9][0-9]*)$/;
const FLOATS = { nan: NaN, inf: Infinity, "-inf": -Infinity };
const EMPTY = { str: "", bytes: Buffer.alloc(0) }, ZEROS = { bool: false, int: 0, uint: 0, float: 0, ...EMPTY };
const unescaped = (text) => text.replace(/\\(?:x..|.)/gs, (each) => MEANT[each]);
// The form of each type's text and what it means; undefined for nothing.
const SCALARS = {
  bool: [/^(?:true|false)$/, (text) => text === "true"],
  float: [/^(?=.{1,64}$)(?:nan|-?inf|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)$/, (text) => FLOATS[text] ?? finite(Number(text))],
  str: [/^(?:[^\\|\n\r]|\\[\\pnr])*$/u, unescaped],
  innerStr: [/^(?:[^\\|\n\r,:()[\]{}]|\\[\\pnr]|\\x(?:2c|3a|28|29|5b|5d|7b|7d))+$/u, unescaped],
  bytes: [/^(?:[0-9a-f]{2})*$/, (text) => Buffer.from(text, "hex")],
  datetime: [/^(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, (text) => (exists(`${text.slice(0, 23)}Z`) ? text : undefined)],
};
const finite = (number) => (Number.isFinite(number) ? number : undefined);
const exists = (moment) => !Number.isNaN(Date.parse(moment)) && new Date(moment).toISOString() === moment; // else a Date rolls it over
export const utf8 = (data) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);

/** The payload of a message in one version of its service. Throws a TypeError for what no type allows. */
export const encode = (fields, message, version = 1) => Buffer.from(written(present(fields, version), message, false).join("|"));

/** The message that a payload means. Throws a TypeError when it means none. */
export function decode(fields, payload, version = 1) {
  const known = present(fields, version), text = utf8(payload);
  return named(known, known.length || text ? text.split("|") : [], false);
}

const present = (fields, version) => fields.filter(([, , { since = 1 } = {}]) => since <= version);
const absent = (type) => (type.list ? [] : type.map ? {} : type.optional ? null : type.int ? 0 : ZEROS[type]);
const written = (fields, message, inner) => fields.map(([name, type, { or = absent(type) } = {}]) => write(type, message[name] ?? or, inner));
function named(fields, parts, inner) {
  must(parts.length === fields.length, parts.join("|"), "message of this version");
  return Object.fromEntries(fields.map(([name, type], at) => [name, read(type, parts[at], inner)]));
}
function must(right, value, type) {
  if (!right) throw new TypeError(`${JSON.stringify(String(value)).slice(0, 60)} is no ${typeof type === "string" ? type : Object.keys(type)[0]}`);
}

function write(type, value, inner) {
  if (type.optional) return value === null ? "\\N" : write(type.optional, value, inner);
  if (type.list) return `[${value.map((each) => write(type.list, each, true))}]`;
  if (type.map) return `{${Object.entries(value).map(([key, each]) => `${write(type.map[0], key, true)}:${write(type.map[1], each, true)}`)}}`;
  if (type.message) return `(${written(type.message, value, true)})`;
  let text = type === "bytes" ? value.toString("hex") : Object.is(value, -0) ? "-0" : String(value);
  must(text.isWellFormed(), value, type); // no surrogates
  if (type === "str") text = text.replace(inner ? /[\\|\n\r,:()[\]{}]/g : /[\\|\n\r]/g, (each) => ESCAPES[each]);
  if (type === "float") text = text.replace("NaN", "nan").replace("Infinity", "inf");
  if (inner && !text) text = "\\e";
  read(type, text, inner); // what is written must be readable: one set of rules for both ways
  return text;
}

function read(type, text, inner) {
  if (type.optional) return text === "\\N" ? null : read(type.optional, text, inner);
  if (type.list) return split(text, "[]", type).map((each) => read(type.list, each, true));
  if (type.message) return named(type.message, split(text, "()", type), true);
  if (type.map) {
    const pairs = split(text, "{}", type).map((each) => /^([^:]*):(.*)$/s.exec(each) ?? must(false, each, "pair"));
    const found = Object.fromEntries(pairs.map(([, key, value]) => [read(type.map[0], key, true), read(type.map[1], value, true)]));
    must(Object.keys(found).length === pairs.length, text, type);
    return found;
  }
  if (inner && type in EMPTY && text === "\\e") return EMPTY[type];
  const [form, meaning] = SCALARS[inner && type === "str" ? "innerStr" : type] ?? [INT, (digits) => integer(type, BigInt(digits))];
  const value = form.test(text) && (text || !inner) ? meaning(text) : undefined;
  return must(value !== undefined, text, type), value;
}
function integer(type, number) {
  const [least, most] = type.int ?? RANGES[type] ?? RANGES.int, plain = Number(number);
  if (number < least || number > most || (type.enum && !type.enum.includes(plain))) return undefined;
  return Number.isSafeInteger(plain) ? plain : number;
}
function split(text, [open, close], type) { // what stands between the brackets, cut at the commas that are in none inside
  must(text.length > 1 && text.startsWith(open) && text.endsWith(close), text, type);
  const parts = [""];
  let depth = 0;
  for (const each of text.slice(1, -1)) {
    must((depth += "([{".includes(each) - ")]}".includes(each)) >= 0, text, type);
    if (each === "," && !depth) parts.push("");
    else parts[parts.length - 1] += each;
  }
  must(!depth, text, type);
  return text.length === 2 ? [] : parts;
}
