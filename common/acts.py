"""What operators do to users, money and markets, each act with its row of the audit log in one transaction.

The command line and the admin service both act through here, and differ in how they learn who acts. Keys
stand in `acts_of_keys`, which needs the vault.
"""

import re

from common import admin, keys, money
from common.audit_log import DONE, REPEATED, Act, Actor, recorded
from common.core.errors import Conflict, InvalidMarket, Malformed, NotFound
from common.core.messages import Asset, Market, MarketStatus
from common.core.units import atoms_from_text, atoms_to_text
from common.db import Connection
from common.money import Withdrawal

MAX_NAME = 200
_SYMBOL = re.compile("[A-Z0-9]{2,10}")
_USER = "SELECT FROM users WHERE user_id = %s AND user_id > 0"
_PARTITIONS_BY_MARKETS = """
SELECT s.partition FROM shards s LEFT JOIN markets m USING (partition)
GROUP BY s.partition ORDER BY count(m.market_id), s.partition LIMIT 1
"""


class Acts:
    """The acts of one operator on one session, which is in no transaction. All raise ExchangeErrors."""

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor

    # ---- users ----------------------------------------------------------------------------------

    async def create_user(self, name: str) -> int:
        """The new user's id."""
        async with recorded(self._connection, self._actor, Act("user create", "", {"name": name})) as act:
            money.check_text("name", name, MAX_NAME)
            user_id = await admin.create_user(self._connection, name)
            act.target = f"user {user_id}"
        return user_id

    async def create_token(self, user_id: int) -> str:
        """A new token, which can be read this once."""
        async with recorded(self._connection, self._actor, Act("user token", f"user {user_id}")):
            await known_user(self._connection, user_id)
            return await admin.create_token(self._connection, user_id)

    async def revoke_user(self, user_id: int) -> tuple[int, int]:
        """Nobody is this user any more, within seconds: how many tokens (sessions too) and keys ended."""
        async with recorded(self._connection, self._actor, Act("user revoke", f"user {user_id}")) as act:
            await known_user(self._connection, user_id)
            # Keys first: one that lives could open a session in between.
            ended_keys = await keys.revoke_keys(self._connection, user_id)
            ended_tokens = await admin.revoke_tokens(self._connection, user_id)
            act.outcome = DONE if ended_tokens or ended_keys else REPEATED
        return ended_tokens, ended_keys

    # ---- money ----------------------------------------------------------------------------------

    async def deposit(self, user_id: int, symbol: str, amount: str, reference: str) -> bool:
        """`amount` in units of the asset. False when this reference was booked before."""
        what: dict[str, str] = {"asset": symbol, "amount": amount, "reference": reference}
        act = Act("user deposit", f"user {user_id}", {**what})
        async with recorded(self._connection, self._actor, act):
            await known_user(self._connection, user_id)
            asset = await money.find_asset(self._connection, symbol)
            atoms = atoms_from_text(asset, amount)
            done = await money.deposit(self._connection, user_id, asset.asset_id, atoms, reference)
            act.outcome = DONE if done else REPEATED
        return done

    async def request_withdrawal(
        self, user_id: int, symbol: str, amount: str, address: str, reference: str
    ) -> tuple[Withdrawal, bool]:
        """For the user; `amount` in units of the asset. True with it: it was there before."""
        what = {"asset": symbol, "amount": amount, "address": address, "reference": reference}
        act = Act("withdrawal request", f"user {user_id}", {**what})
        async with recorded(self._connection, self._actor, act):
            asset = await money.find_asset(self._connection, symbol)
            atoms = atoms_from_text(asset, amount)
            made, repeated = await money.request_withdrawal(
                self._connection, user_id, asset.asset_id, atoms, address, reference
            )
            act.target = f"withdrawal {made.withdrawal_id}"
            act.arguments |= {"user": user_id}
            act.outcome = REPEATED if repeated else DONE
        return made, repeated

    async def complete_withdrawal(self, withdrawal_id: int, transaction: str) -> tuple[Withdrawal, bool]:
        """It has been paid. True with it: that was said before."""
        act = Act("withdrawal complete", f"withdrawal {withdrawal_id}", {"transaction": transaction})
        async with recorded(self._connection, self._actor, act):
            ended, repeated = await money.complete_withdrawal(self._connection, withdrawal_id, transaction)
            await self._describe(act, ended, repeated)
        return ended, repeated

    async def cancel_withdrawal(self, withdrawal_id: int, reason: str) -> tuple[Withdrawal, bool]:
        """It will not be paid. True with it: that was said before."""
        act = Act("withdrawal cancel", f"withdrawal {withdrawal_id}", {"reason": reason})
        async with recorded(self._connection, self._actor, act):
            ended, repeated = await money.cancel_withdrawal(self._connection, withdrawal_id, reason)
            await self._describe(act, ended, repeated)
        return ended, repeated

    async def _describe(self, act: Act, one: Withdrawal, repeated: bool) -> None:
        assets = {asset.asset_id: asset for asset in await money.list_assets(self._connection)}
        asset = assets[one.asset_id]
        amount = atoms_to_text(asset, one.atoms)
        act.arguments |= {"user": one.user_id, "asset": asset.symbol, "amount": amount}
        act.outcome = REPEATED if repeated else DONE

    # ---- markets --------------------------------------------------------------------------------

    async def create_market(
        self,
        symbol: str,
        *,
        tick: str,
        lot: str,
        min_notional: str = "1",
        scale: int = 8,
        maker_fee_bps: int = 10,
        taker_fee_bps: int = 20,
    ) -> Market:
        """In the partition with the fewest markets. `lot` is in units of the base asset.

        `scale`: of an asset that is new. Raises Conflict when the symbol is taken.
        """
        act = Act("market create", f"market {symbol}", {"tick": tick, "lot": lot, "scale": scale})
        act.arguments |= {"min_notional": min_notional}
        act.arguments |= {"maker_fee_bps": maker_fee_bps, "taker_fee_bps": taker_fee_bps}
        async with recorded(self._connection, self._actor, act):
            base, quote = await self._pair(symbol, scale)
            market = Market(
                market_id=await self._number("SELECT coalesce(max(market_id), 0) + 1 FROM markets"),
                symbol=symbol,
                base=base,
                quote=quote,
                partition=await self._number(_PARTITIONS_BY_MARKETS),
                tick_atoms=atoms_from_text(quote, tick),
                lot_atoms=atoms_from_text(base, lot),
                min_notional_atoms=atoms_from_text(quote, min_notional),
                maker_fee_bps=maker_fee_bps,
                taker_fee_bps=taker_fee_bps,
            )
            if not await admin.create_market(self._connection, market):
                raise Conflict(f"There is a market {symbol} already")
        return market

    async def set_fees(self, symbol: str, maker_fee_bps: int | None, taker_fee_bps: int | None) -> int:
        """None leaves one as it is. Gives the sequence of the command."""
        act = Act("market set-fees", f"market {symbol}")
        act.arguments |= {"maker_fee_bps": maker_fee_bps, "taker_fee_bps": taker_fee_bps}
        async with recorded(self._connection, self._actor, act):
            if maker_fee_bps is None and taker_fee_bps is None:
                raise InvalidMarket("Name a fee: maker_fee_bps, taker_fee_bps, or both")
            return await admin.set_market(
                self._connection, symbol, maker_fee_bps=maker_fee_bps, taker_fee_bps=taker_fee_bps
            )

    async def set_status(self, symbol: str, status: MarketStatus) -> int:
        """Halted, a market takes cancels only. Gives the sequence of the command."""
        name = "market halt" if status is MarketStatus.HALTED else "market resume"
        async with recorded(self._connection, self._actor, Act(name, f"market {symbol}")):
            return await admin.set_market(self._connection, symbol, status=status)

    async def _pair(self, symbol: str, scale: int) -> tuple[Asset, Asset]:
        base_symbol, dash, quote_symbol = symbol.partition("-")
        if not (dash and base_symbol and quote_symbol):
            raise InvalidMarket(f"{symbol} is not BASE-QUOTE, such as BTC-USD")
        if symbol in {market.symbol for market, _ in await admin.list_markets(self._connection)}:
            raise Conflict(f"There is a market {symbol} already")
        known = await money.list_assets(self._connection)
        base = _asset(known, base_symbol, scale)
        return base, _asset([*known, base], quote_symbol, scale)

    async def _number(self, query: str) -> int:
        row = await (await self._connection.execute(query.encode())).fetchone()
        assert row is not None, "the exchange has no partitions: run `exchange migrate`"
        return int(row[0])


async def known_user(connection: Connection, user_id: int) -> None:
    """Raises NotFound."""
    if await (await connection.execute(_USER, [user_id])).fetchone() is None:
        raise NotFound(f"There is no user {user_id}")


def _asset(known: list[Asset], symbol: str, scale: int) -> Asset:
    """The asset of this symbol, or a new one with the next free id."""
    for asset in known:
        if asset.symbol == symbol:
            return asset
    if not 0 <= scale <= 12:
        raise Malformed("An asset has 0 to 12 decimals", {"scale": str(scale)})
    if _SYMBOL.fullmatch(symbol) is None:
        raise InvalidMarket("An asset has 2 to 10 capital letters and digits", {"symbol": symbol[:40]})
    return Asset(max([0, *(asset.asset_id for asset in known)]) + 1, symbol, scale)
