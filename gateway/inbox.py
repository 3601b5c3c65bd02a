"""What a connection gives to the application that answers its request: ASGI's `receive` side.

Hypercorn's own channel can block for ever when an answer is given while the body still comes: the
notice of the end would have to wait behind body parts that nobody reads. Here the end never waits.
"""

from collections import deque
from typing import Any

import trio

Message = dict[str, Any]

MOST_PARTS = 4  # Of at most 64 KiB each.


class Inbox:
    """Body parts wait for room; after the end they are thrown away. To call it is ASGI's `receive`."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed: trio.Event | None = None  # There is one while somebody waits.
        self._over = False
        self._left = False

    async def put(self, message: Any) -> None:
        if message["type"] == "http.disconnect" or message["type"] == "websocket.disconnect":
            self._over = True
        else:
            while len(self._messages) >= MOST_PARTS and not self._over:
                await self._change()
            if self._over:
                return
        self._messages.append(message)
        self._notify()

    async def __call__(self) -> Any:
        while not self._messages:
            await self._change()
        message = self._messages.popleft()
        self._notify()
        return message

    def take_body(self) -> bytes | None:
        """What is left of the body, when all of that is here; else None, and nothing is taken."""
        parts: list[bytes] = []
        for message in self._messages:
            if message["type"] != "http.request":
                return None
            parts.append(message["body"])
            if not message["more_body"]:
                break
        else:
            return None
        for _ in parts:
            self._messages.popleft()
        self._notify()
        return b"".join(parts)

    def leave(self) -> None:
        """The client has closed its side. It may be gone, or still wait for its answer."""
        self._left = True
        self._notify()

    async def left(self) -> None:
        """Until the client has closed its side, or the connection has ended."""
        while not (self._left or self._over):
            await self._change()

    def close(self) -> None:
        """The application has ended: nobody will read what else comes."""
        self._over = True
        self._notify()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
