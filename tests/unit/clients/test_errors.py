"""Codes become classes, and the exchange's own list agrees with their statuses."""

import pytest

from common.core import errors as core
from daemons.market_data import protocol
from exchange_client import errors
from gateway import errors as edge

BY_STATUS = {
    400: errors.BadRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.Impossible,
    429: errors.RateLimited,
    500: errors.Unavailable,
    503: errors.Unavailable,
}
OURS = sorted(
    {
        each
        for module in (core, edge, protocol)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, core.ExchangeError)
    },
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_each_error_of_the_exchange_is_one_here(kind: type[core.ExchangeError]) -> None:
    with_status = errors.refusal(kind.code, "no", status=kind.http_status)
    assert isinstance(with_status, BY_STATUS.get(kind.http_status, errors.BadRequest))
    assert with_status.code == kind.code


def test_the_ones_that_bots_act_upon_have_names() -> None:
    error = errors.refusal("INSUFFICIENT_FUNDS", "too little", {"asset": "USD"}, status=422, request_id="r")
    assert isinstance(error, errors.InsufficientFunds)
    assert (error.code, error.message, error.details) == (
        "INSUFFICIENT_FUNDS",
        "too little",
        {"asset": "USD"},
    )
    assert (error.status, error.request_id, str(error)) == (422, "r", "INSUFFICIENT_FUNDS: too little")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(418, errors.BadRequest), (429, errors.RateLimited), (502, errors.Unavailable), (0, errors.Refusal)],
)
def test_an_unknown_code_is_what_its_status_says(status: int, kind: type[errors.Refusal]) -> None:
    assert type(errors.refusal("FROM_THE_FUTURE", "", status=status)) is kind
