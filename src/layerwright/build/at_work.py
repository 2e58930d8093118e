"""Which image a thread works on, so that what it moves can be told for that image, however deep below it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")
_image: ContextVar[str] = ContextVar("image at work", default="")


def image_at_work() -> str:
    """Its name; "" where this thread works for no one image."""
    return _image.get()


@contextmanager
def working_on(image: str) -> Iterator[None]:
    token = _image.set(image)
    try:
        yield
    finally:
        _image.reset(token)


def carried(function: Callable[[A], R]) -> Callable[[A], R]:
    """`function` for other threads, which work for the image of this one. A pool's threads know nothing of who hands them work."""
    image = image_at_work()

    def call(argument: A) -> R:
        with working_on(image):
            return function(argument)

    return call
