"""One user's private WebSocket: hears `orders` and `fills`, comes back after every end, starts again.

Every connection numbers what it sends on a channel; a number that does not follow is a gap, which the
exchange promises to show and this load promises to notice.
"""

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.told import Account, Json, Told

CHANNELS = ("orders", "fills")
_AGAIN_S = 0.2
_OPEN_S = 5.0

_decode = msgspec.json.Decoder(dict[str, object]).decode


class _Refused(Exception):
    """The exchange could not give the channels now; connect again."""


class Listener:
    def __init__(self, url: str, account: Account, told: Told) -> None:
        self._url = url
        self._account = account
        self._told = told
        self.connections = 0

    async def run(self) -> None:
        """Until canceled."""
        while True:
            try:
                async with connect(
                    self._url,
                    proxy=None,
                    compression=None,
                    open_timeout=_OPEN_S,
                    close_timeout=0.5,
                    max_size=None,
                    ping_interval=5,
                    ping_timeout=10,
                ) as socket:
                    await self._follow(socket)
            except (OSError, TimeoutError, WebSocketException, _Refused):
                self._told.resyncs += 1
            await anyio.sleep(_AGAIN_S)

    async def _follow(self, socket: ClientConnection) -> None:
        self.connections += 1
        await socket.send(msgspec.json.encode({"op": "auth", "token": self._account.token}), text=True)
        request = {"op": "subscribe", "channels": CHANNELS, "id": 1}
        await socket.send(msgspec.json.encode(request), text=True)
        last: dict[str, int] = {}
        async for text in socket:
            message: Json = _decode(text)
            if message.get("op") == "error":
                raise _Refused(message["error"]["code"])
            if "channel" in message:
                self._take(message, last)

    def _take(self, message: Json, last: dict[str, int]) -> None:
        channel, data = message["channel"], message["data"]
        if message["type"] == "update" and message["previous"] != last.get(channel):
            self._told.violations.add(
                f"{channel} of user {self._account.user_id}: {last.get(channel)} is followed by"
                f" {message['sequence']} with previous {message['previous']}"
            )
        last[channel] = message["sequence"]
        if channel == "orders" and message["type"] == "snapshot":
            self._account.live.clear()
        for row in data if isinstance(data, list) else [data]:
            if channel == "fills":
                self._account.hear_fill(row)
            else:
                self._account.hear_order(row, self.connections)
