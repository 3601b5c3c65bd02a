"""Settings, read once from the environment by each process's `__main__`.

Every field is also the environment variable `EXCHANGE_` + its name in upper case. A wrong one stops
the start with a sentence that names it. Nothing else in the project reads the environment.
"""

import socket
from ipaddress import ip_address
from os import getpid

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.core.errors import ExchangeError

MOST_LIMIT = (1 << 32) - 1  # What the scripts in Redis count in.


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
    market_data_internal_port: int = Field(
        8113, ge=0, le=65535, description="market-data: gRPC between the daemons"
    )
    admin_port: int = Field(8114, ge=0, le=65535, description="order-service: gRPC for operators")
    health_port: int = Field(
        0, ge=0, le=65535, description="/metrics, /healthz and /readyz of a daemon; 0: any"
    )

    orders_internal_address: str = Field(
        "127.0.0.1:8111", description="Where the daemons reach order-service: host:port, or IP:port,IP:port"
    )
    market_data_address: str = Field(
        "127.0.0.1:8113", description="Where the gateway reaches market-data's internal gRPC: likewise"
    )
    market_data_ws_address: str = Field(
        "127.0.0.1:8112", description="Where the gateway splices WebSockets to: host:port,host:port"
    )

    market_data_internal_address: str = Field(
        "127.0.0.1:8113",
        description="Where order-service tells each market-data of order updates, ahead of Kafka: likewise;"
        " empty: nowhere",
    )

    tls_cert: str = Field(
        "",
        description="PEM file: this daemon's certificate (and chain) for the other daemons; its role is a"
        " DNS name in it",
    )
    tls_key: str = Field("", description="PEM file: its private key")
    tls_ca: str = Field("", description="PEM file: the authority of all daemons' and operators' certificates")
    tls_dir: str = Field(
        "", description="Folder that `exchange certs` made: `exchange up` gives each daemon its own of it"
    )
    public_tls_cert: str = Field(
        "", description="PEM file: certificate of the public gRPC ports; empty: they are plain"
    )
    public_tls_key: str = Field("", description="PEM file: its private key")

    gateways: int = Field(1, ge=1, le=16, description="Gateways of `exchange up`; they share one socket")
    order_services: int = Field(1, ge=1, le=16, description="order-services of `exchange up`")
    matchings: int = Field(2, ge=1, le=16, description="Matchings of `exchange up`; from 2 on with a standby")
    market_datas: int = Field(1, ge=1, le=16, description="market-datas of `exchange up`")

    local_mode: bool = Field(
        False, description="Serves /api/v1/test/*, and needs no certificates; loopback only"
    )
    instance: str = Field("", description="Name of this process in leases and logs; empty: host:pid")
    partitions: int = Field(4, ge=1, le=1024, description="Fixed when the exchange is created")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged")

    lease_s: float = Field(3.0, gt=0, description="Time to live of a lease")
    lease_renew_s: float = Field(0.5, gt=0, description="Pause between renewals; less than half of lease_s")
    drain_s: float = Field(5.0, gt=0, description="How long a SIGTERM waits for work under way")

    cors_origins: str = Field(
        "",
        pattern=r"^(https?://[^/,*\s]+(,https?://[^/,*\s]+)*)?$",
        description="Origins whose pages may use the API in a browser: https://a.example,https://b.example",
    )
    behind_tls: bool = Field(
        False, description="Clients reach the gateway over HTTPS: answers carry Strict-Transport-Security"
    )
    body_limit_bytes: int = Field(1 << 20, ge=1024, description="Largest HTTP request body")
    max_connections: int = Field(20_000, ge=1, description="Open connections of the gateway")
    max_connections_per_ip: int = Field(500, ge=1, description="Of these, open connections of one address")
    trusted_proxies: str = Field(
        "", description="Addresses and networks, by comma, of proxies whose X-Forwarded-For is believed"
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="How long a connection may take to send its headers"
    )
    limit_ip_10s: int = Field(
        1_000, ge=0, le=MOST_LIMIT,
        description="Weight of the public requests of an address in any 10 s; 0: no limit",
    )  # fmt: skip
    limit_user_10s: int = Field(
        1_000, ge=0, le=MOST_LIMIT,
        description="Weight of the reads and cancels of a user in any 10 s; 0: no limit",
    )  # fmt: skip
    limit_orders_10s: int = Field(
        5_000, ge=0, le=MOST_LIMIT, description="New orders of a user in any 10 s; 0: no limit"
    )
    limit_orders_day: int = Field(
        5_000_000, ge=0, le=MOST_LIMIT, description="New orders of a user in any 24 h; 0: no limit"
    )
    master_keys_file: str = Field(
        "",
        description="File with the keys that seal secrets, NAME:BASE64 a line; order-service alone reads it;"
        " empty: in local mode `exchange up` makes one in its folder",
    )
    master_keys: str = Field(
        "", repr=False, description="The same words themselves, with commas, instead of a file"
    )
    receive_window_ms: int = Field(
        5_000, ge=100, le=60_000, description="How old the timestamp of a signed request may be"
    )
    session_s: float = Field(900, ge=1, le=86_400, description="How long a session's token lives")
    token_cache_s: float = Field(2.0, ge=0, le=2.0, description="How long an Authenticate answer is kept")
    queue_orders: int = Field(
        10_000, ge=1, description="Orders that wait for a batch before 'busy' is answered"
    )
    queue_s: float = Field(
        0.5,
        gt=0,
        description="How long an order waits for a batch before 'busy' is answered to others",
    )
    max_requests: int = Field(
        2_000, ge=1, description="Requests that are answered at once before 'busy' is answered to others"
    )
    backlog_orders: int = Field(
        250_000, ge=1, description="Orders of a partition that wait to be settled before 'busy' is answered"
    )
    settle_waiters: int = Field(
        2_000,
        ge=1,
        description="Requests that wait for settlements before 'busy' is answered, in each process;"
        " a user has a tenth",
    )
    batch_orders: int = Field(1_000, ge=1, le=5_000, description="Most orders in one TX1")

    @property
    def name(self) -> str:
        return self.instance or f"{socket.gethostname()}:{getpid()}"


def is_loopback(host: str) -> bool:
    """True for what only this machine can reach; names other than localhost are not looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def addresses(value: str) -> list[str]:
    """The host:port pairs of a setting that may name several, separated by commas."""
    return [address for part in value.split(",") if (address := part.strip())]


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
    if settings.local_mode and not is_loopback(settings.host):
        raise BadSetting("EXCHANGE_LOCAL_MODE hands out money: EXCHANGE_HOST must then be a loopback address")
    return settings
