// An HTTP/2 server on Node (nghttp2) that counts: sessions, streams, streams that the client reset, sessions that died of an error.
// Paths: /ok?ms=5, /hang, /echo, /huge?kb=1024. A line on stdin is answered with the counts as JSON; the end of stdin is the end.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import { createInterface } from 'node:readline';

const [chain, key, settings] = process.argv.slice(2);
const seen = { sessions: 0, open: 0, streams: 0, resets: 0, cut: 0, completed: 0, session_errors: [], goaways: 0 };

const server = createSecureServer({ cert: readFileSync(chain), key: readFileSync(key), settings: JSON.parse(settings) });

server.on('session', (session) => {
  seen.sessions += 1;
  seen.open += 1;
  session.on('close', () => { seen.open -= 1; });
  session.on('error', (error) => seen.session_errors.push(error.code ?? String(error)));
  session.on('goaway', () => { seen.goaways += 1; });
});
server.on('sessionError', () => {});

server.on('stream', (stream, headers) => {
  seen.streams += 1;
  const url = new URL(headers[':path'], 'https://localhost');
  // A stream is aborted by the client's RST_STREAM, or because its session ended.
  const { session } = stream;
  stream.on('aborted', () => { seen[session.destroyed || session.closed || session.socket?.destroyed !== false ? 'cut' : 'resets'] += 1; });
  stream.on('error', () => {});
  const answer = (body) => {
    if (stream.destroyed) return;
    stream.respond({ ':status': 200, 'content-type': 'application/json' });
    stream.end(body);
    seen.completed += 1;
  };
  const number = (name, fallback) => Number(url.searchParams.get(name) ?? fallback);
  const digest = createHash('sha256');
  let length = 0;
  stream.on('data', (chunk) => { digest.update(chunk); length += chunk.length; });
  stream.on('end', () => {
    if (url.pathname === '/ok') setTimeout(() => answer('{}'), number('ms', 0));
    if (url.pathname === '/echo') answer(JSON.stringify({ length, sha256: digest.digest('hex') }));
    if (url.pathname === '/huge') answer(Buffer.alloc(number('kb', 1024) * 1024, 'x'));
  });
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify(seen)))
  .on('close', () => process.exit(0));
