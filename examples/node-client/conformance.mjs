// This client as `wireproto conformance --client -- node examples/node-client/conformance.mjs` judges it: docs/conformance.md.
import readline from "node:readline";
import { Connection } from "./wireproto.mjs";

const INNER = [["name", "str"], ["count", "int"]];
const ECHO = [
  ["flag", "bool"], ["number", "int"], ["large", "uint"], ["real", "float"], ["text", "str"], ["data", "bytes"],
  ["moment", { optional: "datetime" }], ["color", { optional: { enum: [1, 2, 5] } }], ["inner", { optional: { message: INNER } }],
  ["maybe", { optional: "int" }], ["seven", "int", { or: 7 }], ["small", { int: [0, 255] }], ["numbers", { list: "int" }], ["texts", { list: "str" }],
  ["inners", { list: { message: INNER } }], ["by_text", { map: ["str", "int"] }], ["by_number", { map: ["int", "str"] }],
  ["recent", "str", { since: 2 }],
];
const METHODS = {
  Echo: { opcode: 1, request: ECHO, response: ECHO },
  Count: {
    opcode: 2, request: [["items", "int"], ["padding", "int"], ["fail", "bool"]], stream: true,
    response: [["number", "int"], ["padding", "bytes"]],
  },
  Fail: { opcode: 3, request: [["status", "int", { or: 2 }], ["retry", "int"], ["retry_after_ms", "int"], ["message", "str"]], response: [] },
  Sleep: { opcode: 4, request: [["milliseconds", "int"]], response: [] },
  Blob: { opcode: 5, request: [["size", "int"]], response: [["data", "bytes"]] },
  Short: { opcode: 8, request: [["text", "str"]], response: [["length", "int"]] },
};

// The instructions' JSON: bytes are hex, and what JSON's numbers cannot hold are strings.
function fromJson(type, value) {
  if (type.list) return value.map((each) => fromJson(type.list, each));
  if (type.map) return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, fromJson(type.map[1], each)]));
  if (type === "bytes") return Buffer.from(value, "hex");
  if (type === "float") return { nan: NaN, inf: Infinity, "-inf": -Infinity, "-0.0": -0 }[value] ?? value;
  return value; // integers are written as they come
}
function toJson(value) {
  if (Buffer.isBuffer(value)) return value.toString("hex");
  if (typeof value === "bigint") return String(value);
  if (Object.is(value, -0)) return "-0.0";
  if (typeof value === "number" && !Number.isFinite(value)) return String(value).replace("NaN", "nan").replace("Infinity", "inf");
  if (Array.isArray(value)) return value.map(toJson);
  return value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, toJson(each)])) : value;
}

const failed = ({ status, reason, message, retry, retryAfterMs: retry_after_ms }) => ({ error: { status, reason, message, retry, retry_after_ms } });

const DO = {
  async call(client, step) {
    const { deadline_ms: deadlineMs, idempotency_key: key, ...metadata } = step.metadata ?? {};
    const options = { deadlineMs, idempotencyKey: key && Buffer.from(key, "hex"), ...metadata };
    return { response: toJson(await client.call(...told(step), options)) };
  },
  async start(client, step, started) {
    const call = client.call(...told(step));
    call.catch(() => {}); // whoever waits for it is told
    started[step.as] = call;
    return {};
  },
  wait: async (client, step, started) => ({ response: toJson(await started[step.for]) }),
  cancel: async (client, step, started) => (started[step.for].cancel(), {}),
  async stream(client, step) {
    const items = [];
    try {
      for await (const item of client.stream(...told(step), { credit: step.credit })) if (items.push(toJson(item)) === step.take) return { items };
      return { items, end: true };
    } catch (error) {
      return { items, ...failed(error) };
    }
  },
  close: async (client) => (client.close(), {}),
};

function told({ method, request }) {
  const fields = METHODS[method].request;
  const given = fields.filter(([name]) => name in request).map(([name, type]) => [name, fromJson(type, request[name])]);
  return [METHODS[method], Object.fromEntries(given)];
}

async function perform({ host, port, codec, service, versions, steps }) {
  if (codec !== "pipe") return { unsupported: `the codec ${codec}` };
  const results = [], started = {};
  let client;
  try {
    client = await Connection.open({ host, port, service, versions });
  } catch (error) {
    return { connect_error: failed(error).error };
  }
  for (const step of steps) results.push(await DO[step.do](client, step, started).catch(failed));
  client.close();
  return { results };
}

for await (const line of readline.createInterface({ input: process.stdin })) console.log(JSON.stringify(await perform(JSON.parse(line))));
