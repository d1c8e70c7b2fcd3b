// Uploads, duplex and one-way calls by grpc-js: node shapes.mjs ADDRESS SERVICE. It prints what became of each, as JSON.
// Messages are bytes: of what is sent, field 2 is a number; of what an upload answers, field 1 is one.
import grpc from "@grpc/grpc-js";

const [address, service] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure());
const asIs = (bytes) => bytes;
const number = (value) => Buffer.from([0x10, value]);
const thousand = Buffer.from([0x10, 0xe8, 0x07]);
const negative = Buffer.from([0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
const path = (method) => `/${service}/${method}`;
const options = () => ({ deadline: Date.now() + 30_000 });

// What an upload is answered; `steps` sends.
const upload = (method, steps) =>
  new Promise((resolve) => {
    const call = client.makeClientStreamRequest(path(method), asIs, asIs, new grpc.Metadata(), options(), (error, answer) =>
      resolve(error ? grpc.status[error.code] : answer.toString("hex")));
    steps(call);
  });

const found = {};
for (const method of ["AddUp", "Iterate"]) {
  found[`${method} whole`] = await upload(method, (call) => {
    for (const value of [1, 2, 3, 4, 5]) call.write(number(value));
    call.end();
  });
  found[`${method} none`] = await upload(method, (call) => call.end());
  found[`${method} early`] = await upload(method, (call) => call.write(thousand));
  found[`${method} cancelled`] = await upload(method, (call) => {
    call.write(number(7));
    setTimeout(() => call.cancel(), 200);
  });
}
found.refused = await upload("AddUp", (call) => call.write(negative));
for (const method of ["EchoSink", "EchoAll"]) {
  found[method] = await new Promise((resolve) => {
    const back = [];
    const call = client.makeBidiStreamRequest(path(method), asIs, asIs, new grpc.Metadata(), options());
    call.on("data", (item) => {
      back.push(item.toString("hex"));
      if (back.length < 3) call.write(number(back.length + 1));
      else call.end();
    });
    call.on("error", (error) => resolve([...back, grpc.status[error.code]]));
    call.on("end", () => resolve(back));
    call.write(number(1));
  });
}
found.posted = await new Promise((resolve) =>
  client.makeUnaryRequest(path("Note"), asIs, asIs, number(9), new grpc.Metadata(), options(), (error, answer) =>
    resolve(error ? grpc.status[error.code] : answer.toString("hex"))));
console.log(JSON.stringify(found));
client.close();
