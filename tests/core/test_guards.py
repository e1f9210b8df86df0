"""What holds the project together: imports, exports, settings."""

import ast
import sys
from pathlib import Path

import pytest

import channels_progress
from channels_progress.conf import DEFAULTS
from channels_progress.run import HEAD
from channels_progress.store import SCRIPT

ROOT = Path(channels_progress.__file__).parent.parent
PACKAGE = sorted(Path(channels_progress.__file__).parent.rglob("*.py"))
PURE = {"run.py", "legible.py", "estimate.py"}


def imports(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def package(module):
    return module.partition(".")[0]


def test_the_app_never_imports_the_site():
    named = {package(module) for path in PACKAGE for module in imports(path)}
    assert not named & {"HomeApp", "CeleryProgressbar", "tests"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_room_imports_no_framework(name):
    path = Path(channels_progress.__file__).with_name(name)
    pure = {f"channels_progress.{Path(name).stem}" for name in PURE}
    assert {package(m) for m in {*imports(path)} - pure} <= {*sys.stdlib_module_names}


def test_what_is_exported_is_all_there_is():
    tree = ast.parse(Path(channels_progress.__file__).read_text())
    imported = [
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(channels_progress.__all__) == sorted(imported)
    for name in channels_progress.__all__:
        getattr(channels_progress, name)


def test_every_room_is_on_the_map():
    rooms = Path(channels_progress.__file__).parent.glob("[a-z]*.py")
    described = (ROOT / "docs/ARCHITECTURE.md").read_text()
    assert [room.name for room in rooms if f"`{room.name}`" not in described] == []


def test_no_module_shadows_what_is_exported():
    modules = {path.stem for path in PACKAGE}
    assert not modules & set(channels_progress.__all__)


def test_the_script_and_the_value_object_agree_on_the_head():
    head = SCRIPT.partition("local HEAD = {")[2].partition("}")[0]
    assert tuple(name.strip(" '\n") for name in head.split(",")) == HEAD


def test_every_setting_is_documented():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    assert [name for name in DEFAULTS if f"`{name}`" not in text] == []


def test_nobody_reads_settings_at_import():
    """`conf.NAME` and `settings.NAME` stand in functions only."""
    early = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE
        for statement in ast.parse(path.read_text()).body
        for node in ast.walk(early_part(statement))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"conf", "settings"}
    ]
    assert early == []


def early_part(statement):
    """What of a module's statement runs when the module is imported."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return ast.Module(body=[], type_ignores=[])
    return statement
