"""What the formats share: the one error, and how enumerations and messages inside others are made cheaply."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from common.core import messages as m

PART_BYTES: Final = 1 << 20  # A settlement or its updates travel in records of about this size.

# Calling an enumeration costs five times as much as looking its member up.
SIDES: Final = {int(one): one for one in m.Side}
ORDER_TYPES: Final = {int(one): one for one in m.OrderType}
TIMES_IN_FORCE: Final = {int(one): one for one in m.TimeInForce}
PREVENTIONS: Final = {int(one): one for one in m.SelfTradePrevention}
ORDER_STATUSES: Final = {int(one): one for one in m.OrderStatus}
REASONS: Final = {int(one): one for one in m.Reason}

# Messages inside others are made in place, by `add` of the field that they stand in or from a dict: a
# finished message would be copied, and that costs as much as making it.
Made = TypeVar("Made")
FIELDS: Final[Callable[..., Any]] = dict


class Undecodable(ValueError):
    """The bytes are not what their topic carries."""
