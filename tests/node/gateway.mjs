// grpc-js against the gateway: node gateway.mjs ADDRESS PROTO_ROOT; one JSON object on stdout, for the Python test.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, root] = process.argv.slice(2);
const definition = loader.loadSync("wireproto/chat/v1/chat.proto", { includeDirs: [root], longs: Number, keepCase: true });
const { ChatService } = grpc.loadPackageDefinition(definition).wireproto.chat.v1;
const client = new ChatService(address, grpc.credentials.createInsecure());

const call = (method, request, metadata = new grpc.Metadata()) =>
  new Promise((resolve) =>
    client[method](request, metadata, { deadline: Date.now() + 20000 }, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details, rich: error.metadata.get("grpc-status-details-bin").length } : answer)));

const found = {};
found.created = await call("CreateAccount", { username: "jill", password: "correct horse 1" });
const login = await call("LogIn", { username: "jill", password: "correct horse 1" });
const signed = new grpc.Metadata();
signed.set("authorization", `Bearer ${login.token}`);
const keyed = signed.clone();
keyed.set("idempotency-key", "one");
found.sent = await call("SendMessage", { recipient: "jill", text: "from JavaScript \u2615" }, keyed);
found.again = await call("SendMessage", { recipient: "jill", text: "from JavaScript \u2615" }, keyed);
found.refused = await call("SendMessage", { recipient: "jill", text: "no" });
found.received = await new Promise((resolve) => {
  const stream = client.ReceiveMessages({}, signed);
  stream.on("data", (message) => { stream.cancel(); resolve(message.text); });
  stream.on("error", (error) => resolve({ code: error.code }));
});
console.log(JSON.stringify(found));
client.close();
