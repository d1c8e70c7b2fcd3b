// Reads MessagePack and writes it, as @msgpack/msgpack does: cases on stdin, what it made of them on stdout, both JSON.
// Values are described without loss: {i: "123"}, {f: hex of the double}, {s: "text"}, {b: hex}, {a: [...]}, {m: [[k, v]]}.
import { decode, encode } from "@msgpack/msgpack";
import { readFileSync } from "node:fs";

// Beyond 32 bits the package writes numbers as doubles, and integers are BigInt.
const fits32 = (number) => number >= -(2 ** 31) && number < 2 ** 32;
const hex = (bytes) => Buffer.from(bytes).toString("hex");

function described(value) {
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "bigint") return { i: value.toString() };
  if (typeof value === "number") {
    const double = Buffer.alloc(8);
    double.writeDoubleBE(value);
    return { f: hex(double) };
  }
  if (typeof value === "string") return { s: value };
  if (value instanceof Uint8Array) return { b: hex(value) };
  if (Array.isArray(value)) return { a: value.map(described) };
  return { m: Object.entries(value).map(([key, each]) => [key, described(each)]) };
}

function made(value) {
  if (value === null || typeof value === "boolean") return value;
  if ("i" in value) return fits32(Number(value.i)) ? Number(value.i) : BigInt(value.i);
  if ("f" in value) return Buffer.from(value.f, "hex").readDoubleBE();
  if ("s" in value) return value.s;
  if ("b" in value) return new Uint8Array(Buffer.from(value.b, "hex"));
  if ("a" in value) return value.a.map(made);
  return Object.fromEntries(value.m.map(([key, each]) => [key, made(each)]));
}

const options = { useBigInt64: true };
const cases = JSON.parse(readFileSync(0, "utf8"));
const results = cases.map(({ payload, value }) => ({
  read: described(decode(Buffer.from(payload, "hex"), options)),
  written: hex(encode(made(value), options)),
}));
console.log(JSON.stringify(results));
