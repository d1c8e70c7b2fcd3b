// Many calls at once by grpc-js: node many.mjs ADDRESS PATH COUNT. It prints how many were answered, by status.

import grpc from "@grpc/grpc-js";

const [address, path, count] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure());
const request = Buffer.from("\n\x01x");
const asIs = (bytes) => bytes;
const call = () =>
  new Promise((resolve) => {
    const deadline = Date.now() + 30_000;
    client.makeUnaryRequest(path, asIs, asIs, request, { deadline }, (error, answer) => {
      resolve(error ? grpc.status[error.code] : request.equals(answer) ? "OK" : "another answer");
    });
  });
const codes = await Promise.all(Array.from({ length: Number(count) }, call));
const counted = {};
for (const code of codes) counted[code] = (counted[code] ?? 0) + 1;
console.log(JSON.stringify(counted));
client.close();
