// The chat from a shell, by the table that `wireproto ops` prints; the password is in the environment, CHAT_PASSWORD.
//
//   node examples/node-client/chat.mjs 127.0.0.1:7411 ann create
//   node examples/node-client/chat.mjs 127.0.0.1:7411 ann list 'b*'
//   node examples/node-client/chat.mjs 127.0.0.1:7411 ann send bob 'hello there'
//   node examples/node-client/chat.mjs 127.0.0.1:7411 bob receive 1
import { randomBytes } from "node:crypto";
import { CallError, Connection } from "./wireproto.mjs";

const ACCOUNT = [["username", "str"], ["online", "bool"], ["last_seen", { optional: "datetime" }, { since: 2 }]];
const LOG_IN = {
  opcode: 0, request: [["username", "str"], ["password", "str"], ["token", "str"]], response: [["token", "str"], ["undelivered", "int"]],
};
const CREATE_ACCOUNT = { opcode: 1, request: [["username", "str"], ["password", "str"]], response: [] };
const WILD_CARD = {
  opcode: 2, request: [["pattern", "str"], ["after", "str"], ["limit", "int"]],
  response: [["accounts", { list: { message: ACCOUNT } }], ["next", "str"]],
};
const SEND_MESSAGE = {
  opcode: 3, request: [["recipient", "str"], ["text", "str"]],
  response: [["message_id", "bytes"], ["sequence", "int"], ["duplicate", "bool", { since: 2 }]],
};
const RECEIVE_MESSAGES = {
  opcode: 6, request: [["after", "int"]], stream: true,
  response: [["sequence", "int"], ["message_id", "bytes"], ["sender", "str"], ["text", "str"], ["sent_at", "datetime"]],
};
const ACKNOWLEDGE = { opcode: 8, request: [["sequence", "int"]], response: [["acknowledged", "int"], ["undelivered", "int"]] };

const COMMANDS = {
  async list(client, pattern = "*") {
    for (let after = "", page; page?.next !== ""; after = page.next) {
      page = await client.call(WILD_CARD, { pattern, after });
      for (const { username, online } of page.accounts) console.log(online ? `${username} *` : username);
    }
  },
  async send(client, recipient, text) {
    // With the key a send without an answer could be repeated safely.
    const { sequence } = await client.call(SEND_MESSAGE, { recipient, text }, { idempotencyKey: randomBytes(16), deadlineMs: 10_000 });
    console.log(`sent, number ${sequence} in the mailbox of ${recipient}`);
  },
  async receive(client, most = Infinity) {
    let left = Number(most);
    for await (const { sequence, sender, text } of client.stream(RECEIVE_MESSAGES, {})) {
      console.log(`${sender}: ${text}`);
      await client.call(ACKNOWLEDGE, { sequence });
      if (!--left) break;
    }
  },
};

const [address = "", username, command, ...words] = process.argv.slice(2), password = process.env.CHAT_PASSWORD ?? "";
if (!username || !(command === "create" || command in COMMANDS)) {
  console.error("CHAT_PASSWORD=... node chat.mjs HOST:PORT NAME create | list [PATTERN] | send NAME TEXT | receive [COUNT]");
  process.exit(2);
}
const [host, port] = [address.slice(0, address.lastIndexOf(":")), Number(address.slice(address.lastIndexOf(":") + 1))];
let client;
try {
  client = await Connection.open({ host, port, service: "wireproto.chat.v1.ChatService", versions: [1, 2] });
  if (command === "create") await client.call(CREATE_ACCOUNT, { username, password });
  else {
    await client.call(LOG_IN, { username, password });
    await COMMANDS[command](client, ...words);
  }
} catch (error) {
  if (!(error instanceof CallError)) throw error;
  console.error(`${error.reason || "failed"}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client?.close();
}
