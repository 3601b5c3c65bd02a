"""Bytes both ways between a client and market-data, so that WebSockets share the gateway's port.

Nothing is parsed and nothing is kept: each direction holds one chunk, so a slow side slows the other
through TCP's own windows. An end (FIN) on one side is passed on while the other direction goes on; a
break on either side ends both.
"""

import socket

import trio

CHUNK_BYTES = 1 << 16
DIAL_S = 2.0
KEEPALIVE_S = 60


async def dial(address: str) -> trio.SocketStream:
    """Connect to host:port; raises OSError when nobody answers within DIAL_S."""
    host, _, port = address.rpartition(":")
    with trio.move_on_after(DIAL_S):
        return await trio.open_tcp_stream(host.strip("[]"), int(port))
    raise TimeoutError(f"no connection within {DIAL_S} s")


async def splice(client: trio.SocketStream, upstream: trio.SocketStream) -> None:
    """Copy until both directions have ended or one has broken. Closing the streams is the caller's."""
    for stream in (client, upstream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # Ends what a dead peer left behind.
        if hasattr(socket, "TCP_KEEPIDLE"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client, upstream, nursery.cancel_scope)
        nursery.start_soon(_pump, upstream, client, nursery.cancel_scope)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        while chunk := await source.receive_some(CHUNK_BYTES):
            await sink.send_all(chunk)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()
