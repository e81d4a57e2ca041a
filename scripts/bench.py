"""What a build costs, as ratios of commands in one run (make bench).

cp          copy the finished tarballs
bundler     build the lab with a warm cache
tar czf     the plain way: one `tar czf` for each node's unpacked tree
+200        build the lab with 200 additional workers, warm cache

Bounds are for the median ratio of several rounds, so that other load counts for both sides.
Exit code 1 if a bound is exceeded.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LAB = Path(os.environ.get("BUNDLER_LAB_CACHE") or Path.home() / ".cache" / "bundler-lab")
BUNDLER = Path(sys.executable).parent / "bundler"
WORKERS = 200
ROUNDS = 5
FACTOR, SECONDS = 1.5, 3  # of cp, and more, that a warm build may take
MEMORY = 300  # MiB


def measure(*command: object, cwd: Path | None = None) -> tuple[float, int]:
    """Seconds, and the command's peak memory in MiB."""
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return time.monotonic() - started, usage.ru_maxrss >> 10


def judge(
    what: str, figure: float, allowed: float, unit: str = "", *, at_least: bool = False
) -> bool:
    """Print a figure next to its bound; return whether the bound holds."""
    holds = figure >= allowed if at_least else figure <= allowed
    bound = f"allowed: at {'least' if at_least else 'most'} {allowed:g}{unit}"
    print(f"{what:44}{figure:8.2f}{unit}   {bound}{'' if holds else '   EXCEEDED'}")
    return holds


def build(description: Path, output: Path, cache: Path) -> tuple[float, int]:
    return measure(
        BUNDLER, "build", "-q", "-c", description, "-o", output, "--offline", "--cache", cache,
        "--mirror", LAB / "mirror", "--pins", LAB / "pins.yaml",
    )  # fmt: skip


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir()) >> 20


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bundler-bench-") as name:
        work = Path(name)
        (work / ".lab").mkdir()
        for made in ("images", "packages"):
            (work / ".lab" / made).symlink_to(LAB / made)
        (work / "examples").mkdir()
        description = work / "examples" / "lab.yaml"
        shutil.copy(PROJECT / "scripts" / "lab.yaml", description)
        cold, _ = build(description, work / "dist", work / "cache")
        warm, copied = [], []
        for _ in range(ROUNDS):
            warm.append(build(description, work / "dist", work / "cache")[0])
            copied.append(measure("cp", "-r", work / "dist", work / "copy")[0])
            shutil.rmtree(work / "copy")
        middle = statistics.median(warm)
        print(f"output           {size_of(work / 'dist')} MiB in 5 tarballs")
        print(f"cp               {statistics.median(copied):6.2f} s")
        print(f"bundler, warm    {middle:6.2f} s")
        print(f"bundler, cold    {cold:6.2f} s   (reads, checks and compresses everything once)")
        plain = 0.0
        for tarball in sorted((work / "dist").glob("*.tar.gz")):
            subprocess.run(["tar", "-xzf", tarball, "-C", work], check=True)
            tree = tarball.name.removesuffix(".tar.gz")
            plain += measure("tar", "czf", work / "plain.tar.gz", tree, cwd=work)[0]
            shutil.rmtree(work / tree)
        print(f"tar czf          {plain:6.2f} s   {plain / middle:.1f} x bundler, warm")
        more = [
            f"  - {{name: more{i}, address: 172.30.32.{i + 1}, roles: [worker]}}\n"
            for i in range(WORKERS)
        ]
        text = description.read_text().replace("images:\n", "".join(more) + "images:\n", 1)
        description.write_text(text)
        build_large(description, work, middle)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    limits = [FACTOR * seconds + SECONDS for seconds in copied]
    ratio = statistics.median(b / limit for b, limit in zip(warm, limits, strict=True))
    bounds = (
        judge(f"bundler, warm, to {FACTOR} x cp + {SECONDS} s", ratio, 1),
        judge("peak memory of any command", peak, MEMORY, " MiB"),
    )
    return 0 if all(bounds) else 1


def build_large(description: Path, work: Path, warm: float) -> None:
    """200 additional workers: the first run makes keys, the second shows what a rebuild costs."""
    first, _ = build(description, work / "large", work / "cache")
    large, memory = build(description, work / "large", work / "cache")
    total = size_of(work / "large")
    print(
        f"+{WORKERS} workers    {large:6.2f} s   {total} MiB,"
        f" {(large - warm) / WORKERS * 1000:.0f} ms a worker"
        f" (first time {first:.2f} s)   peak {memory} MiB"
    )
    copied, _ = measure("cp", "-r", work / "large", work / "copy")
    print(f"cp of that       {copied:6.2f} s   bundler {large / copied:.2f} x cp")


if __name__ == "__main__":
    sys.exit(main())
