"""Which paths the .gitattributes of a commit give to Git LFS: their blobs are pointers, not the files.

git itself matches the patterns, on an index that holds the commit's .gitattributes and nothing else (`check-attr --source` is newer than the git we
ask for). What the clone or the user adds in info/attributes or core.attributesFile does not count: it is not in the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layerwright.git.standin import StandIn, stand_in

NAME = b".gitattributes"


def is_attributes_file(path: bytes) -> bool:
    return path.endswith(NAME) and (path == NAME or path.endswith(b"/" + NAME))


def may_filter(contents: Iterable[bytes]) -> bool:
    """Whether any of these attribute files names a filter at all; most repositories stop here."""
    return any(b"filter" in content for content in contents)


def lfs_among(
    paths: Sequence[bytes], attributes: Iterable[tuple[bytes, int, str]], *, objects_directory: str, sha256: bool, env: Mapping[str, str]
) -> list[bytes]:
    """Those of `paths` with filter=lfs. `attributes`: path, mode and blob id of each attribute file; paths relative to their repository."""
    with stand_in(objects_directory, sha256=sha256, env=env) as git:
        git.run("update-index", "-z", "--index-info", stdin=b"".join([b"%o %s\t%s\0" % (mode, oid.encode(), path) for path, mode, oid in attributes]))
        return _asked(git, paths)


def _asked(git: StandIn, paths: Sequence[bytes]) -> list[bytes]:
    fields = git.run("check-attr", "--cached", "-z", "--stdin", "filter", stdin=b"".join([path + b"\0" for path in paths])).split(b"\0")
    return [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]
