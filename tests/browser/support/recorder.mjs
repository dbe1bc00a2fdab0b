/** A forward proxy that keeps every byte a browser receives, whatever asked for it. */

import { createServer, request as ask } from 'node:http';

export async function record() {
  const answers = [];
  const server = createServer((request, response) => {
    const { method, headers, url } = request;
    const forwarded = ask(url, { method, headers, agent: false }, (answer) => {
      const chunks = []; // one list for each answer: they may arrive interleaved
      answers.push(chunks);
      for (let i = 0; i < answer.rawHeaders.length; i += 2)
        chunks.push(`${answer.rawHeaders[i].toLowerCase()}: ${answer.rawHeaders[i + 1]}\n`);
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.on('data', (chunk) => chunks.push(chunk.toString('latin1')));
      answer.pipe(response);
    });
    forwarded.on('error', () => response.destroy());
    response.on('close', () => forwarded.destroy());
    request.pipe(forwarded);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    text: () => answers.map((chunks) => chunks.join('')).join('\n'),
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(resolve);
      }),
  };
}
