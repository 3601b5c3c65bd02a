"""Who may call what on the internal port. What is named to nobody, nobody may call.

A user id (`x-user-id`) is believed here, so that only those may name one who have authenticated the user:
a gateway, and for what its private channels show, a market-data.
"""

from common.peers import Peers
from common.tls import Role

_ORDERS, _INTERNAL = "/exchange.v1.Orders/", "/exchange.v1.OrderInternal/"

_GATEWAY = (
    *("Authenticate", "FindKey", "OpenSession", "CloseSession", "Place", "Join", "Recharge"),
    *("ClaimKeys", "SettleKeys"),
)
_MARKET_DATA_ORDERS = ("ListMarkets", "ListOrders", "ListFills", "ListAccounts")
_MARKET_DATA = ("Authenticate", "FindKey")
_MATCHING = ("Rewind", "ReportStop")

INTERNAL_CALLERS = Peers(
    {
        Role.GATEWAY: (_ORDERS, *(_INTERNAL + method for method in _GATEWAY)),
        Role.MARKET_DATA: (
            *(_ORDERS + method for method in _MARKET_DATA_ORDERS),
            *(_INTERNAL + method for method in _MARKET_DATA),
        ),
        Role.MATCHING: tuple(_INTERNAL + method for method in _MATCHING),
    }
)
