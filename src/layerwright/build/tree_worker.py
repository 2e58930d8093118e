"""The worker's program: the tasks that touch trees, each run in a child of the worker (see runtime.serve). Started as `python -m`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

from layerwright.build.copied_upper import upper_of_copy
from layerwright.build.retar import write_again
from layerwright.host.files import refuse_full, remove_tree
from layerwright.layers.compress import decompressed
from layerwright.layers.devices import device_paths
from layerwright.layers.diff import read_upper
from layerwright.layers.index import BadIndex, FileIndex, encode_index, load_index
from layerwright.layers.scan import HashedStream
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import BadLayer, TarWriter
from layerwright.layers.tree import tree_content_matches, tree_matches
from layerwright.layers.unpack import CannotUnpack, unpack
from layerwright.limits import PATH_BYTES, Limits
from layerwright.oci.digest import BlobDigest, ChainId, DiffId
from layerwright.runtime import runner
from layerwright.runtime.bundle import TTY_GROUP, Bind, Container
from layerwright.runtime.copied import copy_root, snapshot
from layerwright.runtime.flavours import Flavour, decoded, holds
from layerwright.runtime.rootfs import Overlay, UpperRefused, mounted
from layerwright.runtime.runtimes import Runtime, find_runtimes
from layerwright.runtime.script import Left
from layerwright.runtime.serve import Caller, serve
from layerwright.runtime.syscalls import sync_file_system
from layerwright.storage.contract import MissingBlob
from layerwright.storage.disk_use import disk_use
from layerwright.storage.local import LocalStore
from layerwright.storage.uses import layer_use

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
            if tree_matches(path, _index(store, layer), below=_stack(store, below) if below else None, user_xattr=caller.flavour.user_namespace) is None:
                good.append(identity)
            else:
                store.discard_tree(arguments["flavour"], ChainId(identity))
    return good


def wrong_trees(arguments: Arguments, caller: Caller) -> list[tuple[str, str]]:
    """What is wrong with trees, given as to `check_trees`; every file is read, and nothing removed."""
    found = []
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        for identity, layer, below in arguments["trees"]:
            path = store.tree_path(arguments["flavour"], ChainId(identity))
            stack = _stack(store, below) if below else None
            wrong = tree_content_matches(path, _index(store, layer), below=stack, user_xattr=caller.flavour.user_namespace)
            if wrong is not None and os.path.isdir(path):
                found.append((identity, wrong))
    return found


def unpack_layer(arguments: Arguments, caller: Caller) -> str:
    """Make the tree of one layer, from a blob of the store, or as it comes through a file of the caller; its path.

    Raises MissingBlob if the blob is damaged or holds another layer.
    """
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store, store.work() as work:
        made = os.path.join(work.path, "tree")
        os.mkdir(made, 0o755)
        source = BlobDigest(arguments["source"])
        try:
            with store.open_blob(source) if source else open(caller.fds[0], "rb", closefd=False) as stream:
                limits = Limits(**arguments["limits"])
                hashed = HashedStream(decompressed(stream, arguments["media_type"], most=limits.layer_bytes))
                below = _stack(store, arguments["below"])
                unpack(cast(BinaryIO, hashed), made, below=below, lower_trees=arguments["lowers"], user_xattr=caller.flavour.user_namespace, limits=limits)
                while hashed.read(1 << 20):
                    pass
        except (BadLayer, CannotUnpack):
            if source:
                store.check_blob(source)
            raise
        if hashed.diff_id != arguments["layer"]:
            if source:
                store.forget_blob(arguments["layer"], source)
            raise MissingBlob(f"what is stored for layer {arguments['layer']} is another layer, {hashed.diff_id}", mend="build again")
        sync_file_system(made)
        return store.adopt_tree(made, arguments["flavour"], ChainId(arguments["identity"]))


def run_commands(arguments: Arguments, caller: Caller) -> dict[str, Any]:
    """Run a stage's commands over its layers, and make what they changed a tree of the store, with its index."""
    work = arguments["work"]
    notices: list[str] = []
    binds = tuple(Bind(source=_made(source), to=to) for source, to in arguments["mounts"])
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        with _root(arguments["lowers"], work, notices, caller.flavour) as (root, upper):
            container = Container(
                root=root,
                args=(),
                env=_env(arguments["env"]),
                network=arguments["network"],
                binds=binds,
                masked=_masked(arguments, root, caller.flavour),
                **_confines(caller),
            )
            ended = runner.run_script(
                container,
                arguments["commands"],
                arguments["shell"],
                runtimes=_runtimes(arguments["runtime"], store),
                state_dir=_made(os.path.join(work, "state")),
                on_lines=lambda lines: caller([line.decode("utf-8", "replace") for line in lines]),
                remembers=arguments["keeps"],
            )
            _remember_works(ended.runtime, store)
        failed = ended.failed
        done: dict[str, Any] = {"status": ended.status, "notices": notices, "runtime": ended.runtime.path, "left": None}
        done |= {"command": failed.command if failed else None, "line": failed.line if failed else None}
        if ended.status != 0:
            refuse_full(work)
            return done | {"layer": None, "size": 0, "left": _left(work, ended.left) if arguments["keeps"] else None}
        return done | _keep_upper(arguments, store, upper, ended.mount_points, notices, caller.flavour)


