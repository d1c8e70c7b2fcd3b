// grpc-js against the gateway: node gateway.mjs ADDRESS PROTO_ROOT; one JSON object on stdout, for the Python test.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, root] = process.argv.slice(2);
const definition = loader.loadSync("test/lending/v1/lending.proto", { includeDirs: [root], longs: Number, keepCase: true });
const { LendingService } = grpc.loadPackageDefinition(definition).test.lending.v1;
const client = new LendingService(address, grpc.credentials.createInsecure());

const call = (method, request, metadata = new grpc.Metadata()) =>
  new Promise((resolve) =>
    client[method](request, metadata, { deadline: Date.now() + 20000 }, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details, rich: error.metadata.get("grpc-status-details-bin").length } : answer)));

const found = {};
found.joined = await call("Join", { name: "jill", password: "correct horse 1" });
const login = await call("LogIn", { name: "jill", password: "correct horse 1" });
const signed = new grpc.Metadata();
signed.set("authorization", `Bearer ${login.token}`);
const keyed = signed.clone();
keyed.set("idempotency-key", "one");
found.sent = await call("SendNotice", { recipient: "jill", text: "from JavaScript \u2615" }, keyed);
found.again = await call("SendNotice", { recipient: "jill", text: "from JavaScript \u2615" }, keyed);
found.refused = await call("SendNotice", { recipient: "jill", text: "no" });
found.followed = await new Promise((resolve) => {
  const stream = client.FollowNotices({}, signed);
  stream.on("data", (notice) => { stream.cancel(); resolve(notice.text); });
  stream.on("error", (error) => resolve({ code: error.code }));
});
console.log(JSON.stringify(found));
client.close();
