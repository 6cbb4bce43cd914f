"""Set-up: which Python, what is installed in what order, the stamp, and what is said when something fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from book import lab, setup
from book.errors import BookError

ROOT = Path(__file__).resolve().parent.parent


# --- which Python -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 1)])
def test_fitting_python(version):
    assert setup.python_problem(version) == ""


@pytest.mark.parametrize(
    ("version", "word"),
    [((2, 7, 18), "too old"), ((3, 6, 15), "too old"), ((3, 10, 13), "too old"), ((3, 14, 0), "too new")],
)
def test_unfit_python(version, word):
    text = setup.python_problem(version, "/usr/bin/python3")
    assert word in text and ".".join(map(str, version)) in text and "/usr/bin/python3" in text
    assert "make PYTHON=python3.12 serve" in text
    assert "`make PYTHON=python3.11 serve`" in setup.python_problem(version, others=["python3.11"])


def old_pythons() -> list[Path]:
    found = [path for v in ("3.6", "3.7", "3.8", "3.9", "3.10") if (path := shutil.which(f"python{v}"))]
    found += sorted((Path.home() / ".pyenv" / "versions").glob("3.[6-9].*/bin/python"))
    found += sorted((Path.home() / ".pyenv" / "versions").glob("3.10.*/bin/python"))
    works = [Path(p) for p in found if subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    return works[:1] + works[-1:]  # the oldest and the newest


def test_an_old_python_gets_the_message():
    pythons = old_pythons()
    if not pythons:
        pytest.skip("no Python before 3.11 on this machine")
    for python in pythons:
        done = subprocess.run([python, "-m", "book", "setup"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == "", python
        assert done.stderr.startswith("error: Python 3.") and "too old" in done.stderr
        assert "Traceback" not in done.stderr and "SyntaxError" not in done.stderr


# --- what the installers say --------------------------------------------------------------------------

OFFLINE = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new connection: \
[Errno -3] Temporary failure in name resolution')': /simple/torch/
ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)
ERROR: No matching distribution found for torch==2.13.0
"""
ALTERED = """\
Collecting tiny-model==1.2
  Downloading tiny_model-1.2-py3-none-any.whl (3.1 MB)
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, please update \
the hashes. Otherwise, examine the package contents carefully; someone may have tampered with them.
    tiny-model==1.2 from https://index.example/tiny_model-1.2-py3-none-any.whl (from -r requirements-data.txt (line 4)):
        Expected sha256 {a}
             Got        {b}
""".format(a="a" * 64, b="b" * 64)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (OFFLINE, ["no network during set-up", "Nothing was changed outside .venv", "run the same command again"]),
        ("npm error code EAI_AGAIN\nnpm error errno EAI_AGAIN", ["no network during set-up"]),
        ("npm error code ECONNREFUSED", ["no network during set-up"]),
        ("ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out.", ["no network"]),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403'))", ["no network"]),
        (
            ALTERED,
            [
                "altered package: tiny-model",
                "aaaaaaaaaaaa",
                "bbbbbbbbbbbb",
                "not installed",
                "pip cache purge",
                "report it",
            ],
        ),
        ("npm error code EINTEGRITY", ["altered package", "npm cache clean"]),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            ["disk is full", "GB are free"],
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", ["certificate", "PIP_CERT"]),
        ("ERROR: No matching distribution found for torch==9.9", ["has no torch==9.9", "PYTHON=python3.12"]),
    ],
)
def test_explanations(output, words):
    text = setup.explain(output, "installing torch")
    for word in words:
        assert word in text


def test_unknown_failures_show_the_last_lines(tmp_path):
    code = "import sys; print('noise'); print('boom: the compiler is missing'); sys.exit(1)"
    with pytest.raises(setup.SetupError, match="(?s)step failed.*boom: the compiler is missing"):
        setup._must([sys.executable, "-c", code], "step")


def test_a_silent_index_is_given_up():
    started = time.monotonic()
    ok, _ = setup.run(
        [sys.executable, "-c", "import time; print('Collecting torch'); time.sleep(60)"], "torch", silence=0.5
    )
    assert not ok and time.monotonic() - started < 10


def test_a_long_download_is_not():
    code = "import time; print('Downloading torch.whl', flush=True); time.sleep(1.2)"
    assert setup.run([sys.executable, "-c", code], "torch", silence=0.5)[0]