def _left(work: str, shell: Left) -> dict[str, Any]:
    """What failed commands wrote, moved to a directory of its own and synced: it is to survive what ends this build."""
    path = _made(os.path.join(work, "kept"))
    for name in ("upper", "tmp_dir"):
        if os.path.isdir(os.path.join(work, name)):
            os.rename(os.path.join(work, name), os.path.join(path, name))
    sync_file_system(path)
    return {"path": path, "size_bytes": disk_use(path), "cwd": shell.cwd, "exports": shell.exports}


def _keep_upper(arguments: Arguments, store: LocalStore, upper: str, mount_points: Sequence[bytes], notices: list[str], flavour: Flavour) -> dict[str, Any]:
    below = _stack(store, arguments["layers"])
    entries = read_upper(upper, below, created_mount_points=mount_points, user_xattr=flavour.user_namespace, notice=notices.append)
    if not entries:
        return {"layer": None, "size": 0}
    writer = TarWriter(_Hash())
    for one in entries:
        writer.add(one)
    summary = writer.close()
    sync_file_system(upper)
    store.uses.add(layer_use(summary.diff_id))  # an equal tree may be there, which nothing needs so far
    store.adopt_tree(upper, arguments["flavour"], summary.diff_id)
    store.put_index(summary.diff_id, encode_index(FileIndex(summary.diff_id, summary.entries, summary.texts)))
    return {"layer": summary.diff_id, "size": summary.size}


def run_image(arguments: Arguments, caller: Caller) -> int:
    """Run one container on the caller's own files; its exit status. What it changes is dropped, but for what is in the sources of its mounts.

    A mount (source, to, below) whose `below` is not "" shows that directory, which stays as it is, with changes going elsewhere.
    """
    work = arguments["work"]
    uid, gid, groups = arguments["user"]
    notices: list[str] = []
    with LocalStore(arguments["home"]) as store, ExitStack() as stack:
        root, _ = stack.enter_context(_root(arguments["lowers"], work, notices, caller.flavour))
        container = Container(
            root=root,
            args=tuple(arguments["args"]),
            env=_env(arguments["env"]),
            cwd=arguments["cwd"],
            uid=uid,
            gid=gid,
            groups=tuple(groups),
            binds=tuple(_binds(stack, work, arguments["mounts"], caller.flavour)),
            network=arguments["network"],
            terminal=arguments["terminal"],
            masked=_masked(arguments, root, caller.flavour),
            **_confines(caller),
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


def _binds(stack: ExitStack, work: str, mounts: Sequence[tuple[str, str, str]], flavour: Flavour) -> Iterator[Bind]:
    """Mounts (source, to, below): `source` itself, or until `stack` ends a writable view of `below`."""
    for number, (source, to, below) in enumerate(mounts):
        if below:
            source, _ = stack.enter_context(_root([below], _made(os.path.join(work, f"mount{number}")), [], flavour))
        yield Bind(source=_made(source), to=to)


def remove(arguments: Arguments, caller: Caller) -> tuple[str, ...]:
    """Remove what may belong to mapped users; what had to stay, behind mount points."""
    return remove_tree(arguments["path"])


def measure(arguments: Arguments, caller: Caller) -> int:
    """Bytes that a tree takes on the disk, directories included that others may not read."""
    return disk_use(arguments["path"])


def discard(arguments: Arguments, caller: Caller) -> None:
    """Make a tree a miss, and remove it."""
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        store.discard_tree(arguments["flavour"], ChainId(arguments["identity"]))


def write_tar(arguments: Arguments, caller: Caller) -> str:
    """Send the tar of an unpacked layer of ours in pieces; what is wrong with it, "" if nothing is."""
    with LocalStore(arguments["home"], flavour=arguments["flavour"]) as store:
        layer: DiffId = arguments["layer"]
        return write_again(store.tree_path(arguments["flavour"], layer), _index(store, layer), lambda piece: caller(bytes(piece)))


def _confines(caller: Caller) -> dict[str, Any]:
    """What a container has to do without, for who starts it. Raises MachineLacks where it could not start at all."""
    caller.need_proc()
    return {"user_namespace": caller.flavour.user_namespace, "tty_group": holds(caller.flavour.gids, TTY_GROUP)}


def _masked(arguments: Arguments, root: str, flavour: Flavour) -> tuple[str, ...]:
    """The device nodes of the image. A user namespace has none: nobody could make them there."""
    return device_paths(root, arguments["lowers"]) if arguments["devices"] and not flavour.user_namespace else ()


@contextmanager
def _root(lowers: Sequence[str], work: str, notices: list[str], flavour: Flavour) -> Iterator[tuple[str, str]]:
    """A writable root over `lowers`, and the directory that holds what was changed once the block has ended."""
    upper, scratch, root = (_made(os.path.join(work, name)) for name in ("upper", "overlay-work", "root"))
    try:
        with mounted(Overlay(lower=tuple(lowers), upper=upper, work=scratch, target=root, user_namespace=flavour.user_namespace)):
            yield root, upper
            return
    except UpperRefused as refused:
        notices.append(f"{refused.what}; the image is copied instead, which is slower")
    copy_root(lowers, root)
    before = snapshot(root)
    # Onto itself, for what such a mount does not allow: device nodes that the image brings along are not opened here either.
    with mounted(Overlay(lower=(), upper=root, work=scratch, target=root, user_namespace=flavour.user_namespace)):
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
    sys.setrecursionlimit(PATH_BYTES * 4)  # a tree is as deep as a path may have names, and os.walk and shutil.rmtree call themselves for each level
    tasks = (check_trees, wrong_trees, run_commands, run_image, remove, measure, discard, write_tar)
    serve({"unpack": unpack_layer} | {task.__name__: task for task in tasks}, flavour=decoded(sys.argv[1]))
