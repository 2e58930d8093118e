from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwright.errors import LayerwrightError
from layerwright.runtime.bundle import Bind, Container
from layerwright.runtime.mount_points import made_mount_points, mount_points, remove_mount_points, resolve_in_root

ALWAYS = (b"proc", b"dev", b"sys", b"etc", b"etc/hosts", b"etc/resolv.conf")


def container(root: Path, *binds: Bind) -> Container:
    return Container(root=str(root), args=("/bin/true",), binds=binds)


@pytest.mark.parametrize(
    ("links", "path", "leads_to"),
    [
        ({}, "/a/b/../c", "a/c"),
        ({}, "/../../a", "a"),
        ({}, "/", ""),
        ({"bin": "usr/bin"}, "/bin/sh", "usr/bin/sh"),
        ({"lib": "/usr/lib"}, "/lib/x", "usr/lib/x"),
        ({"out": "/../../../tmp"}, "/out/x", "tmp/x"),
        ({"one": "two", "two": "three"}, "/one", "three"),
        ({"up": "../.."}, "/up/x", "x"),
    ],
)
def test_paths_are_resolved_within_the_root(tmp_path: Path, links: dict[str, str], path: str, leads_to: str) -> None:
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert resolve_in_root(str(tmp_path), path) == leads_to


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(LayerwrightError, match="loop"):
        resolve_in_root(str(tmp_path), "/a/x")


def test_what_the_image_lacks_is_told_parents_first(tmp_path: Path) -> None:
    assert mount_points(container(tmp_path)) == ALWAYS
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").touch()
    (tmp_path / "proc").mkdir()
    assert mount_points(container(tmp_path)) == (b"dev", b"sys", b"etc/resolv.conf")


def test_mount_points_lead_through_links_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    expected = (b"run", b"run/systemd", b"run/systemd/resolve", b"run/systemd/resolve/stub-resolv.conf")
    assert tuple(path for path in mount_points(container(tmp_path)) if path.startswith(b"run")) == expected


def test_binds_below_dev_leave_no_trace(tmp_path: Path) -> None:
    assert mount_points(container(tmp_path, Bind(source=str(tmp_path), to="/dev/x/y"))) == ALWAYS


def test_they_are_gone_afterwards_and_no_time_has_changed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for path in (root / "etc", root):
        os.utime(path, ns=(5, 5))
    with made_mount_points(container(root, Bind(source=str(tmp_path), to="/var/cache/x"), Bind(source="/dev/null", to="/run/secrets/y"))):
        assert (root / "var/cache/x").is_dir()
        assert (root / "run/secrets/y").is_file()
        assert root.stat().st_mtime_ns == (root / "etc").stat().st_mtime_ns == 5
    assert os.listdir(root) == ["etc"]
    assert root.stat().st_mtime_ns == (root / "etc").stat().st_mtime_ns == 5


def test_what_a_command_put_there_stays(tmp_path: Path) -> None:
    with made_mount_points(container(tmp_path, Bind(source=str(tmp_path), to="/var/cache/x"))):
        (tmp_path / "etc/passwd").touch()
        (tmp_path / "var/cache/x").rmdir()
    assert sorted(os.listdir(tmp_path)) == ["etc"]
    assert os.listdir(tmp_path / "etc") == ["passwd"]


def test_a_link_put_in_the_way_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to(outside)
    remove_mount_points(str(root), ["etc", "etc/hosts"])
    assert (outside / "hosts").exists()
