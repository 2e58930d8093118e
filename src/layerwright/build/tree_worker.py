"""The worker's program: the tasks that touch trees, each run in a child of the worker (see runtime.serve). Started as `python -m`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from layerwright.build.copied_upper import upper_of_copy
from layerwright.host.files import refuse_full
from layerwright.layers.compress import decompressed
from layerwright.layers.diff import read_upper
from layerwright.layers.index import BadIndex, FileIndex, encode_index, load_index
from layerwright.layers.scan import HashedStream
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import BadLayer, TarWriter
from layerwright.layers.tree import tree_matches
from layerwright.layers.unpack import CannotUnpack, unpack
from layerwright.oci.digest import BlobDigest, ChainId, DiffId
from layerwright.runtime import runner
from layerwright.runtime.bundle import Bind, Container
from layerwright.runtime.copied import copy_root, snapshot
from layerwright.runtime.rootfs import Overlay, UpperRefused, mounted
from layerwright.runtime.runtimes import Runtime, find_runtimes
from layerwright.runtime.serve import Caller, serve
from layerwright.runtime.syscalls import sync_file_system
from layerwright.storage.contract import MissingBlob
from layerwright.storage.local import LocalStore

Arguments = Mapping[str, Any]


class _Hash:
    """Takes a tar that is only wanted for its digest."""

    def write(self, piece: bytes, /) -> int:
        return len(piece)


def _index(store: LocalStore, diff_id: DiffId) -> FileIndex:
    try:
        found = load_index(diff_id, lambda part: store.index_part(diff_id, part))
    except BadIndex:
        found = None
    if found is None:
        raise MissingBlob(f"the file index of layer {diff_id} is gone", mend="build again")
    return found


def _stack(store: LocalStore, layers: Sequence[DiffId]) -> StackedIndex:
    return StackedIndex([_index(store, diff_id) for diff_id in layers])


def check_trees(arguments: Arguments, caller: Caller) -> list[str]:
    """Which of the trees (identity, layer, layers below if it stands on them) are what their indexes say; the others are gone afterwards."""
    good = []
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        for identity, layer, below in arguments["trees"]:
            path = store.tree_path(arguments["flavour"], ChainId(identity))
            if tree_matches(path, _index(store, layer), below=_stack(store, below) if below else None) is None:
                good.append(identity)
            else:
                store.discard_tree(arguments["flavour"], ChainId(identity))
    return good


def unpack_layer(arguments: Arguments, caller: Caller) -> str:
    """Make the tree of one layer; its path. Raises MissingBlob if the stored blob is damaged or holds another layer."""
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store, store.work() as work:
        made = os.path.join(work.path, "tree")
        os.mkdir(made, 0o755)
        source = BlobDigest(arguments["source"])
        try:
            with store.open_blob(source) as stream:
                hashed = HashedStream(decompressed(stream, arguments["media_type"]))
                unpack(cast(BinaryIO, hashed), made, below=_stack(store, arguments["below"]), lower_trees=arguments["lowers"])
                while hashed.read(1 << 20):
                    pass
        except (BadLayer, CannotUnpack):
            store.check_blob(source)
            raise
        if hashed.diff_id() != arguments["layer"]:
            store.forget_blob(arguments["layer"], source)
            raise MissingBlob(f"what is stored for layer {arguments['layer']} is another layer, {hashed.diff_id()}", mend="build again")
        sync_file_system(made)
        return store.adopt_tree(made, arguments["flavour"], ChainId(arguments["identity"]))


def run_commands(arguments: Arguments, caller: Caller) -> dict[str, Any]:
    """Run a stage's commands over its layers, and make what they changed a tree of the store, with its index."""
    work = arguments["work"]
    notices: list[str] = []
    binds = tuple(Bind(source=_made(source), to=to) for source, to in arguments["mounts"])
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        with _root(arguments["lowers"], work, notices) as (root, upper):
            container = Container(root=root, args=(), env=_env(arguments["env"]), network=arguments["network"], binds=binds)
            ended = runner.run_script(
                container,
                arguments["commands"],
                arguments["shell"],
                runtimes=_runtimes(arguments["runtime"], store),
                state_dir=_made(os.path.join(work, "state")),
                on_lines=lambda lines: caller([line.decode("utf-8", "replace") for line in lines]),
            )
            _remember_works(ended.runtime, store)
        failed = ended.failed
        done = {"status": ended.status, "command": failed.command if failed else None, "line": failed.line if failed else None, "notices": notices}
        if ended.status != 0:
            refuse_full(work)
            return done | {"layer": None, "size": 0}
        return done | _keep_upper(arguments, store, upper, ended.mount_points, notices)


