"""A gateway process in front of a stand-in for the services behind it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from daemons.local.ports import listen
from tests.integration.gateway.backend import Backend, running_backend

READY_S = 20.0
HEADER_TIMEOUT_S = 2.0


class GatewayProcess:
    """Where the gateway is, and a client of it."""

    backend: Backend  # Not when it runs in another process, as the benchmark's does.

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

    def connect(self, receive_buffer_bytes: int = 0) -> socket.socket:
        """A plain connection; reading from it gives up after 20 s."""
        sock = socket.socket()
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def metric(self, name: str) -> float:
        """The value of the metric whose line starts with this."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
        return 0.0

    def wait_ready(self) -> None:
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            try:
                if self.http.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, "the gateway ended"
            time.sleep(0.05)
        raise AssertionError("the gateway did not become ready")


@contextmanager
def running_gateway(
    backend: Backend, ws_address: str, log: Path, **settings: object
) -> Iterator[GatewayProcess]:
    patient = {"queue_s": 20.0} | settings  # The stand-in holds orders up, for as long as tests say.
    with gateway_before(backend.address, ws_address, log, **patient) as gateway:
        gateway.backend = backend
        yield gateway


@contextmanager
def gateway_before(
    backend_address: str, ws_address: str, log: Path, **settings: object
) -> Iterator[GatewayProcess]:
    """A gateway on an inherited socket while the body runs; it must drain in the end."""
    with listen("127.0.0.1", 0, "EXCHANGE_PORT") as listener, log.open("wb") as output:
        values: dict[str, object] = {
            "listen_fd": listener.fileno(),
            "orders_internal_address": backend_address,
            "market_data_address": backend_address,
            "market_data_ws_address": ws_address,
            "local_mode": True,
            "header_timeout_s": HEADER_TIMEOUT_S,
            "max_connections_per_ip": 20_000,
        } | settings
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway"],
            env=os.environ | {f"EXCHANGE_{name.upper()}": str(value) for name, value in values.items()},
            stdout=output,
            stderr=output,
            pass_fds=(listener.fileno(),),
        )
        gateway = GatewayProcess(process, listener.getsockname()[1])
        try:
            gateway.wait_ready()
            yield gateway
        finally:
            gateway.http.close()
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(15)
            finally:
                process.kill()
                process.wait()
    assert code == 0, log.read_text()[-4000:]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend() as running:
        yield running


@pytest.fixture(scope="module")
def echo_address() -> Iterator[str]:
    """A server that stands for market-data's WebSockets: sends back what it gets, and ends when told to."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", _ECHO], pass_fds=(listener.fileno(),), stdin=listener.fileno()
        )
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


_ECHO = """
import asyncio, socket

async def echo(reader, writer):
    told = await reader.readline()  # Whose connection it is.
    assert told.startswith(b"PROXY TCP4 127.0.0.1 "), told
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"goodbye")
    writer.close()

async def main():
    server = await asyncio.start_server(echo, sock=socket.socket(fileno=0), limit=65536)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def gateway(
    backend: Backend, echo_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    with running_gateway(backend, echo_address, log) as running:
        yield running
