"""What routes declare, and that it is what the handlers do."""

import inspect

import pytest

from gateway.app import HANDLERS, every_route
from gateway.declaration import Route, declared, routes_of
from gateway.static_files import StaticFiles

ROUTES = every_route()


def test_a_handler_that_serves_nothing_would_be_forgotten() -> None:
    for handlers in HANDLERS:
        public = [
            name for name, _ in inspect.getmembers(handlers, inspect.iscoroutinefunction) if name[0] != "_"
        ]
        assert len(routes_of(handlers)) == len(public)


def test_no_two_routes_are_the_same() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_bound_handlers_come_with_their_routes() -> None:
    files = StaticFiles()
    assert dict(declared(files)) == dict(
        zip(routes_of(StaticFiles), (files.page, files.docs, files.file), strict=True)
    )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_says_all_that_is_asked_of_it(route: Route) -> None:
    parts = {part.rpartition(":")[2] for part in route.path.replace(">", "<").split("<")[1::2]}
    assert {part.name for part in route.parts} == parts
    assert route.answers
    assert route.summary
    assert not (route.hot and route.parts)
    # An act needs more than the right to look; only a test user's beginning needs none.
    if route.method != "GET" and route.path != "/api/v1/test/join":
        assert route.permission not in (None, "read")
