"""One HTTP request and its answer, or one error. Nothing is repeated here (see `patience`)."""

import math
from collections.abc import Mapping
from datetime import datetime
from ssl import SSLContext
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from exchange_client.clock import Clock
from exchange_client.credentials import SIGN_AGAIN, Credentials
from exchange_client.errors import NoAnswer, NotSent, ProtocolError, Refusal, refusal

T = TypeVar("T")

API = "/api/v1"
CONNECT_S = 5.0
LEAST_STEP_S = 0.5  # A clock that was this wrong explains a refused signature.


class Answer(NamedTuple):
    """A 2xx."""

    status: int
    body: bytes


class ErrorBody(msgspec.Struct):
    """What stands under `error`, wherever the exchange says no."""

    code: str
    message: str = ""
    details: dict[str, str] = {}


class _Envelope(msgspec.Struct):
    error: ErrorBody


class TimeBody(msgspec.Struct):
    """GET /time."""

    time: datetime


_envelope = msgspec.json.Decoder(_Envelope)


def read(answer: Answer, type_: type[T]) -> T:
    """The answer's body as this type; raises ProtocolError."""
    try:
        return msgspec.json.decode(answer.body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the answer cannot be read: {error}") from error


def target_of(path: str, query: Mapping[str, object] | None = None) -> str:
    """path?query as it goes over the wire, and is signed; None and "" are left out."""
    present = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    return f"{API}{path}?{urlencode(present)}" if present else f"{API}{path}"


class Http:
    """Requests of one caller to one exchange; opened and closed with its httpx client."""

    def __init__(self, url: str, credentials: Credentials | None, tls: SSLContext | None) -> None:
        self.credentials = credentials
        self.clock = Clock()
        # The environment's proxies are not asked: an order is nobody else's business.
        self.client = httpx.AsyncClient(
            base_url=url,
            verify=tls if tls is not None else url.startswith("https:"),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises NotSent, NoAnswer, or the Refusal that came back.

        Signed requests know the exchange's time. A signature that was refused is tried once more, by a new
        look at the clock, unless the clock has nothing to do with it.
        """
        signed = self.credentials is not None and self.credentials.needs_time
        if signed and not self.clock.measured:
            await self.set_clock()
        try:
            return await self._send(method, target, body, headers)
        except Refusal as error:
            if not signed or error.status != 401:
                raise
            before_s = self.clock.offset_s
            await self.set_clock()
            clock_was_right = abs(self.clock.offset_s - before_s) < LEAST_STEP_S
            if clock_was_right and error.code not in SIGN_AGAIN:
                raise
        return await self._send(method, target, body, headers)

    async def set_clock(self) -> None:
        """Measure how far this machine's clock is from the exchange's."""
        asked_s = self.clock.here_s()
        answer = await self._send("GET", f"{API}/time", b"", None, named=False)
        self.clock.took(asked_s, self.clock.here_s(), read(answer, TimeBody).time)

    async def _send(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        *,
        named: bool = True,
    ) -> Answer:
        sent = dict(headers or {})
        if body:
            sent["Content-Type"] = "application/json"
        if named and self.credentials is not None:
            sent |= self.credentials.headers(self.clock.stamp_ms(), method, target, body)
        try:
            response = await self.client.request(method, target, content=body, headers=sent)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(f"no connection: {error!r}") from error
        except httpx.TransportError as error:
            raise NoAnswer(f"the answer was lost: {error!r}") from error
        if response.is_success:
            return Answer(response.status_code, response.content)
        raise _refused(response)


def _refused(response: httpx.Response) -> Refusal:
    """What a status other than 2xx says; a body that is none of the exchange's is one of a proxy's."""
    try:
        error = _envelope.decode(response.content).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = ErrorBody("", f"HTTP {response.status_code} without an error's body")
    return refusal(
        error.code,
        error.message,
        error.details,
        status=response.status_code,
        request_id=response.headers.get("x-request-id", ""),
        retry_after_s=_seconds(response.headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    """Of Retry-After; a date, which the exchange never sends, counts as none."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
