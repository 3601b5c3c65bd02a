"""The admin RPCs: messages in, acts of `common.acts`, messages out. No decision is made here.

Who acts is the holder that the caller's certificate names. In local mode without certificates it is
whoever reaches the port, which is on loopback.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc.aio

from common import admin, keys, money
from common.acts import Acts
from common.acts_of_keys import KeyActs
from common.audit_log import GRPC, Actor, Entry, read_audit_log
from common.core.errors import Forbidden, Malformed, Unavailable
from common.core.messages import MarketStatus
from common.db import Connection, Pool, is_transient
from common.identity import permissions
from common.identity.vault import Vault
from common.keys import ApiKey
from common.money import WithdrawalStatus
from common.peers import Context, Peers, peer_of
from common.tls import Role
from common.wire import market_to_proto
from exchange.v1 import admin_pb2 as pb
from exchange.v1 import admin_pb2_grpc

SERVICE = "exchange.v1.Admin"
CALLERS = Peers({Role.OPERATOR: (f"/{SERVICE}/",)})
MOST, USUAL = 1_000, 100
NOBODY = "local mode"

_MARKET_STATUSES = frozenset(map(int, MarketStatus))
_WITHDRAWAL_STATUSES = frozenset(map(int, WithdrawalStatus))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AdminService(admin_pb2_grpc.AdminServicer):
    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        async with self._acts(context) as acts:
            return pb.CreateUserResponse(user_id=await acts.create_user(request.name))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        async with self._session() as connection:
            found = await admin.list_users(connection, request.after_user_id, _limit(request.limit))
        users = [pb.User(user_id=one.user_id, name=one.name, tokens=one.tokens) for one in found]
        return pb.ListUsersResponse(users=users)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        async with self._acts(context) as acts:
            return pb.CreateTokenResponse(token=await acts.create_token(request.user_id))

    async def RevokeUser(self, request: pb.RevokeUserRequest, context: Context) -> pb.RevokeUserResponse:
        async with self._acts(context) as acts:
            tokens, keys = await acts.revoke_user(request.user_id)
        return pb.RevokeUserResponse(tokens=tokens, keys=keys)

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        async with self._session() as connection:
            made = await self._key_acts(connection, context).create(
                request.user_id,
                label=request.label,
                allowed=request.permissions,
                networks=request.networks,
                expires_at=_time(request.expires_us),
                public_key=request.public_key,
            )
        return pb.CreateKeyResponse(api_key=made.api_key, api_secret=made.secret or "")

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        async with self._session() as connection:
            found = await keys.list_keys(connection, request.user_id or None)
        return pb.ListKeysResponse(keys=[_key(one) for one in found])

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        async with self._session() as connection:
            revoked = await self._key_acts(connection, context).revoke(request.api_key)
        return pb.RevokeKeyResponse(repeated=not revoked)

    async def CreateMarket(
        self, request: pb.CreateMarketRequest, context: Context
    ) -> pb.CreateMarketResponse:
        async with self._acts(context) as acts:
            market = await acts.create_market(
                request.symbol,
                tick=request.tick,
                lot=request.lot,
                min_notional=request.min_notional or "1",
                scale=request.scale or 8,
                maker_fee_bps=request.maker_fee_bps,
                taker_fee_bps=request.taker_fee_bps,
            )
        return pb.CreateMarketResponse(market=market_to_proto(market))

    async def DescribeMarkets(
        self, request: pb.DescribeMarketsRequest, context: Context
    ) -> pb.DescribeMarketsResponse:
        async with self._session() as connection:
            found = await admin.list_markets(connection)
        return pb.DescribeMarketsResponse(markets=[market_to_proto(market) for market, _ in found])

    async def SetFees(self, request: pb.SetFeesRequest, context: Context) -> pb.SetFeesResponse:
        async with self._acts(context) as acts:
            sequence = await acts.set_fees(
                request.symbol,
                request.maker_fee_bps if request.HasField("maker_fee_bps") else None,
                request.taker_fee_bps if request.HasField("taker_fee_bps") else None,
            )
        return pb.SetFeesResponse(sequence=sequence)

    async def SetStatus(self, request: pb.SetStatusRequest, context: Context) -> pb.SetStatusResponse:
        if request.status not in _MARKET_STATUSES:
            raise Malformed("A market is ACTIVE or HALTED", {"status": "is missing or unknown"})
        async with self._acts(context) as acts:
            sequence = await acts.set_status(request.symbol, MarketStatus(request.status))
        return pb.SetStatusResponse(sequence=sequence)

    async def Deposit(self, request: pb.DepositRequest, context: Context) -> pb.DepositResponse:
        async with self._acts(context) as acts:
            done = await acts.deposit(request.user_id, request.asset, request.amount, request.reference)
        return pb.DepositResponse(repeated=not done)

    async def RequestWithdrawal(
        self, request: pb.RequestWithdrawalRequest, context: Context
    ) -> pb.RequestWithdrawalResponse:
        async with self._acts(context) as acts:
            made, repeated = await acts.request_withdrawal(
                request.user_id, request.asset, request.amount, request.address, request.reference
            )
        return pb.RequestWithdrawalResponse(withdrawal=withdrawal_to_proto(made), repeated=repeated)

    async def CompleteWithdrawal(
        self, request: pb.CompleteWithdrawalRequest, context: Context
    ) -> pb.CompleteWithdrawalResponse:
        async with self._acts(context) as acts:
            ended, repeated = await acts.complete_withdrawal(request.withdrawal_id, request.transaction)
        return pb.CompleteWithdrawalResponse(withdrawal=withdrawal_to_proto(ended), repeated=repeated)

    async def CancelWithdrawal(
        self, request: pb.CancelWithdrawalRequest, context: Context
    ) -> pb.CancelWithdrawalResponse:
        async with self._acts(context) as acts:
            ended, repeated = await acts.cancel_withdrawal(request.withdrawal_id, request.reason)
        return pb.CancelWithdrawalResponse(withdrawal=withdrawal_to_proto(ended), repeated=repeated)

    async def ListWithdrawals(
        self, request: pb.ListWithdrawalsRequest, context: Context
    ) -> pb.ListWithdrawalsResponse:
        if request.status and request.status not in _WITHDRAWAL_STATUSES:
            raise Malformed("The status is none", {"status": "is unknown"})
        async with self._session() as connection:
            found = await money.list_withdrawals(
                connection,
                user_id=request.user_id or None,
                status=WithdrawalStatus(request.status) if request.status else None,
                before_id=request.before_id or None,
                limit=_limit(request.limit),
            )
        return pb.ListWithdrawalsResponse(withdrawals=[withdrawal_to_proto(one) for one in found])

    async def ListAuditLog(
        self, request: pb.ListAuditLogRequest, context: Context
    ) -> pb.ListAuditLogResponse:
        async with self._session() as connection:
            found = await read_audit_log(
                connection, limit=_limit(request.limit), before_id=request.before_id or None
            )
        return pb.ListAuditLogResponse(entries=[_entry(one) for one in found])

    @asynccontextmanager
    async def _acts(self, context: Context) -> AsyncIterator[Acts]:
        async with self._session() as connection:
            yield Acts(connection, _actor(context))

    def _key_acts(self, connection: Connection, context: Context) -> KeyActs:
        return KeyActs(connection, _actor(context), self._vault)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except Exception as error:
            if not is_transient(error):
                raise
            # An act that was cut off may have happened; its reference or the audit log tells.
            raise Unavailable("PostgreSQL does not answer right now") from error


def register(server: grpc.aio.Server, service: AdminService) -> None:
    admin_pb2_grpc.add_AdminServicer_to_server(service, server)


def _actor(context: Context) -> Actor:
    peer = peer_of(context)
    if peer is not None and not peer.name:
        raise Forbidden("The operator's certificate has no common name to write down")
    return Actor(peer.name if peer else NOBODY, GRPC)


def _limit(asked: int) -> int:
    if not 0 <= asked <= MOST:
        raise Malformed(f"limit is 1 to {MOST}", {"limit": "out of range"})
    return asked or USUAL


def withdrawal_to_proto(one: money.Withdrawal) -> pb.Withdrawal:
    return pb.Withdrawal(
        withdrawal_id=one.withdrawal_id,
        user_id=one.user_id,
        asset_id=one.asset_id,
        atoms=one.atoms,
        address=one.address,
        reference=one.reference,
        status=pb.WithdrawalStatus.ValueType(one.status),
        closing=one.closing,
        requested_us=_us(one.requested_at),
        ended_us=_us(one.ended_at),
    )


def _key(one: ApiKey) -> pb.Key:
    return pb.Key(
        api_key=one.api_key,
        user_id=one.user_id,
        label=one.label,
        kind=one.kind.name,
        permissions=permissions.names(one.permissions),
        networks=one.networks,
        created_us=_us(one.created_at),
        expires_us=_us(one.expires_at),
        revoked_us=_us(one.revoked_at),
    )


def _entry(one: Entry) -> pb.AuditLogEntry:
    return pb.AuditLogEntry(
        entry_id=one.entry_id,
        at_us=_us(one.at),
        actor=one.actor,
        via=one.via,
        act=one.act,
        target=one.target,
        arguments=json.dumps(one.arguments),
        outcome=one.outcome,
        hash=one.hash,
    )


def _time(at_us: int) -> datetime | None:
    """None for 0, never; raises Malformed for what is no time."""
    try:
        return _EPOCH + timedelta(microseconds=at_us) if at_us else None
    except OverflowError:
        raise Malformed("There is no such time", {"expires_us": "out of range"}) from None


def _us(at: datetime | None) -> int:
    """Microseconds since the epoch; 0: never."""
    return (at - _EPOCH) // timedelta(microseconds=1) if at else 0
