"""An SMTP server that thinks before it accepts: `python -m benchmarks.slow_sink PORT DELAY_MS`."""

import asyncio
import sys

REPLIES = {
    b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


async def serve(port: int, delay_s: float) -> None:
    """Runs until it is ended; prints `mesg=N` as smtp-sink does."""
    count = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        writer.write(b"220 sink\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 Go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                await asyncio.sleep(delay_s)
                writer.write(b"250 2.0.0 Taken\r\n")
                count += 1
                print(f"mesg={count} ", end="", flush=count % 100 == 0)
            else:
                writer.write(REPLIES.get(verb, b"250 2.0.0 Yes\r\n"))
            if verb == b"QUIT":
                break
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=4096, limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
