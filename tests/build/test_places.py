from __future__ import annotations

import pytest

from layerwright.build.places import ContainersStore, Place, parse_place
from layerwright.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "path", "name"),
    [
        ("oci-archive:a.tar", "oci-archive", "a.tar", ""),
        ("oci-archive:/x/a.tar:app:1", "oci-archive", "/x/a.tar", "app:1"),
        ("oci-archive:-", "oci-archive", "-", ""),
        ("oci:dir", "oci", "dir", ""),
        ("oci:dir:example.com:5000/app:1", "oci", "dir", "example.com:5000/app:1"),
        ("docker-archive:a.tar", "docker-archive", "a.tar", ""),
        ("docker-archive:a.tar:app", "docker-archive", "a.tar", "app:latest"),
        ("docker-archive:-:example.com/app:1", "docker-archive", "-", "example.com/app:1"),
        ("docker://example.com/app:1", "docker", "", "example.com/app:1"),
        ("docker-daemon:app", "docker-daemon", "", "app:latest"),
        ("docker-daemon:example.com:5000/app", "docker-daemon", "", "example.com:5000/app:latest"),
        ("containers-storage:app:1", "containers-storage", "", "app:1"),
    ],
)
def test_a_place_is_read(text: str, kind: str, path: str, name: str) -> None:
    found = parse_place(text)
    assert (found.kind, found.path, found.name, found.text) == (kind, path, name, text)
    assert found.is_stream == (path == "-")


@pytest.mark.parametrize(
    ("text", "driver", "root", "run_root", "options"),
    [
        ("[overlay@/a]", "overlay", "/a", "", ()),
        ("[overlay@/a+/b]", "overlay", "/a", "/b", ()),
        ("[/a+/b]", "", "/a", "/b", ()),
        ("[vfs@]", "vfs", "", "", ()),
        ("[overlay@/a+/b:overlay.mountopt=nodev,x=y]", "overlay", "/a", "/b", ("overlay.mountopt=nodev", "x=y")),
    ],
)
def test_a_store_of_containers_storage_is_read(text: str, driver: str, root: str, run_root: str, options: tuple[str, ...]) -> None:
    found = parse_place(f"containers-storage:{text}example.com/app:1")
    store = ContainersStore(text=text, driver=driver, root=root, run_root=run_root, options=options)
    assert found == Place(text=f"containers-storage:{text}example.com/app:1", kind="containers-storage", name="example.com/app:1", store=store)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.tar",
        "tar:a",
        "oci-archive:",
        "oci-archive::app",
        "oci:",
        "oci:-",
        "oci:-:app",
        "oci:dir:not a tag",
        "docker:app",
        "docker://",
        "docker://UPPER",
        "docker-archive:a.tar:UPPER",
        f"docker-daemon:app@sha256:{'0' * 64}",
        "docker-daemon:",
        "containers-storage:[overlay@relative]app",
        "containers-storage:[overlay@/a+/b]",
        "containers-storage:[overlay@/a",
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_place(text)
    assert told.value.mend
    assert told.value.where == "--to"
