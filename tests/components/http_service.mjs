// A service made with Node's own server: what it is asked in trailers and interim answers, it answers
// in trailers and interim answers.   node http_service.mjs PORT
import { createServer } from "node:http";

const server = createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const seen = JSON.stringify({
      method: request.method,
      body: Buffer.concat(pieces).toString(),
      trailers: request.trailers,
      te: request.headers.te ?? null,
    });
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    const head = { "X-Method": request.method, "Transfer-Encoding": "chunked" };
    if (request.method === "HEAD") return response.writeHead(200, head).end();
    response.writeHead(200, { ...head, Trailer: "X-Sum, Content-Type" });
    response.write(seen);
    response.addTrailers({ "X-Sum": String(seen.length), "Content-Type": "text/evil" });
    response.end();
  });
});
server.listen(Number(process.argv[2]), "127.0.0.1");
