"""Settings, read once from the environment by each process's `__main__`.

Every field is also the environment variable `EXCHANGE_` + its name in upper case. A wrong one stops
the start with a sentence that names it. Nothing else in the project reads the environment.
"""

import socket
from os import getpid

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.core.errors import ExchangeError


class BadSetting(ExchangeError):
    """A setting that cannot work; the message names the environment variable."""

    code = "BAD_SETTING"


class Settings(BaseSettings):
    """What a daemon needs to know about its surroundings."""

    model_config = SettingsConfigDict(env_prefix="EXCHANGE_", frozen=True, extra="ignore")

    postgres_url: str = Field(
        "", description="libpq URL of PostgreSQL >= 15; empty: `exchange up` starts its own"
    )
    redis_url: str = Field(
        "", description="redis:// URL of Redis or Valkey; empty: `exchange up` starts its own"
    )
    kafka_bootstrap: str = Field(
        "", description="host:port list of Kafka; empty: `exchange up` starts its own"
    )
    kafka_replication: int = Field(1, ge=1, le=7, description="Replicas of each topic when it is created")

    topic_prefix: str = Field(
        "exchange", pattern="^[a-z0-9.-]+$", description="Topics are PREFIX.orders and so on"
    )

    data: str = Field(".exchange", description="Folder of `exchange up` for its servers' data and all logs")
    host: str = Field("127.0.0.1", description="Address that the public ports listen on")
    port: int = Field(8100, ge=0, le=65535, description="The gateway's HTTP and WebSocket port")
    listen_fd: int = Field(-1, description="Socket inherited from the supervisor, instead of host and port")
    orders_port: int = Field(8101, ge=0, le=65535, description="order-service: public gRPC")
    market_data_port: int = Field(8102, ge=0, le=65535, description="market-data: public gRPC")
    orders_internal_port: int = Field(
        8111, ge=0, le=65535, description="order-service: gRPC between the daemons"
    )
    market_data_ws_port: int = Field(
        8112, ge=0, le=65535, description="market-data: WebSockets, behind the splice"
    )
    health_port: int = Field(
        0, ge=0, le=65535, description="/metrics, /healthz and /readyz of a daemon; 0: any"
    )

    orders_internal_address: str = Field(
        "127.0.0.1:8111", description="Where the daemons reach order-service"
    )
    market_data_address: str = Field(
        "127.0.0.1:8102", description="Where the gateway reaches market-data's gRPC"
    )
    market_data_ws_address: str = Field(
        "127.0.0.1:8112", description="Where the gateway splices WebSockets to"
    )

    local_mode: bool = Field(False, description="Serves /api/v1/test/*; loopback only")
    instance: str = Field("", description="Name of this process in leases and logs; empty: host:pid")
    partitions: int = Field(4, ge=1, le=1024, description="Fixed when the exchange is created")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged")

    lease_s: float = Field(3.0, gt=0, description="Time to live of a lease")
    lease_renew_s: float = Field(0.5, gt=0, description="Pause between renewals; less than half of lease_s")
    drain_s: float = Field(5.0, gt=0, description="How long a SIGTERM waits for work under way")

    body_limit_bytes: int = Field(1 << 20, ge=1024, description="Largest HTTP request body")
    max_connections: int = Field(20_000, ge=1, description="Open connections of the gateway")
    header_timeout_s: float = Field(
        10.0, gt=0, description="How long a connection may take to send its headers"
    )
    token_cache_s: float = Field(2.0, ge=0, le=2.0, description="How long an Authenticate answer is kept")
    queue_orders: int = Field(
        10_000, ge=1, description="Orders that wait for a batch before 'busy' is answered"
    )
    batch_orders: int = Field(1_000, ge=1, le=5_000, description="Most orders in one TX1")

    @property
    def name(self) -> str:
        return self.instance or f"{socket.gethostname()}:{getpid()}"


def load_settings() -> Settings:
    """Read the environment; raises BadSetting with a sentence for people."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "EXCHANGE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadSetting(f"{name} is {first['input']!r}: {first['msg']}") from None
    if settings.lease_renew_s >= settings.lease_s / 2:
        raise BadSetting("EXCHANGE_LEASE_RENEW_S must be less than half of EXCHANGE_LEASE_S")
    if settings.local_mode and settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise BadSetting("EXCHANGE_LOCAL_MODE hands out money: EXCHANGE_HOST must then be a loopback address")
    return settings
