"""The log once more through a fresh engine, and what the database has that it would not have made.

Pure: the rows come in by batch, the differences go out as values. `common.replay` reads the rows.

Expected is what the log says, found is what the database has. Orders are compared twice: with their
command when it comes by (the columns of TX1), and with the engine's last word when they have ended, or
at the end of the log while they live. So memory holds the live orders, not all of them.

Does not promise: anything of what comes after a batch that cannot be applied. The replay breaks off there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields

from common.core.differences import Differences, Row
from common.core.engine import Engine
from common.core.ledger import LedgerEntry, ledger_entries, postings
from common.core.messages import (
    Batch,
    Market,
    OrderState,
    Place,
    SetMarket,
    Settlement,
    Side,
    Skipped,
    Snapshot,
    Trade,
)
from common.core.sequencing import Verdict, judge

# The columns of a row of orders, as TX1 writes them and as TX2 leaves them; of trades; of the ledger.
PLACED = (
    *("sequence", "order_id", "user_id", "market_id", "client_order_id", "side", "type", "time_in_force"),
    *("post_only", "stp", "price_ticks", "qty_lots", "quote_atoms", "hold_atoms", "created_us"),
)
LEFT = (*("status", "reason", "filled_lots", "filled_quote_atoms", "fee_atoms", "held_atoms", "updated_us"),)
TRADED = (
    *("sequence", "market_id", "trade_id", "time_us", "price_ticks", "qty_lots", "taker_side"),
    *("maker_order_id", "taker_order_id", "maker_user_id", "taker_user_id"),
    *("maker_fee_atoms", "taker_fee_atoms"),
)
BOOKED = ("sequence", "user_id", "asset_id", "delta_atoms")
DIGESTED = ("sequence", "market_id", "digest")

Account = tuple[int, int]  # (user_id, asset_id)


class PartitionReplay:
    """One partition: `step` for each batch, in order; `point` anywhere between; `finish` at the watermark."""

    def __init__(
        self, partition: int, encode: Callable[[Settlement], bytes], differences: Differences
    ) -> None:
        self.engine = Engine(partition)
        self.broken = False  # A batch could not be applied: nothing after it can be compared.
        self.commands = self.orders = self.trades = self.digests = 0
        self.points: list[int] = []  # Where a fresh engine was restored.
        self.moved: dict[Account, int] = {}  # All that settlements moved, in atoms.
        self.held: dict[Account, int] = {}  # By live orders; complete after `finish` and `waiting`.
        self._encode = encode
        self._differences = differences
        self._markets: dict[int, Market] = {}
        self._rows: dict[int, Row] = {}  # Of orders that live, as the database has them in the end.
        self._states: dict[int, tuple[OrderState, int]] = {}  # The engine's last word on those, and when.
        self._unbooked: dict[Account, int] = {}  # Moved since the last transaction of the ledger.
        self._restored: list[tuple[int, Engine]] = []
        self._last_waiting: Batch | None = None

    def step(
        self,
        batch: Batch,
        orders: Iterable[Row],
        trades: Iterable[Row],
        ledger: Iterable[Row],
        digests: Iterable[Row],
    ) -> None:
        """Apply the next batch, skips and all; the rows are those that stand at its sequences."""
        applied = self._apply(batch)
        if applied is None:
            return
        settlement, entries = applied
        self._compare_placed(batch, orders)
        self._compare_trades(settlement, trades)
        self._compare_left(settlement)
        self._book(settlement, entries, ledger)
        self._compare_digests(settlement, digests)
        self.commands += len(batch.commands)

    def point(self) -> None:
        """Restore a fresh engine here; from now on it must settle the same."""
        restored = Engine(self.engine.partition)
        restored.restore(self.engine.snapshot())
        self._restored.append((self.engine.sequence, restored))
        self.points.append(self.engine.sequence)

    def break_off(self, what: str, why: str) -> None:
        """The log cannot be followed any further."""
        self._add(what, self._log_end()[0] + 1, None, {"cannot be applied": why})
        self.broken = True

    def beyond(self, source: str, row: Row, columns: Sequence[str]) -> None:
        """A row that stands above the last batch."""
        self._differences.add(
            f"{source}, above the watermark", self._where(), None, dict(zip(columns, row, strict=True))
        )

    def waiting(self, batch: Batch) -> None:
        """A batch above the watermark: not applied, but its orders hold."""
        if not self._follows(batch, *self._log_end()):
            return
        self._last_waiting = batch
        self._learn_markets(batch)
        for command in batch.commands:
            if isinstance(command, Place):
                self._hold(command.user_id, command.market_id, command.side, command.hold_atoms)

    def finish(self, database: Snapshot) -> None:
        """`database` is the state that a leader would restore now."""
        for order_id, (state, time_us) in sorted(self._states.items()):
            if (row := self._rows.get(order_id)) is not None:
                self._compare_end(state, time_us, row)
        for (user_id, asset_id), atoms in sorted(self._unbooked.items()):
            if atoms:
                what = f"ledger rows of user {user_id}, asset {asset_id}"
                self._add(what, self.engine.sequence, {"delta_atoms": atoms}, None)
        state_now = self.engine.snapshot()
        for live in state_now.orders:
            self._hold(live.user_id, live.market_id, live.side, live.held_atoms)
        self._compare_snapshots("the state restored from the database", state_now, database)
        for sequence, restored in self._restored:
            what = f"the state of the engine restored at {sequence}"
            self._compare_snapshots(what, state_now, restored.snapshot())

    # ---- the parts of a step --------------------------------------------------------------------

    def _apply(self, batch: Batch) -> tuple[Settlement, list[LedgerEntry]] | None:
        if not self._follows(batch, self.engine.sequence, self.engine.chain):
            return None
        self._learn_markets(batch)
        name = _name(batch)
        try:
            settlement = self.engine.apply(batch).settlement
            entries = ledger_entries(postings(settlement, self._markets))
        except Exception as error:  # Whatever it is, it is what a leader would die of.
            self.break_off(name, repr(error))
            return None
        if self._restored:
            self._compare_restored(batch, self._encode(settlement), name)
        return settlement, entries

    def _follows(self, batch: Batch, sequence: int, chain: bytes) -> bool:
        """Whether the batch is the next after these; breaks off when it is not."""
        verdict = judge(
            sequence, chain, batch.first_sequence, batch.last_sequence, batch.previous_chain, batch.chain
        )
        if verdict is not Verdict.NEXT:
            self.break_off(_name(batch), f"{verdict.value} after {sequence}")
        return verdict is Verdict.NEXT

    def _log_end(self) -> tuple[int, bytes]:
        if self._last_waiting is not None:
            return self._last_waiting.last_sequence, self._last_waiting.chain
        return self.engine.sequence, self.engine.chain

    def _learn_markets(self, batch: Batch) -> None:
        for command in batch.commands:
            if isinstance(command, SetMarket):
                self._markets.setdefault(command.market.market_id, command.market)

    def _compare_restored(self, batch: Batch, expected: bytes, name: str) -> None:
        going_on = []
        for sequence, restored in self._restored:
            what = f"the settlement of {name} by the engine restored at {sequence}"
            try:
                found = self._encode(restored.apply(batch).settlement)
            except Exception as error:
                self._add(what, batch.first_sequence, {"bytes": expected.hex()}, {"error": repr(error)})
                continue
            if found == expected:
                going_on.append((sequence, restored))
            else:
                self._add(what, batch.first_sequence, {"bytes": expected.hex()}, {"bytes": found.hex()})
        self._restored = going_on

    def _compare_placed(self, batch: Batch, rows: Iterable[Row]) -> None:
        found = {(row[0], row[1]): row for row in rows}
        for sequence, command in enumerate(batch.commands, batch.first_sequence):
            place = command.command if isinstance(command, Skipped) else command
            if not isinstance(place, Place):
                continue
            self.orders += 1
            row = found.pop((sequence, place.order_id), None)
            if row is None:
                self._add(f"order {place.order_id}", sequence, {"order_id": place.order_id}, None)
                continue
            expected = _placed(place, sequence, batch.time_us)
            self._differences.compare(
                f"order {place.order_id}", self._where(sequence), PLACED, expected, row[: len(PLACED)]
            )
            self._rows[place.order_id] = row
        for row in found.values():
            what = f"order {row[1]}, which no command placed"
            self._add(what, row[0], None, dict(zip(PLACED, row, strict=False)))

    def _compare_trades(self, settlement: Settlement, rows: Iterable[Row]) -> None:
        self.trades += len(settlement.trades)
        found = {(row[1], row[2]): row for row in rows}
        for trade in settlement.trades:
            name = f"trade {trade.trade_id} of market {trade.market_id}"
            expected = _traded(trade, settlement.time_us)
            row = found.pop((trade.market_id, trade.trade_id), None)
            if row is None:
                self._add(name, trade.sequence, dict(zip(TRADED, expected, strict=True)), None)
            else:
                self._differences.compare(name, self._where(trade.sequence), TRADED, expected, row)
        for row in found.values():
            what = f"trade {row[2]} of market {row[1]}, which no command made"
            self._add(what, row[0], None, dict(zip(TRADED, row, strict=True)))

    def _compare_left(self, settlement: Settlement) -> None:
        for state in settlement.orders:
            if state.status.live:
                self._states[state.order_id] = (state, settlement.time_us)
                continue
            self._states.pop(state.order_id, None)
            if (row := self._rows.pop(state.order_id, None)) is not None:
                self._compare_end(state, settlement.time_us, row)

    def _compare_end(self, state: OrderState, time_us: int, row: Row) -> None:
        expected = (
            int(state.status),
            int(state.reason),
            state.filled_lots,
            state.filled_quote_atoms,
            state.fee_atoms,
            state.held_atoms,
            time_us,
        )
        where = self._where(state.sequence)
        self._differences.compare(f"order {state.order_id}", where, LEFT, expected, row[len(PLACED) :])

    def _book(self, settlement: Settlement, entries: Iterable[LedgerEntry], rows: Iterable[Row]) -> None:
        """TX2 may settle several batches in one transaction, which stands at the last one's end."""
        for entry in entries:
            account = entry.user_id, entry.asset_id
            for sums in (self.moved, self._unbooked):
                sums[account] = sums.get(account, 0) + entry.delta_atoms
        booked: dict[Account, int] = {}
        for sequence, user_id, asset_id, delta_atoms in rows:
            assert isinstance(user_id, int)
            assert isinstance(asset_id, int)
            assert isinstance(delta_atoms, int)
            if sequence != settlement.last_sequence:
                what = f"a ledger row of user {user_id}, asset {asset_id}, where no batch ends"
                self._add(what, sequence, None, {"delta_atoms": delta_atoms})
            booked[user_id, asset_id] = booked.get((user_id, asset_id), 0) + delta_atoms
        if booked:
            for account in sorted(booked.keys() | self._unbooked.keys()):
                what = f"ledger rows of user {account[0]}, asset {account[1]}"
                expected, found = self._unbooked.get(account, 0), booked.get(account, 0)
                self._differences.compare(
                    what, self._where(settlement.last_sequence), ("delta_atoms",), (expected,), (found,)
                )
            self._unbooked = {}

    def _compare_digests(self, settlement: Settlement, rows: Iterable[Row]) -> None:
        """A history that began before there were digests has none up to the first."""
        found = {row[1]: row for row in rows}
        begun = self.digests > 0 or bool(found)
        for each in settlement.digests:
            expected = (settlement.last_sequence, each.market_id, each.digest)
            row = found.pop(each.market_id, None)
            name = f"the digest of market {each.market_id}'s book"
            if row is not None:
                self._differences.compare(name, self._where(expected[0]), DIGESTED, expected, row)
                self.digests += 1
            elif begun:
                self._add(name, expected[0], {"digest": each.digest}, None)
        for row in found.values():
            what = f"a digest of market {row[1]}'s book, which no engine makes here"
            self._add(what, row[0], None, {"digest": row[2]})

    def _compare_snapshots(self, what: str, expected: Snapshot, found: Snapshot) -> None:
        names = ("sequence", "chain", "time_us", "engine_version")
        self._differences.compare(
            what,
            self._where(),
            names,
            tuple(getattr(expected, name) for name in names),
            tuple(getattr(found, name) for name in names),
        )
        for kind, key, had, has in (
            ("market", "market_id", expected.markets, found.markets),
            ("state of market", "market_id", expected.states, found.states),
            ("live order", "order_id", expected.orders, found.orders),
        ):
            self._compare_values(f"{what}: {kind}", key, had, has)

    def _compare_values(
        self, what: str, key: str, expected: Sequence[object], found: Sequence[object]
    ) -> None:
        """Lists of dataclasses, by their keys; the sequence of a snapshot's lists is not compared."""
        if expected == found:
            return
        had = {getattr(one, key): _values(one) for one in expected}
        has = {getattr(one, key): _values(one) for one in found}
        for number in sorted(had.keys() | has.keys()):
            mine, theirs = had.get(number), has.get(number)
            if mine is None or theirs is None:
                self._differences.add(f"{what} {number}", self._where(), mine, theirs)
            else:
                columns = list(mine)
                self._differences.compare(
                    f"{what} {number}", self._where(), columns, tuple(mine.values()), tuple(theirs.values())
                )

    def _hold(self, user_id: int, market_id: int, side: Side, atoms: int) -> None:
        market = self._markets[market_id]
        paying = market.quote if side is Side.BUY else market.base
        account = user_id, paying.asset_id
        self.held[account] = self.held.get(account, 0) + atoms

    def _where(self, sequence: object = None) -> str:
        at = self.engine.sequence if sequence is None else sequence
        return f"partition {self.engine.partition}, sequence {at}"

    def _add(
        self,
        what: str,
        sequence: object,
        expected: Mapping[str, object] | None,
        found: Mapping[str, object] | None,
    ) -> None:
        self._differences.add(what, self._where(sequence), expected, found)


