// A client made with Node's own: prints what it is answered, interim answers and trailers included.
//   node http_client.mjs URL TOKEN METHOD [TE]
import { request, Agent } from "node:http";

const [url, token, method, te] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const interim = [];

const ask = () =>
  new Promise((resolve, reject) => {
    const headers = { Authorization: `Bearer ${token}` };
    if (te) Object.assign(headers, { TE: "trailers", Connection: "TE, keep-alive" });
    if (method === "POST") Object.assign(headers, { Expect: "100-continue", Trailer: "X-Mine, Host" });
    const sent = request(url, { method, headers, agent }, (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () =>
        resolve({
          status: response.statusCode,
          headers: response.headers,
          trailers: response.trailers,
          body: Buffer.concat(pieces).toString(),
          port: sent.socket.localPort,
        }),
      );
    });
    sent.on("error", reject);
    sent.on("information", (information) => interim.push(information.statusCode));
    sent.on("continue", () => {
      interim.push("continue");
      sent.write("hello ");
      sent.addTrailers({ "X-Mine": "1", Host: "evil.test" });
      sent.end("world");
    });
    if (method !== "POST") sent.end();
  });

const answers = [await ask(), await ask()];
console.log(JSON.stringify({ answers, interim }));
agent.destroy();
