"""Who is calling: by token or signature on the public port, by `x-user-id` on the internal one.

The user is never taken from a message. What is known of tokens and keys is kept for at most `token_cache_s`,
so that a revoked one ends within that time; on a stream, with its next message.

    authorization: Bearer TOKEN
    x-api-key, x-timestamp, x-signature     over timestamp + "GRPC" + the method's full name, such as
                                            /exchange.v1.Orders/Submit; messages are not signed
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote

import grpc.aio

from common.admin import token_sha256
from common.core.errors import Unauthenticated
from common.identity.caller import Caller
from common.identity.kept import Kept
from common.identity.signed import Credentials, SignedRequests
from common.identity.signing import grpc_message

BEARER = "bearer "
ORDERS = "/exchange.v1.Orders/"

Context = grpc.aio.ServicerContext[object, object]
T = TypeVar("T")
Confirm = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody who was let in. `confirm` raises when they would not be any more; None: nobody has to ask."""

    user_id: int
    confirm: Confirm | None = None

    def watched(self, messages: AsyncIterator[T]) -> AsyncIterator[T]:
        """A stream's messages, each confirmed before it is given on."""
        return messages if self.confirm is None else _Watched(messages, self.confirm)


class _Watched(Generic[T]):
    def __init__(self, messages: AsyncIterator[T], confirm: Confirm) -> None:
        self._messages = messages
        self._confirm = confirm

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        message = await anext(self._messages)
        await self._confirm()
        return message


class Identify(Protocol):
    async def __call__(self, context: Context, method: str, needs: int) -> Guest:
        """Who calls this method of Orders. Raises Unauthenticated or Forbidden (or a kind of them), Busy,
        Unavailable."""


class PublicDoor:
    """For the public port."""

    def __init__(self, tokens: Kept[Caller], signed: SignedRequests) -> None:
        self._tokens = tokens
        self._signed = signed

    async def __call__(self, context: Context, method: str, needs: int) -> Guest:
        given = dict(context.invocation_metadata() or ())
        address = peer_address(context.peer())
        authorization = _text(given, "authorization")
        if authorization:
            again = self._by_token(authorization)
            caller = await again()
        elif "x-api-key" in given:
            signed = Credentials(
                *(_text(given, name) for name in ("x-api-key", "x-timestamp", "x-signature"))
            )
            caller = await self._signed.identify(
                signed, lambda timestamp: grpc_message(timestamp, ORDERS + method), address
            )
            again = partial(self._by_key, signed.api_key)
        else:
            raise Unauthenticated("The call's metadata needs authorization: Bearer TOKEN, or a signature")
        caller.check(needs, address)

        async def confirm() -> None:
            (await again()).check(needs, address)

        return Guest(caller.user_id, confirm)

    def _by_token(self, authorization: str) -> Callable[[], Awaitable[Caller]]:
        if not authorization.lower().startswith(BEARER):
            raise Unauthenticated("The call's metadata needs authorization: Bearer TOKEN")
        token = authorization[len(BEARER) :].strip()
        return partial(self._tokens.find, token_sha256(token), token)

    async def _by_key(self, api_key: str) -> Caller:
        return (await self._signed.find(api_key)).caller


async def by_daemon(context: Context, method: str, needs: int) -> Guest:  # noqa: ARG001
    """For the internal port: the calling daemon has authenticated the user, and names them."""
    value = _text(dict(context.invocation_metadata() or ()), "x-user-id")
    if not value.isascii() or not value.isdigit():
        raise Unauthenticated("An internal call needs the metadata x-user-id")
    return Guest(int(value))


def peer_address(peer: str) -> str:
    """The IP address in what gRPC calls a peer, such as ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


def _text(metadata: Mapping[str, str | bytes], name: str) -> str:
    value = metadata.get(name, "")
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
