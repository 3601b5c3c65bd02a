"""Reading the exchange at rest through its public API, page by page, for the oracle."""

from collections.abc import AsyncIterator
from typing import Any

import anyio

from tests.chaos.client import Client, NoAnswer
from tests.chaos.told import Account, Json
from tests.chaos.world import ChaosFailure

_PAGE = 1_000
_TRIES, _AGAIN_S = 20, 0.25


async def get(client: Client, path: str) -> Any:
    """The JSON of a 200. Raises ChaosFailure when there is none for seconds: nothing is broken now."""
    why = ""
    for _ in range(_TRIES):
        try:
            answer = await client.ask("GET", path)
        except NoAnswer as error:
            why = str(error)
        else:
            if answer.status == 200:
                return answer.json()
            why = f"{answer.status} {answer.body.decode(errors='replace')[:300]}"
        await anyio.sleep(_AGAIN_S)
    raise ChaosFailure(f"GET {path} is not answered: {why}")


async def pages(client: Client, path: str, name: str) -> AsyncIterator[list[Json]]:
    """Every page of a list of this user, newest first."""
    cursor = ""
    while True:
        more = f"&cursor={cursor}" if cursor else ""
        page = await get(client, f"{path}?limit={_PAGE}{more}")
        yield page[name]
        cursor = page["cursor"]
        if not cursor:
            return


async def everything(client: Client, path: str, name: str) -> list[Json]:
    return [row async for page in pages(client, path, name) for row in page]


async def until_settled(port: int, accounts: list[Account], within_s: float) -> None:
    """Until no order of any user is ACCEPTED any more: everything has been carried out.

    Raises ChaosFailure with an order that is not.
    """
    left: list[Json] = []
    with anyio.move_on_after(within_s):
        for account in accounts:
            async with Client(port, account.token) as client:
                while left := (await get(client, "/api/v1/orders?status=ACCEPTED&limit=10"))["orders"]:
                    await anyio.sleep(0.05)  # Asking is all that a client can do.
        return
    raise ChaosFailure(f"accepted {within_s:g} s ago, and not carried out: {left}")
