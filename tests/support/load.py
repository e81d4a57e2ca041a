"""Clients that send requests all the time, and the times at which requests failed."""

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.break_glass import split_kubeconfig
from support.lab import Cluster

PAUSE = 0.2  # seconds between two requests
TIMEOUT = 2.0  # seconds that a request may take


@dataclass
class Load:
    """One client; `failures` are (seconds since the epoch, reason) in order."""

    ask: Callable[[int], None]
    done: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """(start, length in seconds): from the start of a failed request to that of the next that succeeds."""
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        out_since = None
        while not self.stop.is_set():
            start = time.time()
            try:
                self.ask(self.done)
                self.done += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append((start, f"{type(error).__name__}: {error}"))
                out_since = out_since or start
            else:
                if out_since:
                    self.outages.append((out_since, start - out_since))
                out_since = None
            self.stop.wait(max(0.0, PAUSE - (time.time() - start)))
        if out_since:
            self.outages.append((out_since, time.time() - out_since))


@contextmanager
def under_load(*loads: Load) -> Iterator[None]:
    """Send the requests of all clients while the block runs."""
    threads = [threading.Thread(target=load.run, daemon=True) for load in loads]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for load in loads:
            load.stop.set()
        for thread in threads:
            thread.join(30)


@dataclass(frozen=True)
class Api:
    """The API, with a client certificate."""

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Send a request on a new connection."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        connection = http.client.HTTPSConnection(
            self.host, self.port, context=context, timeout=TIMEOUT
        )
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def write_and_read(self, number: int) -> None:
        """Create the ConfigMap `load-N` and read it again."""
        name, path = f"load-{number}", "/api/v1/namespaces/default/configmaps"
        status, answer = self.call(
            "POST", path, {"metadata": {"name": name}, "data": {"number": str(number)}}
        )
        assert status in {201, 409}, answer[:200]
        status, answer = self.call("GET", f"{path}/{name}")
        assert status == 200, answer[:200]
        assert json.loads(answer)["data"] == {"number": str(number)}


def open_api(cluster: Cluster) -> Api:
    """The lab's API behind its load balancers, with a break-glass certificate."""
    directory = cluster.directory / "break-glass"
    kubeconfig, certificate = directory / "kubeconfig", directory / "masters.crt"
    if not directory.exists():
        directory.mkdir(mode=0o700)
        subprocess.run(
            [
                Path(sys.executable).parent / "bundler", "admin", "create", "--name", "load", "--break-glass",
                "-o", kubeconfig, "-c", cluster.directory / "examples/lab.yaml",
            ],
            check=True,
        )  # fmt: skip
        split_kubeconfig(kubeconfig.read_text(), certificate)
    return Api(
        host="172.30.20.250", port=8443,
        authority=cluster.directory / "examples/lab.state/pki/kubernetes-ca/cert.pem",
        certificate=certificate, key=certificate.with_suffix(".key"),
    )  # fmt: skip


def get_page(address: str, port: int) -> Callable[[int], None]:
    """Make a client of a NodePort."""

    def ask(_number: int) -> None:
        connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
        try:
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    return ask
