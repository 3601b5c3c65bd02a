"""Kafka's jars: fetched once through Maven from the committed pom, checked against committed hashes.

They lie in `deploy/kafka/libs` of the checkout, so that every data folder and every test run share them.
They are fetched beside it and renamed: an interrupted fetch, or two at once, leave no half of them.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import anyio

from daemons.local.process import DidNotComeUp, LocalError, Program, Progress, run

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "kafka"
_FETCH_S = 600.0


async def kafka_jars(logs: Path, progress: Progress, deploy: Path = DEPLOY) -> Path:
    """The folder of the jars, fetched when it is not there. Raises LocalError with what is missing."""
    wanted = _wanted(deploy)
    libs = deploy / "libs"
    if {path.name for path in libs.glob("*.jar")} == set(wanted):
        return libs
    if shutil.which("mvn") is None:
        raise LocalError(
            "Maven is needed once, to fetch Kafka, and there is no `mvn` on the PATH; install Maven and a JDK"
            " (Debian: apt-get install maven), or set EXCHANGE_KAFKA_BOOTSTRAP to a Kafka of your own"
        )
    progress("Kafka: fetching its jars through Maven (43 MB, once) ...")
    with tempfile.TemporaryDirectory(dir=deploy, prefix="libs.new-") as folder:
        fresh = Path(folder) / "libs"
        await _fetch(deploy / "pom.xml", fresh, logs)
        await anyio.to_thread.run_sync(_check, fresh, wanted)
        _put_in_place(fresh, libs, Path(folder) / "old")
    return libs


def _wanted(deploy: Path) -> dict[str, str]:
    """File name -> SHA-256, as committed."""
    try:
        lines = (deploy / "jars.sha256").read_text().splitlines()
    except FileNotFoundError:
        raise LocalError(
            f"{deploy} is not there: `exchange up` fetches Kafka by the pom in a checkout of the repository;"
            " run it from one, or set EXCHANGE_KAFKA_BOOTSTRAP"
        ) from None
    return {name: digest for digest, name in (line.split() for line in lines)}


async def _fetch(pom: Path, target: Path, logs: Path) -> None:
    arguments = ("-DincludeScope=runtime", f"-DoutputDirectory={target}")
    maven = Program(
        name="Maven",
        argv=["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", *arguments],
        log=logs / "maven.log",
    )
    try:
        await run(maven, _FETCH_S)
    except DidNotComeUp as error:
        raise LocalError(
            f"Kafka's jars could not be fetched: is Maven's repository within reach? {error.message}"
        ) from error


def _check(folder: Path, wanted: dict[str, str]) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise LocalError(f"What Maven fetched is not what deploy/kafka/jars.sha256 names: {', '.join(wrong)}")


def _put_in_place(fresh: Path, libs: Path, old: Path) -> None:
    if libs.exists():
        libs.replace(old)
    try:
        os.rename(fresh, libs)
    except OSError:
        if not libs.exists():  # Otherwise somebody else has just put the same ones there.
            raise
