"""Sessions: a signed request opens one, and its token is then sent instead of signatures."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from common.core.errors import Malformed, NotASession, TooManySessions, Unauthenticated
from common.core.units import time_to_text
from common.identity import permissions
from common.identity.permissions import Name
from exchange.v1 import internal_pb2 as internal
from gateway.auth import Identity, bearer_token
from gateway.calls import Answer, Call, json_answer
from gateway.declaration import BEHIND, Route
from gateway.query import Query
from gateway.services import WRITE_S, Services
from gateway.shapes import SessionEnded, SessionOpened

PATH = "/api/v1/session"


class SessionBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which of the key's permissions the session shall have; without it, or without a body, all."""

    permissions: Annotated[list[Name], Meta(min_length=1)] | None = None


_body = msgspec.json.Decoder(SessionBody)


class SessionRoutes:
    """Handlers; each takes an identified call and returns its answer or raises an ExchangeError."""

    section: ClassVar = "Sessions"

    def __init__(self, services: Services, identity: Identity) -> None:
        self._services = services
        self._identity = identity

    @Route(
        "POST",
        PATH,
        "Open a session",
        {201: SessionOpened},
        permission="any",
        body=SessionBody,
        errors=(TooManySessions, *BEHIND),
        about="A signed request only. The session has the key's permissions, or those that are named.",
    )
    async def open_session(self, call: Call, _: Query) -> Answer:
        """What is asked for is checked where it is given, against the key as it is then."""
        wanted = _read(call.body)
        caller = call.caller
        if call.header(b"authorization") is not None or caller is None or caller.key_id is None:
            raise Unauthenticated("A session is opened by a signed request.")
        allowed = permissions.from_names(wanted) if wanted is not None else caller.permissions
        request = internal.OpenSessionRequest(api_key=caller.key_id, permissions=allowed)
        answer = await self._services.ask(self._services.internal.OpenSession, request, call, WRITE_S)
        opened = SessionOpened(answer.token, time_to_text(answer.expires_us), permissions.names(allowed))
        reply = json_answer(opened, 201)
        reply.final = False  # Under an Idempotency-Key it would be kept, and a token is not.
        return reply

    @Route(
        "DELETE",
        PATH,
        "End the session in use",
        {200: SessionEnded},
        permission="any",
        body=None,
        errors=(NotASession, *BEHIND),
        about="With the session's token. It ends here at once, and everywhere within two seconds.",
    )
    async def close_session(self, call: Call, _: Query) -> Answer:
        authorization = call.header(b"authorization")
        if authorization is None:
            raise NotASession("Send the session's own token.")
        token = bearer_token(authorization)
        request = internal.CloseSessionRequest(token=token.decode("ascii"))
        await self._services.ask(self._services.internal.CloseSession, request, call, WRITE_S)
        self._identity.forget(token)
        return json_answer(SessionEnded("ENDED"))


def _read(body: bytes) -> Sequence[str] | None:
    """The permissions that are named; raises Malformed."""
    if not body.strip():
        return None
    try:
        return _body.decode(body).permissions
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"The body cannot be read: {error}") from None
