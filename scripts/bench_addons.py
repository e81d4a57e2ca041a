"""What ten charts with forty images add to a build, compared with plain commands (make bench).

layers      for each image: curl, sha256sum, gzip -d, sha256sum of the content, gzip -1
ten charts  a build with ten charts and their forty images, minus the same build without them

The build without add-ons has a warm cache, so the difference is what the add-ons cost: rendering
each chart twice with the real Helm, and finding, fetching, checking and compressing the images.
Everything comes from a server on loopback.
Exit code 1 if the bound is exceeded.
"""

import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from bench import BUNDLER, PROJECT, judge, measure

sys.path.insert(0, str(PROJECT / "tests"))
from support.charts import find_helm, write_folder, write_helm
from support.descriptions import write_description, write_upstream
from support.registries import MadeImage, Registry, make_layer, run_registry, sha256

CHARTS, IMAGES = 10, 4  # images of each chart
SIZE = 16_000_000  # bytes of a layer, half of which can be compressed
ROUNDS = 3
RATIO = 1.0  # of the plain commands
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: "{{{{ .Release.Name }}}}-{number}"}}
spec:
  selector: {{matchLabels: {{app: a{number}}}}}
  template:
    metadata: {{labels: {{app: a{number}}}}}
    spec: {{containers: [{{name: a, image: "{image}"}}]}}
"""


def make_image(number: int) -> MadeImage:
    noise = random.Random(number)  # noqa: S311 - the same images in each run
    return MadeImage([make_layer("program", noise.randbytes(SIZE // 2) + bytes(SIZE // 2))])


def write_charts(folder: Path, registry: Registry) -> tuple[list[dict[str, object]], list[str]]:
    """Write the charts and serve their images; return the add-ons, and the URL of each layer."""
    addons: list[dict[str, object]] = []
    urls = []
    for chart in range(CHARTS):
        files = {"Chart.yaml": f"{{apiVersion: v2, name: c{chart}, version: 1.0.0}}\n"}
        for place in range(IMAGES):
            number = chart * IMAGES + place
            name = f"site/image{number}"
            image = make_image(number)
            registry.put(name, "1.0", image)
            urls.append(f"http://{registry.host}/v2/{name}/blobs/{sha256(image.blobs[0])}")
            text = DEPLOYMENT.format(number=number, image=f"images.example/{name}:1.0")
            files[f"templates/{place}.yaml"] = text
        write_folder(folder / f"c{chart}", files)
        addons.append({"name": f"c{chart}", "chart": {"path": f"c{chart}"}, "namespace": "site"})
    return addons, urls


def handle_once(work: Path, urls: list[str]) -> float:
    """Seconds of the plain commands for every layer."""
    script = work / "once.sh"
    steps = "sha256sum layer.gz; gzip -dc layer.gz >layer; sha256sum layer; gzip -1 -c layer >again"
    lines = "".join(f"curl -sf -o layer.gz {url}; {steps}\n" for url in urls)
    script.write_text(f"set -e\n{lines}")
    return measure("sh", script, cwd=work)[0]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bundler-bench-") as name, run_registry() as registry:
        work = Path(name)
        description = write_description(work)
        pins = write_upstream(work, description)
        write_helm(work / "mirror", pins, find_helm())
        addons, urls = write_charts(description.parent, registry)
        more = description.with_name("addons.yaml")
        document = yaml.safe_load(description.read_text())
        more.write_text(yaml.safe_dump(document | {"addons": addons}))

        def run(path: Path, cache: Path) -> float:
            return measure(
                BUNDLER, "build", "-q", "-c", path, "-o", work / path.stem,
                "--state", work / "state", "--cache", cache, "--pins", pins,
                "--mirror", work / "mirror",
                "--registry-mirror", f"images.example=http://{registry.host}",
            )[0]  # fmt: skip

        base = work / "cache"
        run(description, base)
        ratios = []
        for number in range(ROUNDS):
            cache = work / f"cache{number}"
            subprocess.run(["cp", "-r", base, cache], check=True)
            without, once, whole = (
                run(description, cache),
                handle_once(work, urls),
                run(more, cache),
            )
            ratios.append((whole - without) / once)
            print(
                f"layers {once:6.2f} s   build {without:6.2f} s   with ten charts {whole:6.2f} s"
                f"   {len(urls)} images of {SIZE // 1_000_000} MB"
            )
    holds = judge(
        "ten charts with forty images, to plain commands", statistics.median(ratios), RATIO
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
