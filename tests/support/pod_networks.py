"""Pods as network namespaces on a bridge: addresses, servers and clients, in place of a kubelet and a runtime."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SERVER = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in (80, 81):
    listener = socket.create_server(("0.0.0.0", port), backlog=512)
    waiting.register(listener, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()[0].close()
"""
"""Answers on the ports 80 and 81."""

CLIENT = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end, tried, answered = time.monotonic() + seconds, 0, 0
while True:
    tried += 1
    try:
        socket.create_connection((address, port), timeout=0.3 if seconds else 1.5).close()
        answered += 1
    except OSError:
        time.sleep(0.01)
    if time.monotonic() >= end:
        break
print(tried, answered)
"""
"""Connects once, or again and again; prints how often it tried, and how often somebody answered."""


def run(*words: object) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@dataclass
class Space:
    """A network namespace with one interface, and a server on the ports 80 and 81; or that of the test."""

    name: str
    address: str = ""
    holder: subprocess.Popen[bytes] | None = None
    server: subprocess.Popen[bytes] | None = None

    @property
    def inside(self) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-n"] if self.holder else []

    def ip(self, words: str) -> None:
        run(*self.inside, "ip", *words.split())

    def serve(self) -> None:
        self.server = subprocess.Popen(
            [*self.inside, sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        )
        assert self.server.stdout
        assert self.server.stdout.readline() == b"ready\n"

    def call(self, address: str, port: int, seconds: float = 0) -> "Call":
        """Connect once, or for some seconds again and again."""
        words = [*self.inside, sys.executable, "-c", CLIENT, address, str(port), str(seconds)]
        return Call(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))

    def reaches(self, address: str, port: int = 80) -> bool:
        return self.call(address, port).answers > 0

    def end(self) -> None:
        for process in (self.server, self.holder):
            if process:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()


@dataclass
class Call:
    process: subprocess.Popen[str]

    @property
    def counts(self) -> tuple[int, int]:
        """How often it tried, and how often somebody answered."""
        tried, answered = self.process.communicate(timeout=120)[0].split()
        return int(tried), int(answered)

    @property
    def answers(self) -> int:
        return self.counts[1]


@dataclass
class Spaces:
    """A node with the bridge cni0 at 10.200.0.1/24, and another node behind a cable at 192.0.2.12."""

    made: dict[str, Space] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
            (Path("/proc/sys") / name).write_text("1")
        run("ip", "link", "add", "cni0", "type", "bridge")
        run("ip", "address", "add", "10.200.0.1/24", "dev", "cni0")
        run("ip", "link", "set", "cni0", "up")
        node = Space("node", "192.0.2.11")
        self.made["node"] = node
        self._plug("w2", "192.0.2.12/24", bridge="")
        run("ip", "address", "add", "192.0.2.11/24", "dev", "to-w2")
        run("ip", "route", "add", "10.200.1.0/24", "via", "192.0.2.12")
        self.made["w2"].ip("address add 10.200.1.5/24 dev eth0")
        self.made["w2"].ip("route add 10.200.0.0/24 via 192.0.2.11 src 192.0.2.12")
        self.made["w2"].serve()
        node.serve()

    def add_pod(self, name: str, address: str) -> Space:
        space = self._plug(name, f"{address}/24", bridge="cni0")
        space.ip("route add default via 10.200.0.1")
        space.serve()
        return space

    def _plug(self, name: str, address: str, bridge: str) -> Space:
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        space = Space(name, address.partition("/")[0], holder)
        self.made[name] = space
        own = os.readlink("/proc/thread-self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            pass
        inner = {"name": "eth0", "netns": str(holder.pid)}
        peer = [word for pair in inner.items() for word in pair]
        run("ip", "link", "add", f"to-{name}"[:15], "type", "veth", "peer", *peer)
        if bridge:
            run("ip", "link", "set", f"to-{name}"[:15], "master", bridge)
        run("ip", "link", "set", f"to-{name}"[:15], "up")
        for line in ("link set lo up", f"address add {address} dev eth0", "link set eth0 up"):
            space.ip(line)
        return space


@contextmanager
def spaces() -> Iterator[Spaces]:
    """In the network of the calling process, which must be one of its own (own_network)."""
    made = Spaces()
    try:
        yield made
    finally:
        for space in made.made.values():
            space.end()
