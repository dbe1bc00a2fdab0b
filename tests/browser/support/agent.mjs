/** A backend for the gateway: echoes, streams events for ever, and talks over WebSockets. Believes everybody: it is a test's. */

import { createServer } from 'node:http';
import { ws } from './modules.mjs';

export async function agent() {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    request.resume();
    if (request.url.startsWith('/events')) {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      let count = 0;
      const next = () => response.write(`id: ${count}\ndata: ${count++}\n\n`);
      next();
      const timer = setInterval(next, 50);
      response.on('close', () => clearInterval(timer));
      return;
    }
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, headers: request.headers }));
  });
  const sockets = new (ws().WebSocketServer)({
    server,
    handleProtocols: (offered) => [...offered].find((name) => name.startsWith('chat.')) ?? false,
  });
  sockets.on('connection', (socket, request) => {
    socket.send(JSON.stringify({ url: request.url, headers: request.headers }));
    socket.on('message', (data) => socket.send(`echo ${data}`));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `127.0.0.1:${server.address().port}`,
    seen,
    close: () => {
      sockets.clients.forEach((socket) => socket.terminate());
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
