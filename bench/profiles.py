"""`--profile DIR`: where each daemon spends its time under each load, by py-spy, which looks from outside.

For each load and each daemon DIR gets LOAD.DAEMON.txt: collapsed stacks (speedscope and flamegraph.pl read
them), and the functions that were on the processor most often are printed. Sampling costs some percent.
"""

import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from bench.local import Local

SAMPLES_PER_S = 100
SHOWN = 12
WRITE_S = 20.0


@asynccontextmanager
async def profiled(local: Local, folder: Path | None, load: str) -> AsyncIterator[None]:
    """Sample every daemon while the body runs; does nothing without a folder."""
    if folder is None:
        yield
        return
    files = {name: folder / f"{load}.{name}.txt" for name in local.daemons()}
    async with AsyncExitStack() as stack:
        samplers: list[Process] = []
        for name, pid in local.daemons().items():
            command = [
                *(
                    str(Path(sys.executable).with_name("py-spy")),
                    "record",
                    "--pid",
                    str(pid),
                    "--format",
                    "raw",
                ),
                *("--rate", str(SAMPLES_PER_S), "--output", str(files[name]), "--nonblocking"),
            ]
            samplers.append(
                await stack.enter_async_context(await anyio.open_process(command, stdout=None, stderr=None))
            )
        yield
        for sampler in samplers:
            sampler.send_signal(signal.SIGINT)
        with anyio.move_on_after(WRITE_S):
            for sampler in samplers:
                await sampler.wait()
    for name, file in files.items():
        if file.exists():
            print(f"  {load}, {name}:")
            print("\n".join(f"    {line}" for line in hottest(file.read_text())))


def hottest(stacks: str, shown: int = SHOWN) -> list[str]:
    """The functions that were on top of the stack most often, each with its share of all samples."""
    own: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        if count.isdigit():
            own[frames.rpartition(";")[2]] += int(count)
    total = max(1, own.total())
    return [f"{100 * count / total:5.1f} %  {function}" for function, count in own.most_common(shown)]