# --- the real pip, with nothing to reach --------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose .venv is this Python, and a pip that reaches nothing but a port where nobody listens."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_CACHE_DIR": "1"
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(setup, "venv_python", lambda root=None: Path(sys.executable))
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\nbook-no-such-package==1.0\n")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


def test_no_network(project):
    with pytest.raises(setup.SetupError, match="no network during set-up"):
        setup.install_requirements(project)


def wheel(folder: Path, name: str) -> Path:
    import zipfile

    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def test_altered_data_package(project, monkeypatch):
    wheel(project, "tiny_model")
    monkeypatch.setenv("PIP_FIND_LINKS", str(project))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (project / "requirements-data.txt").write_text(f"# data\ntiny_model==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(
        setup.SetupError, match=r"altered package: tiny_model \(expected sha256 000000000000…, got [0-9a-f]{12}…\)"
    ):
        setup.install_data(project)


def test_data_without_entries_asks_nobody(project, monkeypatch):
    monkeypatch.setattr(setup, "run", lambda *a, **k: pytest.fail("nothing to install"))
    setup.install_data(project)
    (project / "requirements-data.txt").write_text("# only words\n\n")
    setup.install_data(project)


# --- torch --------------------------------------------------------------------------------------------


@pytest.fixture
def calls(project, monkeypatch):
    """What is run for torch, on a machine that has none yet; each call answers from `answers`."""
    seen, answers = [], [(True, "")]

    def fake(command, step, silence=None, cwd=None):
        seen.append(" ".join(map(str, command[1:])))
        return answers[min(len(seen), len(answers)) - 1]

    monkeypatch.setattr(setup, "run", fake)
    monkeypatch.setattr(setup, "_answer", lambda command: "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(setup, "has_nvidia", lambda: False)
    return seen, answers


def test_torch_without_a_card(project, calls):
    setup.install_torch(project)
    assert len(calls[0]) == 1
    assert calls[0][0].endswith(f"--no-deps torch==2.13.0 --extra-index-url {setup.CPU_INDEX} --retries 0 --timeout 10")


def test_torch_falls_back_to_the_default_index(project, calls, capsys):
    calls[1][:] = [(False, OFFLINE), (True, "")]
    setup.install_torch(project)
    assert len(calls[0]) == 2 and "extra-index" not in calls[0][1]
    assert "from the default index" in capsys.readouterr().out


def test_torch_without_any_network(project, calls):
    calls[1][:] = [(False, OFFLINE)]
    with pytest.raises(setup.SetupError, match="no network during set-up"):
        setup.install_torch(project)


@pytest.mark.parametrize(("platform", "card"), [("linux", True), ("darwin", False)])
def test_torch_elsewhere_comes_from_the_default_index(project, calls, monkeypatch, platform, card):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(setup, "has_nvidia", lambda: card)
    setup.install_torch(project)
    assert len(calls[0]) == 1 and "extra-index" not in calls[0][0]


def test_torch_already_there(project, calls, monkeypatch):
    monkeypatch.setattr(setup, "_answer", lambda command: "2.13.0")
    setup.install_torch(project)
    assert calls[0] == []


# --- the stamp ----------------------------------------------------------------------------------------


@pytest.fixture
def steps(project, monkeypatch):
    """main() with every step replaced by a note of its name."""
    (project / ".venv" / "bin").mkdir(parents=True)
    done = []
    for name in ("make_venv", "install_torch", "install_requirements", "install_data", "install_npm"):
        monkeypatch.setattr(setup, name, lambda root, name=name: done.append(name))
    return done


def test_second_run_does_nothing(project, steps):
    assert setup.main(project) == 0
    assert steps == ["make_venv", "install_torch", "install_requirements", "install_data", "install_npm"]
    assert setup.main(project) == 0 and len(steps) == 5


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "requirements-data.txt", "package-lock.json"])
def test_a_changed_pin_sets_up_again(project, steps, name):
    assert setup.main(project) == 0
    (project / "node_modules").mkdir()
    (project / name).write_text("another==1\n")
    assert not setup.is_ready(project)
    assert setup.main(project) == 0 and len(steps) == 10 and setup.is_ready(project)


def test_deleted_node_modules_sets_up_again(project, steps):
    (project / "package-lock.json").write_text("{}")
    (project / "node_modules").mkdir()
    assert setup.main(project) == 0 and setup.is_ready(project)
    (project / "node_modules").rmdir()
    assert not setup.is_ready(project)


