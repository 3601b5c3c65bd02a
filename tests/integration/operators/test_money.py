"""Deposits and withdrawals: each once, never more than there is, and always to be found in the books."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random

import anyio
import pytest

from common import db, money
from common.core.errors import (
    Conflict,
    ExchangeError,
    InsufficientFunds,
    InvalidQuantity,
    Malformed,
    NotFound,
)
from common.core.messages import Side
from common.money import WithdrawalStatus
from common.replay import replay
from tests.integration.order_service.desk import BTC, ETH, UNIT, USD, Desk, limit

pytestmark = pytest.mark.anyio

CAP = 2**63 - 1


async def check_books(desk: Desk) -> None:
    """`exchange audit` and `exchange replay` find nothing."""
    await desk.check_money()
    report = await replay(desk.connection, points=1, seed=1, progress=print)
    assert report.differences.first == []


async def refused(kind: type[ExchangeError], asked: Awaitable[object], desk: Desk) -> None:
    """With that error, and nothing has changed."""
    tables = "ledger", "accounts", "deposits", "withdrawals", "assets"
    everything = [f"SELECT * FROM {table} ORDER BY 1, 2" for table in tables]
    before = [await desk.rows(query) for query in everything]
    with pytest.raises(kind):
        await asked
    assert [await desk.rows(query) for query in everything] == before


async def test_a_reference_is_booked_once(desk: Desk) -> None:
    user_id, other = await desk.user(usd=0, btc=0, eth=0), await desk.user(usd=0, btc=0, eth=0)
    deposit = partial(money.deposit, desk.connection)
    assert await deposit(user_id, USD, 5, "tx 1")
    assert not await deposit(user_id, USD, 5, "tx 1")
    for another in ((user_id, USD, 6), (other, USD, 5), (user_id, BTC, 5), (other, BTC, 7)):
        await refused(Conflict, deposit(*another, "tx 1"), desk)
    for name in ("", "x" * 101, "line\nbreak", "nul\0"):
        await refused(Malformed, deposit(user_id, USD, 5, name), desk)
    assert await desk.account(user_id, USD) == (5, 0)
    assert await desk.account(other, BTC) == (0, 0)
    await check_books(desk)


async def test_what_is_issued_has_a_limit_and_withdrawals_make_room(desk: Desk) -> None:
    user_id = await desk.user(usd=0, btc=0, eth=0)
    assert await money.deposit(desk.connection, user_id, ETH, CAP, "all of it")
    await refused(InvalidQuantity, money.deposit(desk.connection, user_id, ETH, 1, "one more"), desk)
    made, _ = await money.request_withdrawal(desk.connection, user_id, ETH, 7, "there", "r")
    await refused(InvalidQuantity, money.deposit(desk.connection, user_id, ETH, 1, "one more"), desk)
    await money.complete_withdrawal(desk.connection, made.withdrawal_id, "tx")
    assert await money.deposit(desk.connection, user_id, ETH, 7, "seven more")
    await refused(InvalidQuantity, money.deposit(desk.connection, user_id, ETH, 1, "one more"), desk)
    await check_books(desk)


async def test_a_withdrawal_is_held_and_then_paid(desk: Desk) -> None:
    user_id = await desk.user(usd=10, btc=0, eth=0)
    request = partial(money.request_withdrawal, desk.connection)
    made, repeated = await request(user_id, USD, 4 * UNIT, "there", "mine")
    assert (made.status, made.closing, made.ended_at, repeated) == (WithdrawalStatus.PENDING, "", None, False)
    assert await desk.account(user_id, USD) == (6 * UNIT, 4 * UNIT)
    await check_books(desk)
    assert await request(user_id, USD, 4 * UNIT, "there", "mine") == (made, True)
    for another in ((USD, 3 * UNIT, "there"), (USD, 4 * UNIT, "elsewhere"), (BTC, 4 * UNIT, "there")):
        await refused(Conflict, request(user_id, *another, "mine"), desk)
    await refused(InsufficientFunds, request(user_id, USD, 6 * UNIT + 1, "there", "more"), desk)
    await refused(InsufficientFunds, request(user_id, BTC, 1, "there", "no account"), desk)
    await refused(NotFound, request(999_999, USD, 1, "there", "nobody"), desk)
    await refused(NotFound, request(-1, USD, 1, "there", "the fees of a partition"), desk)
    await refused(Malformed, request(user_id, USD, 1, "", "nowhere"), desk)

    complete = partial(money.complete_withdrawal, desk.connection)
    ended, repeated = await complete(made.withdrawal_id, "tx 9")
    assert (ended.status, ended.closing, repeated) == (WithdrawalStatus.COMPLETED, "tx 9", False)
    assert await complete(made.withdrawal_id, "tx 9") == (ended, True)
    await refused(Conflict, complete(made.withdrawal_id, "tx 10"), desk)
    await refused(Conflict, money.cancel_withdrawal(desk.connection, made.withdrawal_id, "tx 9"), desk)
    await refused(NotFound, complete(999_999, "tx 9"), desk)
    assert await desk.account(user_id, USD) == (6 * UNIT, 0)
    assert await request(user_id, USD, 4 * UNIT, "there", "mine") == (ended, True), "asked again: its end"
    await check_books(desk)


async def test_a_withdrawal_is_held_and_then_returned(desk: Desk) -> None:
    user_id = await desk.user(usd=10, btc=0, eth=0)
    made, _ = await money.request_withdrawal(desk.connection, user_id, USD, 10 * UNIT, "there", "mine")
    cancel = partial(money.cancel_withdrawal, desk.connection)
    ended, repeated = await cancel(made.withdrawal_id, "no such address")
    assert (ended.status, repeated) == (WithdrawalStatus.CANCELED, False)
    assert await cancel(made.withdrawal_id, "no such address") == (ended, True)
    await refused(Conflict, cancel(made.withdrawal_id, "another reason"), desk)
    await refused(Conflict, money.complete_withdrawal(desk.connection, made.withdrawal_id, "tx"), desk)
    await refused(NotFound, cancel(999_999, "x"), desk)
    assert await desk.account(user_id, USD) == (10 * UNIT, 0)
    await check_books(desk)


async def test_what_orders_hold_is_not_withdrawn_and_the_other_way_round(desk: Desk) -> None:
    user_id = await desk.user(usd=100, btc=0, eth=0)
    await desk.place(limit(user_id, Side.BUY, 6_000, 100_000))  # 60 USD for one BTC.
    request = partial(money.request_withdrawal, desk.connection, user_id, USD)
    await refused(InsufficientFunds, request(41 * UNIT, "there", "a"), desk)
    made, _ = await request(40 * UNIT, "there", "a")
    [answer] = await desk.submit(limit(user_id, Side.BUY, 1_000, 100_000))
    assert isinstance(answer, InsufficientFunds)
    await desk.run(0)
    await check_books(desk)
    await money.cancel_withdrawal(desk.connection, made.withdrawal_id, "changed their mind")
    await desk.place(limit(user_id, Side.BUY, 1_000, 100_000))
    await desk.run(0)
    assert await desk.account(user_id, USD) == (30 * UNIT, 70 * UNIT)
    await check_books(desk)


async def test_at_the_same_time_one_of_them_happens(desk: Desk) -> None:
    """Complete against cancel, the same request twice, two that both want all: on sessions of their own."""
    user_id = await desk.user(usd=0, btc=0, eth=0)
    async with db.connect(desk.url, "one") as one, db.connect(desk.url, "two") as two:
        for number in range(15):
            assert await money.deposit(one, user_id, USD, 10, f"{number}")
            first, again = await _both(
                partial(money.request_withdrawal, one, user_id, USD, 10, "there", f"{number}"),
                partial(money.request_withdrawal, two, user_id, USD, 10, "there", f"{number}"),
            )
            assert isinstance(first, tuple)
            assert isinstance(again, tuple)
            assert first[0] == again[0]
            assert {first[1], again[1]} == {False, True}
            withdrawal_id = first[0].withdrawal_id
            outcomes = await _both(
                partial(money.complete_withdrawal, one, withdrawal_id, "tx"),
                partial(money.cancel_withdrawal, two, withdrawal_id, "no"),
            )
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
            available, held = await desk.account(user_id, USD)
            assert (available in (0, 10), held) == (True, 0)
            if not available:
                assert await money.deposit(one, user_id, USD, 10, f"{number} again")
            both = await _both(
                partial(money.request_withdrawal, one, user_id, USD, 10, "there", f"{number} all"),
                partial(money.request_withdrawal, two, user_id, USD, 10, "there", f"{number} all of it"),
            )
            assert sum(isinstance(outcome, InsufficientFunds) for outcome in both) == 1
            for each in await money.list_withdrawals(one, status=WithdrawalStatus.PENDING):
                await money.complete_withdrawal(one, each.withdrawal_id, "tx")
    await check_books(desk)


Outcome = tuple[money.Withdrawal, bool] | ExchangeError


async def _both(*steps: Callable[[], Awaitable[tuple[money.Withdrawal, bool]]]) -> list[Outcome]:
    outcomes: list[Outcome] = [ExchangeError()] * len(steps)

    async def run(number: int) -> None:
        try:
            outcomes[number] = await steps[number]()
        except ExchangeError as error:
            outcomes[number] = error

    async with anyio.create_task_group() as group:
        for number in range(len(steps)):
            group.start_soon(run, number)
    return outcomes


class Model:
    """What a naive clerk would have written down of one user's money."""

    def __init__(self) -> None:
        self.available, self.deposits = 0, dict[str, int]()
        self.asked: dict[str, tuple[int, str]] = {}  # By reference: amount, and how it stands.

    @property
    def held(self) -> int:
        return sum(atoms for atoms, state in self.asked.values() if state == "waits")


