"""A server that misbehaves on order, and clients that do not wait long for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from layerwright.registry.client import Registry
from layerwright.registry.options import RegistryOptions
from tests.registry.faulty import FaultyServer
from tests.registry.images import Connect, quick


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


@pytest.fixture
def storage() -> Iterator[FaultyServer]:
    """Another server: where blobs are kept, or where tokens are given."""
    with FaultyServer() as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, and closes them."""
    made = []

    def new(options: RegistryOptions) -> Registry:
        made.append(Registry(options))
        return made[-1]

    yield new
    for one in made:
        one.close()


@pytest.fixture
def client(connect: Connect) -> Registry:
    return connect(quick())
