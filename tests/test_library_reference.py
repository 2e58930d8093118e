"""docs/library.md against the code: every public name is there, every signature shown is right; and what is public can be pickled."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import layerwright
from layerwright.build.events import Event
from layerwright.errors import LayerwrightError

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"```pyi\n(.*?)```", PAGE, re.DOTALL)
MADE_BY = {"open_project": "Project", "open_images": "BaseImages"}  # shown as functions, which is how they are called


def shown() -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for block in BLOCKS:
        for node in ast.parse(block).body:
            assert isinstance(node, ast.ClassDef | ast.FunctionDef), ast.unparse(node)
            yield node


def source_of(name: str) -> ast.ClassDef | ast.FunctionDef:
    """The definition in the code, as it is written."""
    tree = ast.parse(inspect.getsource(importlib.import_module(layerwright._WHERE[name])))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)


def called(function: ast.FunctionDef, *, result: str = "") -> str:
    """Arguments and result of a function, as text; of a constructor what it is called with."""
    arguments = function.args
    if result:
        arguments = ast.parse(f"def f({ast.unparse(arguments)}): ...").body[0].args  # type: ignore[attr-defined]
        del arguments.args[0]
    return f"({ast.unparse(arguments)}) -> {result or ast.unparse(function.returns or ast.Constant(None))}"


def members(definition: ast.ClassDef) -> dict[str, str]:
    found = {}
    for node in definition.body:
        if isinstance(node, ast.FunctionDef):
            is_property = any(ast.unparse(one) == "property" for one in node.decorator_list)
            found[node.name] = f"{'property ' if is_property else ''}{called(node)}"
        elif isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = ast.unparse(node).partition(": ")[2]
    return found


@pytest.mark.parametrize("name", [name for name in layerwright.__all__ if name != "__version__"])
def test_every_public_name_is_on_the_page_and_where_it_says(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)
    assert getattr(layerwright, name) is getattr(importlib.import_module(layerwright._WHERE[name]), name)
    assert name in dir(layerwright)


def test_every_signature_on_the_page_is_right() -> None:
    for node in shown():
        if node.name in MADE_BY:
            definition = source_of(MADE_BY[node.name])
            init = next(one for one in definition.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
            assert called(node) == called(init, result=MADE_BY[node.name]), node.name  # type: ignore[arg-type]
        elif isinstance(node, ast.FunctionDef):
            assert called(node) == called(source_of(node.name)), node.name  # type: ignore[arg-type]
        else:
            code = members(source_of(node.name))  # type: ignore[arg-type]
            for member, text in members(node).items():
                assert code.get(member) == text, f"{node.name}.{member}"


def test_every_field_of_a_public_value_is_shown() -> None:
    """Methods may be left out, fields not."""
    for node in shown():
        if isinstance(node, ast.ClassDef):
            fields = {name for name, text in members(source_of(node.name)).items() if "->" not in text}  # type: ignore[arg-type]
            assert fields <= members(node).keys(), node.name


def test_every_event_and_no_other_is_public() -> None:
    assert {one.__name__ for one in get_args(Event)} <= set(layerwright.__all__)
    assert {one.__name__ for one in get_args(Event)} <= {node.name for node in shown()}


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        layerwright.nothing  # noqa: B018


ERRORS: list[LayerwrightError] = [
    layerwright.UsageError("what", where="where", mend="mend"),
    layerwright.StageFailedError("what", where="where", mend="mend", log="log", states=("a",)),
    layerwright.ConfigError([layerwright.Fault(layerwright.Position("werf.yaml", 1, 2), "what", "mend")]),
    layerwright.RegistryError("what", where="where", tries=3),
    layerwright.DiskFull("what"),
    layerwright.Cancelled("what"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled(error: LayerwrightError) -> None:
    again: Any = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_values_can_be_pickled() -> None:
    position = layerwright.Position("werf.yaml", 1, 2)
    stage = layerwright.StageReport(name="setup", digest="d", commit="c", created_ms=1, size_bytes=2, rebuilt=True, seconds=0.5)
    values = [layerwright.BuildOptions(parallel=3), layerwright.Warned("text", position), stage, layerwright.Introspect(error=True)]
    assert pickle.loads(pickle.dumps(values)) == values
    assert "setup" in repr(stage)
