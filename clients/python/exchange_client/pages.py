"""Long lists, page by page. No asynchronous generators: a loop over one that is left early is a leak."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")

# Gives the page at a cursor, which is "" for the first, and the cursor of the next; None: there is none.
Fetch = Callable[[str], Awaitable[tuple[list[T], str | None]]]


class Pages(Generic[T]):
    """An asynchronous iterator over all that `fetch` gives. Leave it whenever you like."""

    def __init__(self, fetch: Fetch[T]) -> None:
        self._fetch = fetch
        self._page: deque[T] = deque()
        self._cursor: str | None = ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._page:
            if self._cursor is None:
                raise StopAsyncIteration
            page, self._cursor = await self._fetch(self._cursor)
            self._page.extend(page)
        return self._page.popleft()
