"""A key management service: the gRPC API of Kubernetes' plugins, v1 and v2, with a key in memory.

Source: staging/src/k8s.io/kms/apis/v1beta1/api.proto and v2/api.proto of Kubernetes.
"""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Fields = dict[int, bytes]


def write_fields(fields: Fields) -> bytes:
    """A message of protobuf whose fields are all strings or bytes."""
    return b"".join(
        _write_number(number << 3 | 2) + _write_number(len(value)) + value
        for number, value in fields.items()
    )


def read_fields(message: bytes) -> Fields:
    """The same backwards; other fields are skipped."""
    fields, at = {}, 0
    while at < len(message):
        tag, at = _read_number(message, at)
        if tag & 7 == 0:
            _, at = _read_number(message, at)
            continue
        assert tag & 7 == 2, tag
        size, at = _read_number(message, at)
        fields[tag >> 3] = message[at : at + size]
        at += size
    return fields


def _write_number(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _read_number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


class KmsPlugin:
    """It listens at a socket until it is stopped; `asked` counts the calls by method."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.keys = {"first": AESGCM(AESGCM.generate_key(256))}
        self.current = "first"
        self.asked: dict[str, int] = {}
        self._server: Any = None
        self.start()

    def start(self) -> None:
        grpc: Any = importlib.import_module("grpc")  # of `pip install .[kms]`
        methods = {
            "v1beta1": {"Version": self._version, "Encrypt": self._encrypt_v1, "Decrypt": self._decrypt_v1},
            "v2": {"Status": self._status, "Encrypt": self._encrypt, "Decrypt": self._decrypt},
        }  # fmt: skip
        self._server = grpc.server(ThreadPoolExecutor(8))
        for version, calls in methods.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(self._count(name, call))
                for name, call in calls.items()
            }
            service = f"{version}.KeyManagementService"
            handler = grpc.method_handlers_generic_handler(service, handlers)
            self._server.add_generic_rpc_handlers((handler,))
        self.socket.unlink(missing_ok=True)
        assert self._server.add_insecure_port(f"unix://{self.socket}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def add_key(self, name: str) -> None:
        """Encrypt with a new key from now on; the former ones decrypt."""
        self.keys[name] = AESGCM(AESGCM.generate_key(256))
        self.current = name

    def _count(self, name: str, call: Callable[[Fields], Fields]) -> Callable[[bytes, Any], bytes]:
        def answer(message: bytes, _: object) -> bytes:
            self.asked[name] = self.asked.get(name, 0) + 1
            return write_fields(call(read_fields(message)))

        return answer

    def _version(self, _: Fields) -> Fields:
        return {1: b"v1beta1", 2: b"site", 3: b"1"}

    def _status(self, _: Fields) -> Fields:
        return {1: b"v2", 2: b"ok", 3: self.current.encode()}

    def _encrypt(self, asked: Fields) -> Fields:
        nonce = os.urandom(12)
        sealed = self.keys[self.current].encrypt(nonce, asked[1], None)
        return {1: nonce + sealed, 2: self.current.encode()}

    def _decrypt(self, asked: Fields) -> Fields:
        return {1: self._open(asked[3].decode(), asked[1])}

    def _encrypt_v1(self, asked: Fields) -> Fields:
        sealed = self._encrypt({1: asked[2]})
        return {1: sealed[2] + b":" + sealed[1]}

    def _decrypt_v1(self, asked: Fields) -> Fields:
        name, _, sealed = asked[2].partition(b":")
        return {1: self._open(name.decode(), sealed)}

    def _open(self, name: str, sealed: bytes) -> bytes:
        return self.keys[name].decrypt(sealed[:12], sealed[12:], None)
