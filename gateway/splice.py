"""Bytes both ways between a client and market-data, so that WebSockets share the gateway's port.

Nothing is parsed, nothing is kept, and nothing is added but a preface: each direction holds one chunk, so a
slow side slows the other through TCP's own windows. An end (FIN) on one side is passed on while the other
direction goes on; a break on either side ends both. Upstream may be TLS, which has no end of one direction:
there the client's end ends both.
"""

import random
import socket
import ssl

import trio

from common.config import addresses
from common.tls import Role

CHUNK_BYTES = 1 << 16
DIAL_S = 2.0  # For each of several addresses.
KEEPALIVE_S = 60


Secure = trio.SSLStream[trio.SocketStream]
Upstream = trio.SocketStream | Secure


async def dial(several: str, context: ssl.SSLContext | None = None) -> Upstream:
    """Connect to one of host:port,host:port, at random so that each gets its share.

    With a context over TLS, and to a market-data only. Raises OSError when none of them answers.
    """
    candidates = addresses(several)
    random.shuffle(candidates)
    failure: OSError = TimeoutError(f"no connection within {DIAL_S} s")
    for address in candidates:
        host, _, port = address.rpartition(":")
        with trio.move_on_after(DIAL_S):
            try:
                stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
                return stream if context is None else await _secured(stream, context)
            except OSError as error:
                failure = error
    raise failure


async def _secured(stream: trio.SocketStream, context: ssl.SSLContext) -> Secure:
    # Compatible with https: an end without a farewell is an end; WebSocket frames say where they end.
    secure = trio.SSLStream(stream, context, server_hostname=Role.MARKET_DATA, https_compatible=True)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionError(f"no TLS with market-data: {error.__cause__}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


async def splice(client: trio.SocketStream, upstream: Upstream, preface: bytes = b"") -> None:
    """Copy until both directions have ended or one has broken. Closing the streams is the caller's.

    `preface` goes upstream before the client's bytes.
    """
    transport = upstream if isinstance(upstream, trio.SocketStream) else upstream.transport_stream
    for stream in (client, transport):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # Ends what a dead peer left behind.
        if hasattr(socket, "TCP_KEEPIDLE"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client, upstream, nursery.cancel_scope, preface)
        nursery.start_soon(_pump, upstream, client, nursery.cancel_scope)


async def _pump(source: Upstream, sink: Upstream, both: trio.CancelScope, preface: bytes = b"") -> None:
    try:
        if preface:
            await sink.send_all(preface)
        while chunk := await source.receive_some(CHUNK_BYTES):
            await sink.send_all(chunk)
        if isinstance(sink, trio.SocketStream):
            await sink.send_eof()
        else:
            both.cancel()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()
