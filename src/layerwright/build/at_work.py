"""Which image and stage a thread works on, so that what it moves can be told for them, however deep below it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")
_image: ContextVar[str] = ContextVar("image at work", default="")
_stage: ContextVar[str] = ContextVar("stage at work", default="")


def image_at_work() -> str:
    """Its name; "" where this thread works for no one image."""
    return _image.get()


def stage_at_work() -> str:
    """The stage of the image at work; "" for none."""
    return _stage.get()


@contextmanager
def working_on(image: str, stage: str = "") -> Iterator[None]:
    tokens = _image.set(image), _stage.set(stage)
    try:
        yield
    finally:
        _image.reset(tokens[0])
        _stage.reset(tokens[1])


@contextmanager
def working_on_stage(stage: str) -> Iterator[None]:
    token = _stage.set(stage)
    try:
        yield
    finally:
        _stage.reset(token)


def carried(function: Callable[[A], R]) -> Callable[[A], R]:
    """`function` for other threads, which work for the image of this one. A pool's threads know nothing of who hands them work."""
    context = copy_context()

    def call(argument: A) -> R:
        return context.copy().run(function, argument)

    return call
