"""The order of the stages, and that errors become answers around all of them."""

import json

import pytest

from common.core.errors import Busy, ExchangeError, Refused, Unauthenticated
from common.identity.caller import Caller
from common.identity.permissions import READ, TRADE
from gateway.calls import Answer, Call, json_answer
from gateway.pipeline import Handler, Pipeline, Stage

pytestmark = pytest.mark.anyio


def call() -> Call:
    return Call("GET", "/", b"/", b"", [], "r")


class Recorder:
    """Stages, an identity and a handler that write down when they were passed, and for whom."""

    def __init__(self) -> None:
        self.passed: list[tuple[str, int]] = []
        self.error: Exception | None = None

    def stage(self, name: str) -> Stage:
        async def stage(call: Call, rest: Handler) -> Answer:
            self.passed.append((name, call.user_id))
            answer = await rest(call)
            self.passed.append((f"{name} back", call.user_id))
            return answer

        return stage

    async def identify(self, call: Call) -> Caller:
        self.passed.append(("identify", call.user_id))
        return Caller(7, READ)

    async def handler(self, call: Call) -> Answer:
        self.passed.append(("handler", call.user_id))
        if self.error is not None:
            raise self.error
        return json_answer({})


async def test_a_private_call_passes_everything_in_order() -> None:
    recorder = Recorder()
    pipeline = Pipeline(
        recorder.identify,
        arrivals=[recorder.stage("a"), recorder.stage("b")],
        stages=[recorder.stage("c"), recorder.stage("d")],
    )
    assert (await pipeline.private(recorder.handler)(call())).status == 200
    assert recorder.passed == [
        ("a", 0), ("b", 0), ("identify", 0), ("c", 7), ("d", 7), ("handler", 7),
        ("d back", 7), ("c back", 7), ("b back", 7), ("a back", 7),
    ]  # fmt: skip


async def test_who_lacks_a_permission_is_counted_and_gets_no_further() -> None:
    recorder = Recorder()
    pipeline = Pipeline(recorder.identify, stages=[recorder.stage("c")])
    answer = await pipeline.private(recorder.handler, TRADE)(call())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "PERMISSION_MISSING")
    assert recorder.passed == [("identify", 0), ("c", 7)]
    assert (await pipeline.private(recorder.handler, READ)(call())).status == 200


async def test_a_public_call_is_nobodys() -> None:
    recorder = Recorder()
    pipeline = Pipeline(recorder.identify, arrivals=[recorder.stage("a")], stages=[recorder.stage("c")])
    await pipeline.public(recorder.handler)(call())
    assert recorder.passed == [("a", 0), ("handler", 0), ("a back", 0)]


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (Refused("no"), 422, "REFUSED", {}),
        (Busy(), 503, "BUSY", {b"retry-after": b"1"}),
        (Unauthenticated(), 401, "UNAUTHENTICATED", {b"www-authenticate": b"Bearer"}),
        (ExchangeError("?"), 500, "INTERNAL", {}),
        (ZeroDivisionError("secret"), 500, "INTERNAL", {}),
    ],
)
async def test_an_error_is_an_answer(
    error: Exception, status: int, code: str, headers: dict[bytes, bytes]
) -> None:
    recorder = Recorder()
    recorder.error = error
    answer = await Pipeline(recorder.identify).private(recorder.handler)(call())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert dict(answer.headers) == headers
    assert b"secret" not in answer.body
