"""Who may import whom: reads the imports of every module of src/layerwright and holds them against the table of rooms (docs/decisions/0001)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src"
PACKAGE = "layerwright"

LEAVES = {"errors", "globs", "limits"}  # everybody may import them; they import nothing of ours
VERSION = "__version__"  # a constant of the package, which is there before any module of it is loaded: everybody may read it
LOWER = {"build", "cleanup", "config", "explain", "git", "host", "layers", "oci", "registry", "runtime", "stages", "storage"}

CHOSEN_LATER = "what only the run knows"
MAY_CHOOSE_LATER = {"__init__", "cli"}  # they load by name what is asked for; the names stand in them as strings

# Room or top-level module -> what it may import besides itself and the leaves. A dotted name means that module only.
MAY_IMPORT: Mapping[str, set[str]] = {
    "errors": set(),
    "globs": set(),
    "limits": set(),
    "oci": set(),
    "host": set(),
    "config": {"oci"},
    "git": {"host", "oci"},
    "layers": {"host", "oci"},
    "runtime": {"host", "oci"},
    "registry": {"host", "oci"},
    "storage": {"registry", "host", "oci"},
    "stages": {"config.model", "git.values", "storage.records", "oci"},
    "build": {"stages", "config", "git", "storage", "registry", "layers", "runtime", "oci", "host"},
    "cleanup": {"config.model", "git", "storage", "oci"},
    "explain": {"build.plan", "stages", "storage", "oci"},
    "project": LOWER,
    "__init__": LOWER | {"project"},
    "cli": LOWER | {"project", "__init__"},
    "__main__": {"cli"},
}


@dataclass(frozen=True, slots=True)
class Import:
    """One module of ours that another one names. Names are without the package: "config.model", "errors", "__init__" for the package itself."""

    importer: str
    imported: str
    line: int
    at_start: bool  # runs when the importer is loaded: neither inside a function nor for the type checker only


def modules_of(sources: Path) -> dict[str, Path]:
    """Every module of the package by its name without the package; a room's own __init__ goes by the room's name."""
    root = sources / PACKAGE
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = [PACKAGE, *name.split(".")] if path.name == "__init__.py" and name != "__init__" else [PACKAGE, *name.split(".")][:-1]
    later = set(nodes_run_later(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr):
            at_start = isinstance(node, ast.Import | ast.ImportFrom) and node not in later
            yield from (Import(name, target, node.lineno, at_start) for target in targets_of(node, package, known))


def nodes_run_later(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            yield from ast.walk(node)


def targets_of(node: ast.AST, package: list[str], known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that one statement or call imports."""
    match node:
        case ast.Import(names=names):
            dotted = [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = ".".join(package[: len(package) - level + 1] + ([module] if module else [])) if level else module or ""
            dotted = [f"{base}.{alias.name}" if short(f"{base}.{alias.name}") in known else base for alias in names if (base, alias.name) != (PACKAGE, VERSION)]
        case ast.Constant(value=str() as text) if text.startswith(f"{PACKAGE}.") and short(text) in known:
            dotted = [text]  # a string that names a module is there to be imported by it
        case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
            if not isinstance(first, ast.Constant):
                yield CHOSEN_LATER
            return
        case _:
            return
    yield from dict.fromkeys(short(one) for one in dotted if one == PACKAGE or one.startswith(f"{PACKAGE}."))


def short(dotted: str) -> str:
    return dotted.removeprefix(PACKAGE).removeprefix(".") or "__init__"


def room_of(name: str) -> str:
    return name.partition(".")[0]


def allowed(one: Import) -> bool:
    own, target = room_of(one.importer), room_of(one.imported)
    if own == target:
        return True
    if one.imported == CHOSEN_LATER:
        return own in MAY_CHOOSE_LATER
    if own not in LEAVES and one.imported in LEAVES:
        return True
    return any(one.imported == door or one.imported.startswith(f"{door}.") for door in MAY_IMPORT[own])


def faults_of(sources: Path) -> list[str]:
    """Every import that the table forbids, every module outside its rooms, and every cycle; empty when all is well."""
    known = modules_of(sources)
    strangers = [f"{name}: {room_of(name)} is no room of the table" for name in known if room_of(name) not in MAY_IMPORT]
    found = [one for name, path in known.items() if room_of(name) in MAY_IMPORT for one in imports_of(name, path, known)]
    forbidden = [f"{one.importer}:{one.line}: {room_of(one.importer)} may not import {one.imported}" for one in found if not allowed(one)]
    return strangers + forbidden + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles_of(found)]


