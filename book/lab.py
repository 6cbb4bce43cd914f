"""`make lab`: JupyterLab in which a double click on a chapter or an exercise opens it as a notebook.

Everything it is told lives under `_build/lab`: the reader's own JupyterLab settings are neither read over nor written.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import NoReturn

from book.errors import BookError

PORT = 8888

# Settings that JupyterLab starts from; what the reader chooses in the settings editor still wins.
OVERRIDES = {
    "@jupyterlab/docmanager-extension:plugin": {
        "defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"},
    },
    # Asks nobody on the network for news or newer versions.
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/filebrowser-extension:browser": {"filterDirectories": True, "navigateToCurrentDirectory": True},
    "@jupyterlab/notebook-extension:tracker": {"codeCellConfig": {"lineNumbers": False}},
}


def settings(root: Path) -> Path:
    """Write what JupyterLab is told; return the folder."""
    folder = root / "_build" / "lab"
    (folder / "settings").mkdir(parents=True, exist_ok=True)
    (folder / "settings" / "overrides.json").write_text(json.dumps(OVERRIDES, indent=2) + "\n", encoding="utf-8")
    return folder


def token(folder: Path) -> str:
    """The secret in the address: kept, so that a tab of yesterday goes on without asking for it."""
    path = folder / "token"
    if not path.exists():
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    return path.read_text()


def free_port(wanted: int | None = None) -> int:
    """The port asked for, or the first free one from 8888."""
    for port in [wanted] if wanted else range(PORT, PORT + 50):
        with socket.socket() as sock:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except (OSError, OverflowError):
                continue
    if wanted:
        raise BookError(f"port {wanted} is in use by another program; take another one: `make lab PORT={wanted + 1}`")
    raise BookError(f"no free port from {PORT} to {PORT + 49}; name one: `make lab PORT=9000`")


def command(root: Path, port: int, browser: bool = True) -> list[str]:
    """How JupyterLab is started."""
    folder = settings(root)
    first = "/lab/tree/exercises" if (root / "exercises").is_dir() else "/lab"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "ServerApp.open_browser": browser,
        "ServerApp.answer_yes": True,  # Ctrl-C ends it without asking
        "Application.log_level": "ERROR",
        "IdentityProvider.token": token(folder),
        "ContentsManager.notebook_metadata_filter": "book",  # a saved chapter keeps its front matter
        "LabApp.default_url": first,
        "LabApp.app_settings_dir": folder / "settings",
        "LabApp.workspaces_dir": folder / "workspaces",  # opens what was open here, not in another project
        "LabApp.extension_manager": "readonly",
    }
    root_user = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items()), *root_user]


def lab(root: Path, port: int | None = None, browser: bool = True) -> NoReturn:
    """Become JupyterLab, until Ctrl-C. Without `port`: that of the environment's PORT, or a free one."""
    port = free_port(port or int(os.environ.get("PORT") or 0) or None)
    arguments = command(root, port, browser)
    address = f"http://127.0.0.1:{port}/lab/tree/exercises?token={token(root / '_build' / 'lab')}"
    # The repository on the path: `from groundup import …` works in every folder.
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "JUPYTER_PLATFORM_DIRS": "1"}
    environment["GROUNDUP_PROGRESS"] = str(root / "progress.json")  # which checks passed: see groundup.checks
    print(f"JupyterLab: {address}  (Ctrl-C stops)", flush=True)
    os.execve(arguments[0], arguments, environment)  # signals and the exit code are JupyterLab's own
