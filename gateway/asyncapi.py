"""The WebSocket as an AsyncAPI 3.0 document, made from the types that are sent. Pure.

AsyncAPI's channel is the whole connection, `/ws`. What this exchange calls a channel is a kind of message
there, two in fact: the snapshot that a subscription starts with, and its updates.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from common.socket_messages import CHANNELS, REPLIES, REQUESTS, Channel

Json = dict[str, Any]

TITLE = "exchange, WebSocket"
VERSION = "1"
ABOUT = """\
One JSON object a message. Subscriptions start with a snapshot; each message says which one it follows: if \
`previous` is not the `sequence` of the one before, something was missed, so subscribe again. A connection \
that does not read is closed with a reason."""

_REFERENCE = "#/components/schemas/{name}"
_NAME = re.compile(r"(?<=[a-z])(?=[A-Z])")


def asyncapi() -> Json:
    """The document; the same for every gateway."""
    data = {channel.kind: (channel.snapshot, channel.update) for channel in CHANNELS}
    types = {type_: None for pair in data.values() for type_ in pair}
    told = [*REQUESTS, *REPLIES]
    schemas, components = msgspec.json.schema_components([*told, *types], ref_template=_REFERENCE)
    by_type = dict(zip([*told, *types], schemas, strict=True))
    messages = {_name(type_): _message(type_, by_type[type_]) for type_ in told}
    for channel in CHANNELS:
        for kind, type_ in (("snapshot", channel.snapshot), ("update", channel.update)):
            messages[f"{channel.kind}_{kind}"] = _data_message(channel, kind, by_type[type_])
    asked = [_name(type_) for type_ in REQUESTS]
    answered = [name for name in messages if name not in asked]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION, "description": ABOUT},
        "channels": {
            "ws": {
                "address": "/ws",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "ask": _operation("receive", "What clients say.", asked),
            "tell": _operation("send", "What they are told.", answered),
        },
        "components": {"messages": messages, "schemas": components},
    }


def _name(type_: type) -> str:
    return _NAME.sub("_", type_.__name__).lower()


def _message(type_: type, schema: Json) -> Json:
    return {"name": _name(type_), "summary": (type_.__doc__ or "").split("\n")[0], "payload": schema}


def _data_message(channel: Channel, kind: str, data: Json) -> Json:
    return {
        "name": f"{channel.kind}_{kind}",
        "summary": channel.about,
        "payload": {
            "type": "object",
            "required": ["channel", "type", "sequence", "previous", "data"],
            "properties": {
                "channel": {"type": "string", "pattern": f"^{channel.names}$", "examples": [channel.example]},
                "type": {"const": kind},
                "sequence": {"type": "integer"},
                "previous": {"type": "integer"},
                "data": data,
            },
            "additionalProperties": False,
        },
        "x-private": channel.private,
    }


def _operation(action: str, summary: str, messages: Iterable[str]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/ws"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/ws/messages/{name}"} for name in messages],
    }
