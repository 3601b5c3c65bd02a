"""rpc: errors cross the wire whole, a drain ends every kind of call, channels come back."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias

import anyio
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from common.config import BadSetting
from common.core.errors import (
    Busy,
    DuplicateClientOrderId,
    ExchangeError,
    InsufficientFunds,
    Malformed,
    NotFound,
    OrderNotLive,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
)
from common.rpc import error_from_proto, error_to_proto, from_rpc_error, grpc_channel, serve_grpc, target
from common.rpc_errors import MAX_ERROR_BYTES, error_to_bytes, status_of
from exchange.v1 import types_pb2

pytestmark = pytest.mark.anyio

SERVICE = "exchange.test.Echo"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}  # What the daemons run on; grpc.aio knows no Trio.


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: object) -> AsyncIterator[None]:
    """One loop for the module, closed when grpc has nothing left to tell it.

    grpc.aio has one queue of events for all loops of a process: what it has left over for a loop that
    was closed is raised in whichever lives then. Daemons have one loop and do not meet this.
    """
    yield
    await anyio.sleep(0.2)


class Echo:
    """Handlers of every kind, whose request says what they are to do."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.release = anyio.Event()
        self.unwound = anyio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Tell": grpc.unary_stream_rpc_method_handler(self.tell),
            "Listen": grpc.stream_unary_rpc_method_handler(self.listen),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def unary(self, request: bytes, context: Context) -> bytes:
        match request:
            case b"refuse":
                raise InsufficientFunds("too poor", {"asset": "USD"})
            case b"group":
                async with anyio.create_task_group():
                    raise Busy("full")
            case b"crash":
                raise ValueError("with a secret in it")
            case b"abort":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            case b"wait":
                self.entered.set()
                await self.release.wait()
            case b"hang":
                self.entered.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    self.unwound.set()
        return request

    async def tell(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            yield request
            if request == b"refuse":
                raise NotFound("gone")
            await anyio.sleep_forever()
        finally:
            self.unwound.set()

    async def listen(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"".join([request async for request in requests])

    async def talk(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            if request == b"refuse":
                raise Malformed("what?")
            yield request
        yield b"end"


def serving(echo: Echo, address: str = "127.0.0.1:0") -> AbstractAsyncContextManager[int]:
    return serve_grpc(echo.register, address, service_names=[SERVICE], drain_s=0.3)


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def channel(echo: Echo) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(echo) as port, grpc_channel(f"127.0.0.1:{port}") as channel:
        yield channel


async def call(channel: grpc.aio.Channel, request: bytes, timeout: float = 5.0) -> bytes:
    method: Any = channel.unary_unary(f"/{SERVICE}/Unary")
    response: bytes = await method(request, timeout=timeout)
    return response


async def failed(channel: grpc.aio.Channel, request: bytes) -> tuple[grpc.StatusCode, ExchangeError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, request)
    return caught.value.code(), from_rpc_error(caught.value)


async def test_an_answer_comes_back(channel: grpc.aio.Channel) -> None:
    assert await call(channel, b"hello") == b"hello"


async def test_an_error_crosses_with_its_class_message_and_details(channel: grpc.aio.Channel) -> None:
    code, error = await failed(channel, b"refuse")
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert type(error) is InsufficientFunds
    assert (error.message, error.details) == ("too poor", {"asset": "USD"})


async def test_an_error_alone_in_a_group_crosses_too(channel: grpc.aio.Channel) -> None:
    code, error = await failed(channel, b"group")
    assert (code, type(error), error.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Busy, "full")


async def test_an_unknown_error_is_kept_from_the_caller(channel: grpc.aio.Channel) -> None:
    code, error = await failed(channel, b"crash")
    assert (code, type(error)) == (grpc.StatusCode.INTERNAL, ExchangeError)
    assert "secret" not in error.message


async def test_a_status_set_by_the_handler_itself_stays(channel: grpc.aio.Channel) -> None:
    code, error = await failed(channel, b"abort")
    assert (code, type(error), error.message) == (grpc.StatusCode.NOT_FOUND, NotFound, "no such thing")


async def test_streams_carry_messages_and_errors(channel: grpc.aio.Channel) -> None:
    talk: Any = channel.stream_stream(f"/{SERVICE}/Talk")
    assert [answer async for answer in talk(iter([b"1", b"2"]))] == [b"1", b"2", b"end"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        assert [answer async for answer in talk(iter([b"refuse"]))]
    assert isinstance(from_rpc_error(caught.value), Malformed)

    listen: Any = channel.stream_unary(f"/{SERVICE}/Listen")
    assert await listen(iter([b"a", b"b"])) == b"ab"

    tell: Any = channel.unary_stream(f"/{SERVICE}/Tell")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        assert [answer async for answer in tell(b"refuse")]
    assert isinstance(from_rpc_error(caught.value), NotFound)


async def test_a_caller_who_leaves_ends_the_handler(channel: grpc.aio.Channel, echo: Echo) -> None:
    tell: Any = channel.unary_stream(f"/{SERVICE}/Tell")
    stream = tell(b"x")
    assert await stream.read() == b"x"
    stream.cancel()
    with anyio.fail_after(5):
        await echo.unwound.wait()


async def test_a_message_over_the_limit_is_not_called_busy(channel: grpc.aio.Channel) -> None:
    code, error = await failed(channel, bytes(17 * 1024 * 1024))
    assert (code, type(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, PayloadTooLarge)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serving(Echo()) as port:
        pass
    async with grpc_channel(f"127.0.0.1:{port}") as channel:
        code, error = await failed(channel, b"hello")
    assert (code, type(error)) == (grpc.StatusCode.UNAVAILABLE, Unavailable)


async def test_calls_go_to_those_who_live() -> None:
    async with serving(Echo()) as stays, AsyncExitStack() as leaving:
        leaves = await leaving.enter_async_context(serving(Echo()))
        async with grpc_channel(f"127.0.0.1:{stays}, 127.0.0.1:{leaves}") as channel:
            for _ in range(20):
                assert await call(channel, b"x") == b"x"
            await leaving.aclose()
            for _ in range(20):
                assert await call(channel, b"x") == b"x"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("orders:8111", "orders:8111"),
        (" 10.0.0.1:1 ,10.0.0.2:2, ", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
    ],
)
async def test_addresses_as_grpc_calls_them(value: str, name: str) -> None:
    assert target(value) == name


@pytest.mark.parametrize("value", ["", "orders-1:1,orders-2:2", "127.0.0.1:1,[::1]:1"])
async def test_addresses_that_cannot_work_are_named(value: str) -> None:
    with pytest.raises(BadSetting, match=re.escape(repr(value))):
        target(value)


async def test_a_call_out_of_time_is_unavailable(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, b"hang", timeout=0.1)
    assert isinstance(from_rpc_error(caught.value), Unavailable)


async def test_two_servers_cannot_share_a_port() -> None:
    async with serving(Echo()) as port:
        with pytest.raises(OSError, match=str(port)):
            async with serving(Echo(), f"127.0.0.1:{port}"):
                pytest.fail("bound twice")


async def test_a_drain_answers_what_is_under_way() -> None:
    echo, answers = Echo(), list[bytes]()
    async with anyio.create_task_group() as group, anyio.create_task_group() as callers:

        async def caller(port: int) -> None:
            async with grpc_channel(f"127.0.0.1:{port}") as channel:
                answers.append(await call(channel, b"wait"))

        async with serving(echo) as port:
            callers.start_soon(caller, port)
            await echo.entered.wait()

            async def release() -> None:
                await anyio.sleep(0.05)
                echo.release.set()

            group.start_soon(release)
    assert answers == [b"wait"]


async def test_a_drain_ends_streams_at_once_and_answers_what_they_had_read() -> None:
    echo, told, talked = Echo(), list[bytes](), list[bytes]()
    reading = anyio.Event()

    async def teller(channel: grpc.aio.Channel) -> None:
        tell: Any = channel.unary_stream(f"/{SERVICE}/Tell")
        stream = tell(b"x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            told.extend([answer async for answer in stream])
        assert isinstance(from_rpc_error(caught.value), Unavailable)

    async def talker(channel: grpc.aio.Channel) -> None:
        stream: Any = channel.stream_stream(f"/{SERVICE}/Talk")()
        await stream.write(b"1")
        talked.append(await stream.read())
        reading.set()
        while (answer := await stream.read()) is not grpc.aio.EOF:
            talked.append(answer)

    async with anyio.create_task_group() as group:
        async with serve_grpc(echo.register, "127.0.0.1:0", service_names=[SERVICE], drain_s=30) as port:
            channel = await group.start(_keep_channel, f"127.0.0.1:{port}")
            async with anyio.create_task_group() as begun:
                group.start_soon(teller, channel)
                group.start_soon(talker, channel)
                begun.start_soon(reading.wait)
            leaving_s = anyio.current_time()
        assert anyio.current_time() - leaving_s < 10  # Far from drain_s: nothing waited for the clients.
        with anyio.fail_after(5):
            await echo.unwound.wait()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert talked == [b"1", b"end"]


async def _keep_channel(
    address: str, *, task_status: anyio.abc.TaskStatus[grpc.aio.Channel] = anyio.TASK_STATUS_IGNORED
) -> None:
    async with grpc_channel(address) as channel:
        task_status.started(channel)
        await anyio.sleep_forever()


async def test_a_call_that_does_not_end_is_cut_off_after_the_drain() -> None:
    echo = Echo()
    async with anyio.create_task_group() as group:

        async def caller(port: int) -> None:
            async with grpc_channel(f"127.0.0.1:{port}") as channel:
                _, error = await failed(channel, b"hang")
                assert isinstance(error, Unavailable)

        async with serving(echo) as port:
            group.start_soon(caller, port)
            await echo.entered.wait()
        assert echo.unwound.is_set()  # serve_grpc waits for its handlers.


async def test_a_body_that_fails_does_not_drain() -> None:
    echo = Echo()
    async with anyio.create_task_group() as group:

        async def caller(port: int) -> None:
            async with grpc_channel(f"127.0.0.1:{port}") as channel:
                await failed(channel, b"hang")

        async def serve_and_fail() -> None:
            async with serve_grpc(echo.register, "127.0.0.1:0", service_names=[SERVICE], drain_s=60) as port:
                group.start_soon(caller, port)
                await echo.entered.wait()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await serve_and_fail()
        assert echo.unwound.is_set()


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_bytes_that_are_no_request_are_malformed(channel: grpc.aio.Channel, method: str) -> None:
    path = f"/grpc.health.v1.Health/{method}"
    kinds: dict[str, Any] = {"Check": channel.unary_unary, "Watch": channel.unary_stream}
    answers = kinds[method](path)(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (answers if method == "Check" else answers.read())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(refused.value).code == "MALFORMED"


async def test_health_and_reflection_answer(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    status = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert status.status == health_pb2.HealthCheckResponse.SERVING

    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_health_says_when_the_process_is_not_ready() -> None:
    ready = [False]
    server = serve_grpc(
        Echo().register, "127.0.0.1:0", service_names=[SERVICE], drain_s=0.3, ready=lambda: ready[0]
    )
    async with server as port, grpc_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        before = await health.Check(health_pb2.HealthCheckRequest(service=""))
        ready[0] = True
        after = await health.Check(health_pb2.HealthCheckRequest(service=""))
    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after.status == health_pb2.HealthCheckResponse.SERVING


async def test_calls_are_counted() -> None:
    labels = {"method": f"/{SERVICE}/Unary", "code": "FAILED_PRECONDITION"}
    before = REGISTRY.get_sample_value("exchange_rpc_calls_total", labels) or 0
    async with serving(Echo()) as port, grpc_channel(f"127.0.0.1:{port}") as channel:
        await failed(channel, b"refuse")
    assert REGISTRY.get_sample_value("exchange_rpc_calls_total", labels) == before + 1
    assert REGISTRY.get_sample_value("exchange_rpc_calls_under_way", {"method": labels["method"]}) == 0


async def test_a_method_nobody_serves_is_unimplemented(channel: grpc.aio.Channel) -> None:
    method: Any = channel.unary_unary("/exchange.test.Echo/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert type(from_rpc_error(caught.value)) is ExchangeError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Malformed("m"), grpc.StatusCode.INVALID_ARGUMENT),
        (Unauthenticated("u"), grpc.StatusCode.UNAUTHENTICATED),
        (DuplicateClientOrderId("d"), grpc.StatusCode.ALREADY_EXISTS),
        (OrderNotLive("o", {"status": "FILLED"}), grpc.StatusCode.FAILED_PRECONDITION),
        (Unavailable("gone"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_an_error_survives_the_proto(error: ExchangeError, status: grpc.StatusCode) -> None:
    again = error_from_proto(error_to_proto(error))
    assert (type(again), again.message, again.details) == (type(error), error.message, error.details)
    assert status_of(error) is status


async def test_a_code_from_the_future_becomes_the_base_class() -> None:
    assert type(error_from_proto(types_pb2.Error(code="NEVER_HEARD_OF", message="m"))) is ExchangeError


async def test_a_large_error_loses_its_details_and_keeps_its_code() -> None:
    packed = error_to_bytes(Malformed("m" * 10_000, {"field": "x" * 10_000}))
    assert len(packed) <= MAX_ERROR_BYTES
    assert isinstance(error_from_proto(types_pb2.Error.FromString(packed)), Malformed)
