"""The internal port: every call has a caller, and what changes money has one alone."""

import pytest

from common.tls import Role
from daemons.order_service.callers import INTERNAL_CALLERS
from exchange.v1 import admin_pb2, internal_pb2, orders_pb2

METHODS = [
    f"/{service.full_name}/{method.name}"
    for service in (
        internal_pb2.DESCRIPTOR.services_by_name["OrderInternal"],
        orders_pb2.DESCRIPTOR.services_by_name["Orders"],
    )
    for method in service.methods
]
READING = ("List", "Authenticate", "FindKey")


def callers_of(method: str) -> set[Role]:
    return {role for role in Role if INTERNAL_CALLERS.allows(frozenset({role.value}), method)}


@pytest.mark.parametrize("method", METHODS)
def test_every_call_has_a_caller(method: str) -> None:
    callers = callers_of(method)
    assert callers, "a daemon that needs it must be named in callers.py"
    assert not callers & {Role.OPERATOR, Role.ORDER_SERVICE}
    if not method.rpartition("/")[2].startswith(READING):
        assert callers in ({Role.GATEWAY}, {Role.MATCHING})


def test_nobody_else_calls_anything() -> None:
    for method in METHODS:
        assert not INTERNAL_CALLERS.allows(frozenset(), method)
    for other in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods:
        assert not callers_of(f"/exchange.v1.Admin/{other.name}")
    assert callers_of("/grpc.health.v1.Health/Check") == set(Role)
