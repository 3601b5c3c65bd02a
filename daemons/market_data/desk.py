"""What WebSocket clients ask for, joined: public channels, private channels, and who they are."""

from common.identity.signed import Credentials
from daemons.market_data.channels import Channel
from daemons.market_data.connection import Client
from daemons.market_data.identities import Identities
from daemons.market_data.markets import Markets
from daemons.market_data.outbox import Outbox
from daemons.market_data.private import PrivateDesk, Seat
from daemons.market_data.protocol import ChannelName


class FrontDesk:
    """A `connection.Desk`."""

    def __init__(self, markets: Markets, private: PrivateDesk, identities: Identities) -> None:
        self._markets = markets
        self._private = private
        self._identities = identities

    def public(self, name: ChannelName) -> Channel:
        return self._markets.by_symbol(name.symbol).find(name)

    def private(self, name: str, user_id: int, outbox: Outbox) -> Seat:
        return self._private.seat(name, user_id, outbox)

    async def sign_in(self, client: Client, token: str) -> int:
        return await self._identities.sign_in(client, token)

    async def sign_in_signed(self, client: Client, credentials: Credentials) -> int:
        return await self._identities.sign_in_signed(client, credentials)

    def sign_out(self, client: Client) -> None:
        self._identities.sign_out(client)