def test_a_failure_leaves_no_stamp(project, steps, monkeypatch, capsys):
    def fail(root):
        raise setup.SetupError("no network during set-up: …")

    assert setup.main(project) == 0
    (project / "constraints.txt").write_text("x==1\n")
    monkeypatch.setattr(setup, "install_data", fail)
    assert setup.main(project) == 1
    assert capsys.readouterr().err == "error: no network during set-up: …\n"
    assert not (project / ".venv" / "setup-stamp").exists() and not setup.is_ready(project)


def test_a_full_disk_on_our_own_write(project, steps, monkeypatch, capsys):
    def full(root):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(setup, "install_npm", full)
    assert setup.main(project) == 1
    assert "the disk is full" in capsys.readouterr().err


def test_no_venv_module(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(setup, "venv_python", lambda root=None: project / "none")
    with pytest.raises(setup.SetupError, match=r"sudo apt install python3\.\d+-venv"):
        setup.make_venv(project)


# --- the pins -----------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / name).read_text().splitlines())
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(row) == 2 for row in rows), "every line is name==version"
    return {row[0].lower().replace("_", "-"): row[1] for row in rows}


def test_constraints_agree_with_requirements():
    direct, everything = pins("requirements.txt"), pins("constraints.txt")
    assert {name: everything.get(name) for name in direct} == direct


def test_pins_hold_everything_that_they_bring():
    """What the installed requirements need, transitively, is pinned too."""
    from importlib import metadata

    from packaging.requirements import Requirement

    everything = pins("constraints.txt")
    todo, seen = [(name, "") for name in pins("requirements.txt")], set()
    while todo:
        name, extra = item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                found = need.name.lower().replace("_", "-").replace(".", "-")
                todo += [(found, e) for e in ("", *need.extras)]
    brought = {
        name for name, _ in seen if not name.startswith(("nvidia-", "cuda-", "triton"))
    }  # torch pins these itself
    assert brought <= set(everything), f"add to constraints.txt: {sorted(brought - set(everything))}"


def test_data_pins_are_hashed():
    rows = [r for r in (ROOT / "requirements-data.txt").read_text().splitlines() if r.strip() and not r.startswith("#")]
    assert all("==" in row and "--hash=sha256:" in row for row in rows)


# --- make ---------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")
    }
    for name in ("PORT", "ONLY", "CHAPTER"):
        environment.pop(name, None)
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_make_lists_its_targets():
    done = make()
    for target in ("serve", "test", "lab", "write", "site", "run", "new", "bench", "clean"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["serve"], "book serve"),
        (["serve", "ONLY=foundations", "PORT=8001"], "book serve --only foundations --port 8001"),
        (["write", "ONLY=a/b"], "book write --only a/b"),
        (["new", "CHAPTER=a/b"], "book new a/b"),
        (["run", "CHAPTER=a/b"], "book run a/b"),
        (["new"], "Say which: make new CHAPTER=part/slug"),
    ],
)
def test_make_calls_the_press(arguments, command):
    lines = [" ".join(line.split()) for line in make("-n", *arguments).stdout.splitlines()]
    assert "-m book setup" in lines[0] and command in lines[-1]


def test_make_takes_the_python_asked_for():
    assert make("-n", "setup", "PYTHON=python3.99").stdout.startswith("python3.99 -m book setup")


# --- the laboratory -----------------------------------------------------------------------------------


def test_lab_opens_markdown_as_notebooks(tmp_path):
    (tmp_path / "exercises").mkdir()
    options = dict(part[2:].split("=", 1) for part in lab.command(tmp_path, 8890) if "=" in part)
    told = json.loads((Path(options["LabApp.app_settings_dir"]) / "overrides.json").read_text())
    assert told["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]["markdown"] == "Jupytext Notebook"
    assert options["LabApp.default_url"] == "/lab/tree/exercises" and options["ServerApp.ip"] == "127.0.0.1"
    assert options["ContentsManager.notebook_metadata_filter"] == "book", "a saved chapter keeps its front matter"


def test_lab_keeps_its_secret_to_the_user(tmp_path):
    folder = lab.settings(tmp_path)
    assert lab.token(folder) == lab.token(folder) and len(lab.token(folder)) == 32
    assert (folder / "token").stat().st_mode & 0o077 == 0


def test_lab_port_in_use():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BookError, match=f"port {port} is in use.*make lab PORT={port + 1}"):
            lab.free_port(port)
