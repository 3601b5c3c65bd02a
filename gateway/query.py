"""Query parameters, read strictly: an unknown, repeated or wrong one is Malformed and named."""

import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from common.core.errors import Malformed

T = TypeVar("T")

MAX_FIELDS = 20
CURSOR = re.compile(r"[A-Za-z0-9_=.:-]{1,128}")
CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,6}")


class Query:
    """The parameters of one request, of which only `allowed` may occur, once each."""

    def __init__(self, raw: bytes, *allowed: str) -> None:
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
            )
        except ValueError:
            raise Malformed("The query cannot be read.") from None
        self._values: dict[str, str] = {}
        wrong: dict[str, str] = {}
        for name, value in pairs:
            if name not in allowed:
                wrong[name[:40]] = "unknown parameter"
            elif name in self._values:
                wrong[name] = "given more than once"
            else:
                self._values[name] = value
        if wrong:
            raise Malformed("The query has wrong parameters.", wrong)

    def required(self, name: str) -> str:
        value = self._values.get(name, "")
        if not value:
            raise Malformed(f"The parameter {name} is missing.", {name: "required"})
        return value

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """The value, or "" when it is absent; an empty one counts as absent."""
        value = self._values.get(name, "")
        if value and pattern is not None and pattern.fullmatch(value) is None:
            raise Malformed(f"The parameter {name} is not valid.", {name: "not valid"})
        return value

    def number(self, name: str, default: int, highest: int) -> int:
        """A whole number from 1 to `highest`."""
        value = self._values.get(name)
        if value is None:
            return default
        if _NUMBER.fullmatch(value) is None or not 1 <= int(value) <= highest:
            raise _out_of_range(name, f"must be a whole number from 1 to {highest}")
        return int(value)

    def choice(self, name: str, choices: Mapping[str, T], default: str) -> T:
        value = self._values.get(name, default)
        if value not in choices:
            raise _out_of_range(name, "must be one of " + ", ".join(choices))
        return choices[value]


def _out_of_range(name: str, why: str) -> Malformed:
    return Malformed(f"{name} {why}", {name: why})