def cycles_of(found: list[Import]) -> list[tuple[str, ...]]:
    """Cycles among what modules import when they are loaded, each shown once."""
    graph: dict[str, list[str]] = {}
    for one in found:
        if one.at_start and one.importer != one.imported:
            graph.setdefault(one.importer, []).append(one.imported)
    done: set[str] = set()
    cycles = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            cycles.append((*way[way.index(name) :], name))
        elif name not in done:
            for target in graph.get(name, ()):
                visit(target, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return cycles


def test_every_import_goes_downwards() -> None:
    assert faults_of(SOURCES) == []


def test_the_table_names_every_room_and_allows_no_way_back() -> None:
    names = {room_of(name) for name in modules_of(SOURCES)}
    assert names <= MAY_IMPORT.keys()
    assert not any("cli" in doors for name, doors in MAY_IMPORT.items() if name != "__main__")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two rooms and the leaves, all well."""
    write(tmp_path, "__init__.py", "from layerwright import project\n")
    write(tmp_path, "project.py", "from layerwright.build.plan import plan\n")
    write(tmp_path, "errors.py", "")
    write(tmp_path, "globs.py", "import re\n")
    write(tmp_path, "oci/__init__.py", "from layerwright import __version__\n")
    write(tmp_path, "oci/digest.py", "from layerwright.errors import LayerwrightError\n")
    write(tmp_path, "config/__init__.py", "")
    write(tmp_path, "config/model.py", "from layerwright import globs\nfrom layerwright.oci import digest\n")
    write(tmp_path, "config/parse.py", "from .model import Config\n")
    write(tmp_path, "stages/__init__.py", "")
    write(tmp_path, "stages/key.py", "from layerwright.config import model\nfrom ..config.model import Config\n")
    write(tmp_path, "build/plan.py", "def plan():\n    import layerwright.stages.key\n")
    write(tmp_path, "cli/main.py", "import importlib\nfrom layerwright import project\nimportlib.import_module(project.name)\n")
    return tmp_path


def write(sources: Path, path: str, text: str) -> None:
    target = sources / PACKAGE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def test_a_good_tree_has_no_faults(tree: Path) -> None:
    assert faults_of(tree) == []


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("oci/bad.py", "import layerwright.config.model\n", "oci.bad:1: oci may not import config.model"),
        ("oci/bad.py", "from layerwright.config import model\n", "oci.bad:1: oci may not import config.model"),
        ("oci/bad.py", "from ..config.model import Config\n", "oci.bad:1: oci may not import config.model"),
        ("oci/bad.py", "from .. import config\n", "oci.bad:1: oci may not import config"),
        ("oci/bad.py", "def late():\n    from layerwright.build import plan\n", "oci.bad:2: oci may not import build.plan"),
        ("oci/bad.py", "if TYPE_CHECKING:\n    from layerwright.build import plan\n", "oci.bad:2: oci may not import build.plan"),
        ("oci/bad.py", "import importlib\nimportlib.import_module('layerwright.build.plan')\n", "oci.bad:2: oci may not import build.plan"),
        ("oci/bad.py", "import importlib\nimportlib.import_module(name)\n", "oci.bad:2: oci may not import what only the run knows"),
        ("oci/bad.py", "WHERE = {'plan': 'layerwright.build.plan'}\n", "oci.bad:1: oci may not import build.plan"),
        ("__init__.py", "WHERE = {'main': 'layerwright.cli.main'}\n", "__init__:1: __init__ may not import cli.main"),
        ("oci/bad.py", "from layerwright import __version__, project\n", "oci.bad:1: oci may not import project"),
        ("oci/bad.py", "import layerwright\n", "oci.bad:1: oci may not import __init__"),
        ("stages/bad.py", "from layerwright.config.parse import parse\n", "stages.bad:1: stages may not import config.parse"),
        ("stages/bad.py", "from layerwright.config import Config\n", "stages.bad:1: stages may not import config"),
        ("config/bad.py", "from layerwright.git import values\n", "config.bad:1: config may not import git"),
        ("globs.py", "from layerwright.errors import LayerwrightError\n", "globs:1: globs may not import errors"),
        ("project.py", "from layerwright.cli.main import main\n", "project:1: project may not import cli.main"),
        ("build/bad.py", "from layerwright.cli.main import main\n", "build.bad:1: build may not import cli.main"),
        ("utils/bad.py", "", "utils.bad: utils is no room of the table"),
        ("config/model.py", "from layerwright.config import parse\n", "cycle: config.model -> config.parse -> config.model"),
    ],
)
def test_a_bad_tree_is_told(tree: Path, path: str, text: str, fault: str) -> None:
    write(tree, path, text)
    assert fault in faults_of(tree)


def test_an_import_inside_a_function_makes_no_cycle(tree: Path) -> None:
    write(tree, "config/model.py", "def late():\n    from layerwright.config import parse\n")
    assert faults_of(tree) == []
