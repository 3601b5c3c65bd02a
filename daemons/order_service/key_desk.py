"""What the other daemons ask about tokens and keys, and the sessions that a gateway opens for its callers.

Answers are as the database has it now: who asks keeps them for a moment, and two moments would be too long.
"""

import anyio

from common import sessions
from common.core.errors import Malformed
from common.db import Pool
from common.identity.caller import caller_answer
from common.identity.permissions import ALL
from daemons.order_service.look_ups import Directory
from exchange.v1 import internal_pb2 as internal

OPENING = 2


class KeyDesk:
    def __init__(self, directory: Directory, pool: Pool, *, session_s: float) -> None:
        self._directory = directory
        self._pool = pool
        self._session_s = session_s
        # They wait for their key's lock with a session of the pool in hand, which everybody else needs too.
        self._opening = anyio.CapacityLimiter(OPENING)

    async def authenticate(self, request: internal.AuthenticateRequest) -> internal.AuthenticateResponse:
        return caller_answer(await self._directory.token(request.token))

    async def find_key(self, request: internal.FindKeyRequest) -> internal.FindKeyResponse:
        found = await self._directory.key(request.api_key)
        return internal.FindKeyResponse(
            holder=caller_answer(found.caller), kind=found.kind, material=found.material
        )

    async def open_session(self, request: internal.OpenSessionRequest) -> internal.OpenSessionResponse:
        if not 0 < request.permissions <= ALL:
            raise Malformed("A session has permissions.", {"permissions": str(request.permissions)})
        async with self._opening, self._pool.connection() as connection:
            session = await sessions.open_session(
                connection, request.api_key, request.permissions, self._session_s
            )
        return internal.OpenSessionResponse(token=session.token, expires_us=session.expires_us)

    async def close_session(self, request: internal.CloseSessionRequest) -> internal.CloseSessionResponse:
        async with self._pool.connection() as connection:
            await sessions.close_session(connection, request.token)
        return internal.CloseSessionResponse()