def _keep_upper(arguments: Arguments, store: LocalStore, upper: str, mount_points: Sequence[bytes], notices: list[str]) -> dict[str, Any]:
    entries = read_upper(upper, _stack(store, arguments["layers"]), created_mount_points=mount_points, notice=notices.append)
    if not entries:
        return {"layer": None, "size": 0}
    writer = TarWriter(_Hash())
    for one in entries:
        writer.add(one)
    summary = writer.close()
    sync_file_system(upper)
    store.adopt_tree(upper, arguments["flavour"], summary.diff_id)
    store.put_index(summary.diff_id, encode_index(FileIndex(summary.diff_id, summary.entries, summary.texts)))
    return {"layer": summary.diff_id, "size": summary.size}


def run_image(arguments: Arguments, caller: Caller) -> int:
    """Run one container on the caller's own files; its exit status."""
    work = arguments["work"]
    uid, gid, groups = arguments["user"]
    notices: list[str] = []
    with LocalStore(arguments["home"]) as store, _root(arguments["lowers"], work, notices) as (root, _):
        container = Container(
            root=root,
            args=tuple(arguments["args"]),
            env=_env(arguments["env"]),
            cwd=arguments["cwd"],
            uid=uid,
            gid=gid,
            groups=tuple(groups),
            network=arguments["network"],
            terminal=arguments["terminal"],
        )
        first, second, third = caller.fds
        ended = runner.run(
            container,
            runtimes=_runtimes(arguments["runtime"], store),
            state_dir=_made(os.path.join(work, "state")),
            on_lines=lambda lines: None,
            files=(first, second, third),
        )
        _remember_works(ended.runtime, store)
        return ended.status


@contextmanager
def _root(lowers: Sequence[str], work: str, notices: list[str]) -> Iterator[tuple[str, str]]:
    """A writable root over `lowers`, and the directory that holds what was changed once the block has ended."""
    upper, scratch, root = (_made(os.path.join(work, name)) for name in ("upper", "overlay-work", "root"))
    try:
        with mounted(Overlay(lower=tuple(lowers), upper=upper, work=scratch, target=root)):
            yield root, upper
            return
    except UpperRefused as refused:
        notices.append(f"{refused.what}; the image is copied instead, which is slower")
    copy_root(lowers, root)
    before = snapshot(root)
    yield root, upper
    upper_of_copy(root, before, upper)


def _runtimes(preferred: str, store: LocalStore) -> tuple[Runtime, ...]:
    return find_runtimes(preferred or None, path=os.environ.get("PATH", ""), works=lambda key: store.memo_get(key) is not None)


def _remember_works(runtime: Runtime, store: LocalStore) -> None:
    if store.memo_get(runtime.key) is None:
        store.memo_put(runtime.key, {"works": True})


def _env(items: Sequence[str]) -> dict[str, str]:
    return {item.partition("=")[0]: item.partition("=")[2] for item in items}


def _made(path: str) -> str:
    os.makedirs(path, mode=0o755, exist_ok=True)
    return path


if __name__ == "__main__":
    serve({"check_trees": check_trees, "unpack": unpack_layer, "run_commands": run_commands, "run_image": run_image})
