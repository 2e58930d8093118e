from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from layerwright.errors import LayerwrightError
from layerwright.runtime import syscalls
from layerwright.runtime.rootfs import Mount, Overlay, UpperRefused, mount_plan
from layerwright.runtime.worker import Worker
from tests.runtime.conftest import traces


def plan(*lower: str, upper: str = "", work: str = "") -> tuple[Mount, ...]:
    return mount_plan(Overlay(lower=lower, upper=upper, work=work, target="/t"))


def test_two_trees_are_an_overlay() -> None:
    options = "redirect_dir=off,metacopy=off,index=off,xino=off,lowerdir={path},volatile,upperdir={path},workdir={path}"
    assert plan("/a", upper="/u", work="/w") == (Mount(source="overlay", kind="overlay", flags=syscalls.MS_NODEV, options=options, paths=("/a", "/u", "/w")),)


def test_without_an_upper_it_is_read_only() -> None:
    (mount,) = plan("/a", "/b")
    assert mount.flags & syscalls.MS_RDONLY
    assert mount.paths == ("/a", "/b")


def test_one_tree_is_bound() -> None:
    first, second = plan("/a")
    assert (first.source, first.flags) == ("/a", syscalls.MS_BIND)
    assert second.flags == syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_NODEV | syscalls.MS_RDONLY
    assert not plan(upper="/u", work="/w")[1].flags & syscalls.MS_RDONLY


def test_no_tree_is_an_empty_one() -> None:
    assert [mount.kind for mount in plan()] == ["tmpfs"]


def test_more_layers_than_linux_stacks_are_refused() -> None:
    with pytest.raises(LayerwrightError, match="501 layers"):
        plan(*map(str, range(501)))


def test_in_a_user_namespace_an_overlay_marks_with_user_attributes_and_a_single_tree_keeps_what_its_mount_forbids() -> None:
    (overlay,) = mount_plan(Overlay(lower=("/a", "/b"), target="/t", user_namespace=True))
    assert overlay.options.startswith("userxattr,redirect_dir=nofollow,")
    _, again = mount_plan(Overlay(lower=("/a",), target="/t", user_namespace=True))
    assert again.keeps_flags


def test_an_overlay_prints_what_it_is() -> None:
    assert str(Overlay(lower=("/a", "/b"), upper="/u", work="/w", target="/t")) == "overlay /t: lower=/a:/b upper=/u work=/w"


def overlay(directory: Path, layers: int, *, writable: bool = True) -> Overlay:
    """Layers with one file each and one that all have; the names need escapes in an option string."""
    trees = [directory / "a:b,c\\d" / f"layer {number}" for number in range(layers)]
    for number, tree in enumerate(trees):
        tree.mkdir(parents=True)
        (tree / f"of-{number}").touch()
    for name in ("upper", "work", "target"):
        (directory / f"{name}:,").mkdir()
    upper, work = (f"{directory}/upper:,", f"{directory}/work:,") if writable else ("", "")
    return Overlay(lower=tuple(map(str, trees)), upper=upper, work=work, target=f"{directory}/target:,")


@pytest.mark.needs_root
@pytest.mark.parametrize("layers", [0, 1, 2, 200, 500])
def test_what_is_written_goes_to_the_upper(worker: Worker, tmp_path: Path, layers: int) -> None:
    stacked = overlay(tmp_path, layers)
    assert worker.call("stack", stacked) == sorted(["written", *(f"of-{number}" for number in range(layers))])
    assert os.listdir(stacked.upper) == ["written"]
    assert traces(str(tmp_path)) == []


@pytest.mark.needs_root
@pytest.mark.parametrize("layers", [0, 1, 2, 500])
def test_without_an_upper_nothing_is_written(worker: Worker, tmp_path: Path, layers: int) -> None:
    stacked = overlay(tmp_path, layers, writable=False)
    assert worker.call("stack", stacked) == sorted(f"of-{number}" for number in range(layers))
    assert os.listdir(stacked.target) == []


@pytest.mark.needs_root
@pytest.mark.parametrize(("layers", "mode", "owner"), [(0, 0o755, 0), (2, 0o1711, 12)])
def test_the_root_directory_looks_as_the_tree_below_it(worker: Worker, tmp_path: Path, layers: int, mode: int, owner: int) -> None:
    stacked = overlay(tmp_path, layers)
    Path(stacked.upper).chmod(0o700)
    if layers:
        os.chown(stacked.lower[0], owner, owner)
        Path(stacked.lower[0]).chmod(mode)
    worker.call("stack", stacked)
    found = os.stat(stacked.upper)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, owner, owner)


@pytest.mark.needs_root
def test_an_upper_on_an_overlay_is_refused_by_name(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(UpperRefused) as refused:
        worker.call("stack_twice", overlay(tmp_path, 2))
    assert refused.value.where.endswith("/upper")
    assert "LAYERWRIGHT_HOME" in refused.value.mend


@pytest.mark.needs_root
def test_a_missing_layer_is_named(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(LayerwrightError) as missing:
        worker.call("stack", Overlay(lower=(str(tmp_path / "gone"), str(tmp_path)), target=str(tmp_path)))
    assert missing.value.where == str(tmp_path / "gone")
