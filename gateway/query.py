"""Query parameters: declared once, read strictly. An unknown, repeated or wrong one is named."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl

from common.core.errors import Malformed

T = TypeVar("T")

MAX_FIELDS = 20
CURSOR = "[A-Za-z0-9_=.:-]{1,128}"
CLIENT_ORDER_ID = "[A-Za-z0-9._:-]{1,64}"
_NUMBER = re.compile(r"[0-9]{1,6}")
_TIME = re.compile(  # RFC 3339.
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Parameter(Generic[T]):
    """One parameter; `schema` is the JSON Schema of exactly the values that `read` takes."""

    def __init__(
        self, name: str, about: str, schema: dict[str, object], *, required: bool = False, example: str = ""
    ) -> None:
        self.name, self.about, self.schema = name, about, schema
        self.required, self.example = required, example

    def absent(self) -> T:
        """The value of a parameter that was not sent; raises ValueError when there is none."""
        raise NotImplementedError

    def read(self, text: str) -> T:
        """Raises ValueError, whose message says what is wrong, to come after the name."""
        raise NotImplementedError


class Text(Parameter[str]):
    """A text, "" when it is absent; an empty one counts as absent. The pattern is for all of it."""

    def __init__(
        self, name: str, about: str, pattern: str = "", *, required: bool = False, example: str = ""
    ) -> None:
        schema: dict[str, object] = {"type": "string"}
        if pattern:
            schema["pattern"] = f"^{pattern}$" if required else f"^({pattern})?$"
        elif required:
            schema["minLength"] = 1
        super().__init__(name, about, schema, required=required, example=example)
        self._pattern = re.compile(pattern or ".*", re.DOTALL)

    def absent(self) -> str:
        if self.required:
            raise ValueError("required")
        return ""

    def read(self, text: str) -> str:
        if not text:
            return self.absent()
        if self._pattern.fullmatch(text) is None:
            raise ValueError("not valid")
        return text


class Number(Parameter[int]):
    """A whole number from 1 to `highest`."""

    def __init__(self, name: str, about: str, default: int, highest: int) -> None:
        bounds = {"type": "integer", "minimum": 1, "maximum": highest, "default": default}
        super().__init__(name, about, bounds)
        self._default, self._highest = default, highest

    def absent(self) -> int:
        return self._default

    def read(self, text: str) -> int:
        if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= self._highest:
            raise ValueError(f"must be a whole number from 1 to {self._highest}")
        return int(text)


class Choice(Parameter[T]):
    """One of these names; what it stands for is the value."""

    def __init__(self, name: str, about: str, choices: Mapping[str, T], default: str) -> None:
        super().__init__(name, about, {"type": "string", "enum": list(choices), "default": default})
        self._choices, self._default = choices, default

    def absent(self) -> T:
        return self._choices[self._default]

    def read(self, text: str) -> T:
        if text not in self._choices:
            raise ValueError("must be one of " + ", ".join(filter(None, self._choices)))
        return self._choices[text]


class Time(Parameter[int]):
    """A moment in microseconds since the epoch, at least 1; 0 when it is absent."""

    def __init__(self, name: str, about: str) -> None:
        schema: dict[str, object] = {"type": "string", "format": "date-time"}
        super().__init__(name, about, schema, example="2026-01-02T03:04:05Z")

    def absent(self) -> int:
        return 0

    def read(self, text: str) -> int:
        if _TIME.fullmatch(text) is None:
            raise ValueError("must be a time such as 2026-01-02T03:04:05.000006Z")
        try:
            since = datetime.fromisoformat(text.upper()) - _EPOCH
        except (ValueError, OverflowError):
            raise ValueError("must be a time that there is") from None
        return max(1, since // timedelta(microseconds=1))


class Query:
    """The parameters of one request: each of `allowed` at most once, and nothing else. Raises Malformed."""

    def __init__(self, raw: bytes, allowed: Sequence[Parameter[Any]]) -> None:
        self._values: dict[str, object] = {}
        if not raw and not allowed:
            return  # What orders come with.
        sent = _pairs(raw, {parameter.name for parameter in allowed}) if raw else {}
        wrong: dict[str, str] = {}
        for parameter in allowed:
            text = sent.get(parameter.name)
            try:
                value = parameter.absent() if text is None else parameter.read(text)
                self._values[parameter.name] = value
            except ValueError as error:
                wrong[parameter.name] = str(error)
        _refuse(wrong)

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """The value of a declared parameter."""
        return cast(T, self._values[parameter.name])


def _pairs(raw: bytes, allowed: set[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Malformed("The query cannot be read.") from None
    values: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            wrong[name[:40]] = "unknown parameter"
        elif name in values:
            wrong[name] = "given more than once"
        else:
            values[name] = value
    _refuse(wrong)
    return values


def _refuse(wrong: Mapping[str, str]) -> None:
    if len(wrong) == 1:
        ((name, why),) = wrong.items()
        raise Malformed(f"{name}: {why}", wrong)
    if wrong:
        raise Malformed("The query has wrong parameters.", wrong)