async def test_any_sequence_comes_out_as_a_clerk_would_have_it(desk: Desk, seed: int) -> None:
    random, model = Random(seed), Model()
    user_id = await desk.user(usd=0, btc=0, eth=0)
    ids: dict[str, int] = {}
    for _ in range(120):
        name, atoms = f"r{random.randint(1, 12)}", random.randint(1, 60)
        with suppress(ExchangeError):
            match random.randrange(4):
                case 0:
                    if await money.deposit(desk.connection, user_id, USD, atoms, name):
                        assert name not in model.deposits
                        model.deposits[name] = atoms
                        model.available += atoms
                case 1:
                    made, repeated = await money.request_withdrawal(
                        desk.connection, user_id, USD, atoms, "there", name
                    )
                    ids[name] = made.withdrawal_id
                    if not repeated:
                        assert name not in model.asked
                        assert model.available >= atoms
                        model.asked[name] = (atoms, "waits")
                        model.available -= atoms
                case 2:
                    _, repeated = await money.complete_withdrawal(desk.connection, ids.get(name, 0), "tx")
                    if not repeated:
                        assert model.asked[name][1] == "waits"
                        model.asked[name] = (model.asked[name][0], "paid")
                case _:
                    _, repeated = await money.cancel_withdrawal(desk.connection, ids.get(name, 0), "no")
                    if not repeated:
                        assert model.asked[name][1] == "waits"
                        model.available += model.asked[name][0]
                        model.asked[name] = (model.asked[name][0], "returned")
        assert await desk.account(user_id, USD) == (model.available, model.held)
    await check_books(desk)
