"""Every code block of the client's README does what it says."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import exchange_client
from exchange_client import Exchange, LimitOrder, Token
from tests.harness import exchange as harness

CLIENT = Path(__file__).parents[3] / "clients/python"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (CLIENT / "README.md").read_text(), re.M | re.S)
PYTHON = [body for kind, body in BLOCKS if kind == "python"]
PROGRAM, *SNIPPETS = PYTHON
WAIT_S = 30.0


def test_there_is_nothing_but_what_is_run_here_and_in_test_examples() -> None:
    shell = [body for kind, body in BLOCKS if kind == "sh"]
    assert len(BLOCKS) == len(PYTHON) + len(shell)
    install, examples = shell
    assert install == "pip install ./clients/python\n"
    assert all(line.startswith("python clients/python/examples/") for line in examples.splitlines())


def test_what_pip_installs_is_whole(tmp_path: Path) -> None:
    """The wheel that pip would make and install; pip itself would take seconds and ask a registry."""
    source = tmp_path / "source"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    make = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", make], cwd=source, check=True, stdout=subprocess.DEVNULL)
    [wheel] = tmp_path.glob("exchange_client-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("exchange_client/")}
    there = {f"exchange_client/{path.name}" for path in (CLIENT / "exchange_client").glob("*.py")}
    assert packed == there | {"exchange_client/py.typed"}


def test_the_first_order(exchange: harness.Exchange, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(here(PROGRAM, exchange), "README", "exec"), {})
    assert "Accepted(order_id=" in capsys.readouterr().out


@pytest.fixture
async def names(exchange: harness.Exchange) -> AsyncIterator[dict[str, Any]]:
    """What the snippets take for granted; the ticker and the trades have something to tell."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    token = Token(exchange.join().token)
    async with AsyncExitStack() as stack:
        bot = await stack.enter_async_context(Exchange(exchange.base_url, token))
        await bot.place(LimitOrder(symbol="BTC-USD", side="SELL", price=95_000, quantity="0.01"))
        yield vars(exchange_client) | {
            "Decimal": Decimal, "anyio": anyio, "exchange": bot, "pem": pem, "token": token,
        }  # fmt: skip
        await bot.cancel_all()


@pytest.mark.anyio
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.split("\n")[0][:40])
async def test_each_snippet(
    exchange: harness.Exchange, names: dict[str, Any], anyio_backend_name: str, snippet: str
) -> None:
    if "grpc_orders" in snippet and anyio_backend_name != "asyncio":
        return  # As the README says.
    code = compile(here(snippet, exchange), "README", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with anyio.fail_after(WAIT_S):
        running = eval(code, dict(names))
        if running is not None:
            await running


def here(code: str, exchange: harness.Exchange) -> str:
    """The code with the addresses of this exchange."""
    return code.replace("http://127.0.0.1:8100", exchange.base_url).replace(
        "127.0.0.1:8101", exchange.orders_address
    )
