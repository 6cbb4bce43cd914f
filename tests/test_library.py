"""What holds for every module of `groundup`, whatever it computes."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p.stem for p in (ROOT / "groundup").glob("*.py") if p.read_text().startswith("# Generated from"))
NAMES = [(module, name) for module in MODULES for name in importlib.import_module(f"groundup.{module}").__all__]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_alone_and_prints_nothing(module):
    code = f"import groundup.{module}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_an_exported_name_is_documented_and_tested(module, name):
    thing = getattr(importlib.import_module(f"groundup.{module}"), name)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return  # a constant is tested through what uses it
    assert inspect.getdoc(thing), f"{module}.{name} has no docstring"
    assert inspect.getsourcefile(inspect.unwrap(thing)) == str(ROOT / "groundup" / f"{module}.py")
    tests = (ROOT / "tests/groundup" / f"test_{module}.py").read_text(encoding="utf-8")
    uses = len(re.findall(rf"(?<!\w){name}(?!\w)", tests))
    assert uses >= 3, f"tests/groundup/test_{module}.py does not use {name}"
