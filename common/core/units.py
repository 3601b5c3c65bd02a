"""Between decimal text and integers: ticks, lots, atoms and microseconds.

Text exists only at the edge of the exchange (HTTP and WebSocket); everything behind it counts. No
float is involved, and what does not fit exactly is refused instead of rounded.
"""

import re
from datetime import UTC, datetime, timedelta

from common.core.errors import InvalidMarket, InvalidPrice, InvalidQuantity
from common.core.fees import MAX_FEE_BPS
from common.core.messages import Asset, Market

MAX_INT64 = 2**63 - 1

# Long enough for any amount of 64 bits with trailing zeros; short enough to parse at no cost.
_MAX_TEXT = 39
_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _BadDecimal(ValueError):
    """Why a text is not an amount; the callers name the field."""


class _BetweenSteps(_BadDecimal):
    """The amount is not a multiple of the step; the callers name that as well."""


def check_market(market: Market) -> None:
    """See that the market's units and fees can work; raises InvalidMarket.

    One tick times one lot must be a whole number of quote atoms, or prices could not be exact.
    """
    for name in ("tick_atoms", "lot_atoms"):
        if not 0 < getattr(market, name) <= MAX_INT64:
            raise InvalidMarket(
                f"{name} must be a positive 64-bit number", {name: "not positive or too large"}
            )
    if market.tick_atoms * market.lot_atoms % 10**market.base.scale != 0:
        raise InvalidMarket(
            "one tick times one lot is not a whole number of quote atoms",
            {"tick_atoms": str(market.tick_atoms), "lot_atoms": str(market.lot_atoms)},
        )
    if market.atoms_per_tick_lot > MAX_INT64:
        raise InvalidMarket("one tick times one lot does not fit into 64 bits of quote atoms")
    if market.base.asset_id == market.quote.asset_id:
        raise InvalidMarket("base and quote are the same asset")
    if not 0 <= market.min_notional_atoms <= MAX_INT64:
        raise InvalidMarket("min_notional_atoms must be a 64-bit number, at least 0")
    for name in ("maker_fee_bps", "taker_fee_bps"):
        if not 0 <= getattr(market, name) <= MAX_FEE_BPS:
            raise InvalidMarket(f"{name} must be from 0 to {MAX_FEE_BPS}", {name: "out of range"})


def price_to_text(market: Market, ticks: int) -> str:
    """The price of one whole base unit in quote units, with the decimals that one tick needs."""
    return _to_text(
        ticks * market.tick_atoms, market.quote.scale, _decimals(market.tick_atoms, market.quote.scale)
    )


def qty_to_text(market: Market, lots: int) -> str:
    """A quantity in base units, with the decimals that one lot needs."""
    return _to_text(
        lots * market.lot_atoms, market.base.scale, _decimals(market.lot_atoms, market.base.scale)
    )


def atoms_to_text(asset: Asset, atoms: int) -> str:
    """An amount in units of the asset, without trailing zeros; negative amounts have a sign."""
    text = _to_text(abs(atoms), asset.scale, asset.scale)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "-" + text if atoms < 0 else text


def price_from_text(market: Market, text: str) -> int:
    """Ticks from a decimal text; raises InvalidPrice unless it is a positive multiple of the tick."""
    try:
        return _from_text(text, market.quote.scale, market.tick_atoms)
    except _BadDecimal as error:
        why = _why(error, f"the tick {price_to_text(market, 1)}")
        raise InvalidPrice(f"price {why}", {"price": why}) from None


def qty_from_text(market: Market, text: str) -> int:
    """Lots from a decimal text; raises InvalidQuantity unless it is a positive multiple of the lot."""
    try:
        return _from_text(text, market.base.scale, market.lot_atoms)
    except _BadDecimal as error:
        why = _why(error, f"the lot {qty_to_text(market, 1)}")
        raise InvalidQuantity(f"quantity {why}", {"quantity": why}) from None


def atoms_from_text(asset: Asset, text: str) -> int:
    """Atoms from a positive decimal text; raises InvalidQuantity (field `quote_quantity` at the edge)."""
    try:
        return _from_text(text, asset.scale, 1)
    except _BadDecimal as error:
        why = _why(error, f"{_to_text(1, asset.scale, asset.scale)} {asset.symbol}")
        raise InvalidQuantity(f"quantity {why}", {"quantity": why}) from None


def time_to_text(time_us: int) -> str:
    """RFC 3339, UTC, with microseconds: 2026-01-02T03:04:05.000006Z."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _decimals(step_atoms: int, scale: int) -> int:
    """How many decimals a multiple of `step_atoms` needs."""
    while scale > 0 and step_atoms % 10 == 0:
        step_atoms //= 10
        scale -= 1
    return scale


def _to_text(atoms: int, scale: int, decimals: int) -> str:
    """Exact, because the digits cut off behind `decimals` are zeros."""
    assert atoms >= 0, "prices and quantities are not negative"
    shown = atoms // 10 ** (scale - decimals)
    if decimals == 0:
        return str(shown)
    whole, fraction = divmod(shown, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"


def _why(error: _BadDecimal, step_name: str) -> str:
    return f"must be a multiple of {step_name}" if isinstance(error, _BetweenSteps) else str(error)


def _from_text(text: str, scale: int, step_atoms: int) -> int:
    """Steps from a decimal text; raises _BadDecimal with the rest of a sentence."""
    if len(text) > _MAX_TEXT:
        raise _BadDecimal("has too many digits")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise _BadDecimal("must be a positive decimal number such as 1.5, without sign or exponent")
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > scale:
        raise _BetweenSteps
    atoms: int = int(match[1]) * 10**scale + int(fraction.ljust(scale, "0") or "0")
    steps, rest = divmod(atoms, step_atoms)
    if rest != 0:
        raise _BetweenSteps
    if steps == 0:
        raise _BadDecimal("must be greater than 0")
    if steps > MAX_INT64:
        raise _BadDecimal("is too large")
    return steps
