"""Find the CPU architecture of a program from its first bytes (elf(5), Linux' elf-em.h)."""

SCRIPT = "a script"
MACHINES = {
    3: "386",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
}
MACHINE_OFFSET = 18
HEAD = MACHINE_OFFSET + 2
"""Bytes that `read_machine` needs."""


def read_machine(head: bytes) -> str:
    """`amd64`, `arm64` …; SCRIPT for a script; for anything else a phrase for a message."""
    if head.startswith(b"#!"):
        return SCRIPT
    if not head.startswith(b"\x7fELF") or len(head) < HEAD:
        return "not a Linux program"
    field = head[MACHINE_OFFSET:HEAD]
    number = int.from_bytes(field, "little" if head[5] == 1 else "big")
    return MACHINES.get(number, f"for another machine (ELF {number})")
