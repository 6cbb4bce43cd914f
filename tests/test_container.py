"""The container's files, held to the code they run: what the image installs suffices, what compose passes is read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
#: serves the last good site as the image does, where nothing can be imported but what the image installs
SERVES = """
import sys

class OnlyThose:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in KEPT_OUT:
            raise ModuleNotFoundError(f"{name} is not installed in the image", name=name)

KEPT_OUT = set(sys.argv[2].split())
sys.meta_path.insert(0, OnlyThose())
from book import cli

sys.exit(cli.main(["serve", "--built", "--port", "0", "--data", sys.argv[1]]))
"""


def _names(requirements: list[str]) -> list[str]:
    return [re.match(r"[\w.-]+", line)[0] for line in requirements if "extra ==" not in line]


def installed_in_image() -> set[str]:
    """The distributions that the image's pip line names, and all that they require here."""
    line = re.search(r"pip install (.*)", DOCKERFILE.replace("\\\n", " "))[1]
    todo = [word for word in line.split() if not word.startswith("-") and not word.endswith(".txt")]
    found: set[str] = set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in found:
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue  # for another system
            found.add(name)
            todo += _names(needs)
    return found


def test_the_image_installs_all_that_serving_needs(tmp_path):
    if not (ROOT / "_build" / "html" / "index.html").exists():
        pytest.fail("the site is not built; run `python -m book site` first")
    there = installed_in_image()
    kept_out = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & there
    ]
    assert {"torch", "sphinx", "httpx"} <= set(kept_out)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES, str(tmp_path), " ".join(kept_out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = process.stdout.readline()
        assert "http://" in said, process.communicate(timeout=10)[1][-2000:]
        address = re.search(r"http://[\w.]+:\d+", said)[0]

        def get(path: str, body: bytes | None = None) -> str:
            headers = {"Origin": address, "Content-Type": "application/json"} if body else {}
            asked = urllib.request.Request(address + path, body, headers)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.read().decode()

        assert "<h1" in get("/") and json.loads(get("/-/health"))["status"] == "ok"
        text = json.dumps({"text": "$x^2$\n```python\nx = 1\n```"}).encode()
        html = json.loads(get("/-/comments/preview", text))["html"]
        assert 'class="katex"' in html and 'class="mi"' in html
    finally:
        process.terminate()
        process.communicate()


def test_what_the_image_copies_is_there():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert name == "." or name not in ignored, f"{name} is kept out by .dockerignore"


def test_compose_passes_only_what_serve_reads():
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["book"]
    code = (ROOT / "book" / "cli.py").read_text(encoding="utf-8")
    read = set(re.findall(r"\b(BOOK_[A-Z_]+|PORT)\b", code + (ROOT / "book/comments/commands.py").read_text("utf-8")))
    given = set(service["environment"]) | set(re.findall(r"\b(BOOK_[A-Z]+|PORT)=", DOCKERFILE))
    assert given <= read, f"nothing reads {given - read}"
    assert {"BOOK_HOST", "BOOK_DATA", "BOOK_LOG", "BOOK_PUBLIC", "BOOK_TRUSTED_PROXY"} <= given
    assert service["read_only"] is True and service["user"].split(":")[0] != "0" and service["cap_drop"] == ["ALL"]
    volume = service["volumes"][0].split(":")[1]
    assert f"BOOK_DATA={volume}" in DOCKERFILE, "comments must lie in the volume"


def test_the_image_runs_without_rights():
    assert re.search(r"^USER (?!0|root)\S+$", DOCKERFILE, re.M)
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nCMD ")
