// The chat from a shell, by the table that `wireproto ops` prints; the password is in WIREPROTO_PASSWORD.
//
//   node chat/examples/node/chat.mjs 127.0.0.1:7411 create ann
//   node chat/examples/node/chat.mjs 127.0.0.1:7411 list ann 'b*'
//   node chat/examples/node/chat.mjs 127.0.0.1:7411 send ann bob 'hello, bob'
//   node chat/examples/node/chat.mjs 127.0.0.1:7411 receive bob
import { WireError, connect } from '../../../examples/node-client/wireproto.mjs'
import { bool, bytes, datetime, int, list, message, optional, str } from '../../../examples/node-client/pipe.mjs'

const USAGE = `usage: node chat.mjs HOST:PORT create NAME | list NAME [PATTERN] | send NAME RECIPIENT TEXT | receive NAME [COUNT]`
const empty = message({})
const account = message({ username: str, online: bool, last_seen: optional(datetime) })
const LogIn = { opcode: 0, request: message({ username: str, password: str, token: str }), response: message({ token: str, undelivered: int }) }
const CreateAccount = { opcode: 1, request: message({ username: str, password: str }), response: empty }
const WildCard = { opcode: 2, request: message({ pattern: str, after: str, limit: int }), response: message({ accounts: list(account), next: str }) }
const SendMessage = {
  opcode: 3, request: message({ recipient: str, text: str }),
  response: message({ message_id: bytes, sequence: int, duplicate: bool }),
}
const ReceiveMessages = {
  opcode: 6, flags: 8, request: message({ after: int }),
  response: message({ sequence: int, message_id: bytes, sender: str, text: str, sent_at: datetime }),
}
const Acknowledge = { opcode: 8, request: message({ sequence: int }), response: message({ acknowledged: int, undelivered: int }) }

const visible = text => text.replace(/[\p{Cc}\p{Cf}]/gu, sign => `\\u{${sign.codePointAt(0).toString(16)}}`) // no escape sequences of others
const password = process.env.WIREPROTO_PASSWORD ?? ''

const commands = {
  async create(client, username) {
    await client.call(CreateAccount, { username, password })
    console.log(`created ${username}`)
  },
  async list(client, username, pattern = '*') {
    await client.call(LogIn, { username, password })
    for (let after = ''; ;) {
      const page = await client.call(WildCard, { pattern, after })
      for (const { username: name, online, last_seen: seen } of page.accounts) console.log(name, online ? 'online' : seen ?? 'never')
      if (!(after = page.next)) return
    }
  },
  async send(client, username, recipient, text) {
    await client.call(LogIn, { username, password })
    const { sequence } = await client.call(SendMessage, { recipient, text }, { idempotencyKey: crypto.getRandomValues(Buffer.alloc(16)) })
    console.log(`sent to ${recipient} as number ${sequence}`)
  },
  async receive(client, username, count = Infinity) {
    await client.call(LogIn, { username, password })
    let left = Number(count)
    for await (const { sequence, sender, text, sent_at: at } of client.stream(ReceiveMessages, {}, { credit: 16 })) {
      console.log(`${at} ${sender}: ${visible(text)}`)
      await client.call(Acknowledge, { sequence })
      if (--left <= 0) return
    }
  },
}

const [address = '', command, ...words] = process.argv.slice(2)
const [, host, port] = address.match(/^(.+):(\d+)$/) ?? []
if (!host || !Object.hasOwn(commands, command) || !words.length || command === 'send' && words.length !== 3) {
  console.error(USAGE)
  process.exit(2)
}
try {
  const client = await connect({ host, port: Number(port), service: 'wirechat.v1.ChatService', versions: [1, 1], name: 'chat.mjs' })
  await commands[command](client, ...words).finally(() => client.close())
} catch (error) {
  console.error(error instanceof WireError ? `${error.reason || `status ${error.status}`}: ${visible(error.message)}` : error)
  process.exitCode = 1
}