def compare_balances(
    differences: Differences,
    replays: Iterable[PartitionReplay],
    deposits: Mapping[Account, int],
    pending: Mapping[Account, int],
    accounts: Mapping[Account, tuple[int, int]],
) -> None:
    """An account owns what was deposited and what the replay moved; of that, its live orders hold some.

    `deposits`: less completed withdrawals; `pending`: what the others hold; both in atoms. `accounts`:
    (available, held) as the database has them.
    """
    owned, held = dict(deposits), dict(pending)
    for replay in replays:
        for sums, more in ((owned, replay.moved), (held, replay.held)):
            for account, atoms in more.items():
                sums[account] = sums.get(account, 0) + atoms
    for account in sorted(owned.keys() | held.keys() | accounts.keys()):
        holds = held.get(account, 0)
        differences.compare(
            f"the balance of user {account[0]}, asset {account[1]}",
            "accounts",
            ("available_atoms", "held_atoms"),
            (owned.get(account, 0) - holds, holds),
            accounts.get(account, (0, 0)),
        )


def _name(batch: Batch) -> str:
    return f"the batch {batch.first_sequence} to {batch.last_sequence}"


def _placed(place: Place, sequence: int, time_us: int) -> Row:
    return (
        sequence,
        place.order_id,
        place.user_id,
        place.market_id,
        place.client_order_id,
        int(place.side),
        int(place.type),
        int(place.time_in_force),
        place.post_only,
        int(place.stp),
        place.price_ticks,
        place.qty_lots,
        place.quote_atoms,
        place.hold_atoms,
        time_us,
    )


def _traded(trade: Trade, time_us: int) -> Row:
    return (
        trade.sequence,
        trade.market_id,
        trade.trade_id,
        time_us,
        trade.price_ticks,
        trade.qty_lots,
        int(trade.taker_side),
        trade.maker_order_id,
        trade.taker_order_id,
        trade.maker_user_id,
        trade.taker_user_id,
        trade.maker_fee_atoms,
        trade.taker_fee_atoms,
    )


def _values(one: object) -> dict[str, object]:
    return {name.name: getattr(one, name.name) for name in fields(one)}  # type: ignore[arg-type]  # all are dataclasses
