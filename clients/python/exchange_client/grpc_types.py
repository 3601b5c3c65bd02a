"""The messages of the exchange's gRPC, as the server itself describes them (reflection): none is generated.

Does not promise that a server tells: an operator may switch reflection off, and then opening fails.
"""

from typing import Any, NamedTuple

import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from exchange_client.errors import ProtocolError

SERVICE = "exchange.v1.Orders"


class Method(NamedTuple):
    """One method of the service: its path, and the classes of its messages."""

    path: str
    request: Any
    response: Any


class Description:
    """What the server has told; classes are made when they are first asked for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._methods: dict[str, Method] = {}
        self.error: Any = GetMessageClass(pool.FindMessageTypeByName("exchange.v1.Error"))

    def method(self, name: str) -> Method:
        """Raises ProtocolError when this exchange has no such method."""
        if name not in self._methods:
            found = self._pool.FindServiceByName(SERVICE).methods_by_name.get(name)
            if found is None:
                raise ProtocolError(f"this exchange has no {SERVICE}/{name}")
            types = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
            self._methods[name] = Method(f"/{SERVICE}/{name}", *types)
        return self._methods[name]


async def describe(channel: grpc.aio.Channel) -> Description:
    """Raises ProtocolError, grpc.aio.AioRpcError."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
    await call.done_writing()
    answer = await call.read()
    if answer is grpc.aio.EOF or not answer.HasField("file_descriptor_response"):
        raise ProtocolError(f"the server does not describe {SERVICE}")
    files = [
        FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto
    ]
    return Description(_pool({file.name: file for file in files}))


def _pool(files: dict[str, FileDescriptorProto]) -> DescriptorPool:
    """Those first that others are made of."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added or name not in files:
            return
        added.add(name)
        for needed in files[name].dependency:
            add(needed)
        pool.Add(files[name])

    for name in files:
        add(name)
    return pool
