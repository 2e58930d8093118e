"""Where everything of the local store lies. Only this module joins storage paths.

$LAYERWRIGHT_HOME                       default: $XDG_DATA_HOME/layerwright, else ~/.local/share/layerwright
  blobs/sha256/<2>/<64>                 immutable bytes: manifests, configs, git states, layers as stored or pulled (a tar under its diff id)
  trees.<flavour>/<64>/                 one unpacked layer, an overlay lower directory; by diff id, or by chain id when it needed the layers below
  indexes/<64 of diff id>.<part>        its file index: "skeleton", "files", "digests"; sealed
  layers/<64 of diff id>.json           the compressed blobs known for a layer, and where it can be fetched from; sealed
  records/stage/<2>/<56>.json           a stage, by its digest; sealed; its modification time is the last use
  records/image/<2>/<56>.json           a finished image, by its content digest; likewise
  images/<32>-<platform>.json           an image pulled or loaded under a reference; sealed
  memo/<64>.json                        a hint under a key; sealed; may be deleted at any time
  mounts/<project>/<slug>/              build_dir mounts
  locks/<name>.lock                     held while a digest is built
  introspect/<id>/                      the state of a stage, kept to be looked into: state.json (sealed), and of a failed one what its commands left
  gate                                  locked for a moment by whoever notes a use, and by a clean-up that removes
  work/<random>/                        a build in progress, or files being written; holds a lock on itself until its last process is gone.
                                        In that of a process, the file "uses" says what it uses: see storage.uses
  key                                   32 random bytes of this store, for hashes that nobody else should be able to repeat
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

from layerwright.errors import UsageError

INDEX_PARTS = ("skeleton", "files", "digests")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NOT_IN_SLUG = r"[^A-Za-z0-9._-]+"


def default_home(env: Mapping[str, str]) -> str:
    """Where the store is for a process with this environment. Raises UsageError."""
    if chosen := env.get("LAYERWRIGHT_HOME"):
        return os.path.abspath(chosen)
    share = env.get("XDG_DATA_HOME", "")
    if not os.path.isabs(share):  # the XDG base directory specification: a relative path is to be ignored
        home = env.get("HOME", "")
        if not os.path.isabs(home):
            lacking = f"HOME is {home!r}, which does not begin with /" if home else "HOME is not set"
            raise UsageError(f"no place for the store: {lacking}", mend="set LAYERWRIGHT_HOME to a directory of yours")
        share = os.path.join(home, ".local", "share")
    return os.path.join(share, "layerwright")


class StorePaths:
    """The paths below one store's `home`. Names that come from outside are asserted to be digests or plain names."""

    __slots__ = ("gate", "home", "images", "introspect", "key", "memos", "mounts", "work")

    def __init__(self, home: str) -> None:
        self.home = os.path.abspath(home)
        self.work = os.path.join(self.home, "work")
        self.gate = os.path.join(self.home, "gate")
        self.images = os.path.join(self.home, "images")
        self.memos = os.path.join(self.home, "memo")
        self.introspect = os.path.join(self.home, "introspect")
        self.mounts = os.path.join(self.home, "mounts")
        self.key = os.path.join(self.home, "key")

    def blob(self, digest: str) -> str:
        name = _hex(digest)
        return f"{self.home}/blobs/sha256/{name[:2]}/{name}"

    def tree(self, flavour: str, identity: str) -> str:
        assert re.fullmatch(_NAME, flavour), flavour
        return f"{self.home}/trees.{flavour}/{_hex(identity)}"

    def index(self, diff_id: str, part: str) -> str:
        assert part in INDEX_PARTS, part
        return f"{self.home}/indexes/{_hex(diff_id)}.{part}"

    def layer(self, diff_id: str) -> str:
        return f"{self.home}/layers/{_hex(diff_id)}.json"

    def record(self, kind: str, digest: str) -> str:
        assert kind in ("stage", "image"), kind
        assert len(digest) == 56, digest
        assert digest.isalnum(), digest
        return f"{self.home}/records/{kind}/{digest[:2]}/{digest}.json"

    def records(self, kind: str) -> str:
        assert kind in ("stage", "image"), kind
        return f"{self.home}/records/{kind}"

    def image(self, reference: str, platform: str) -> str:
        return f"{self.images}/{hashlib.sha256(reference.encode()).hexdigest()[:32]}-{re.sub(_NOT_IN_SLUG, '-', platform)}.json"

    def memo(self, key: str) -> str:
        return f"{self.memos}/{hashlib.sha256(key.encode()).hexdigest()}.json"

    def kept_state(self, state_id: str) -> str:
        assert re.fullmatch(_NAME, state_id), state_id
        return f"{self.introspect}/{state_id}"

    def lock(self, name: str) -> str:
        slug = name if re.fullmatch(_NAME, name) and len(name) <= 128 else hashlib.sha256(name.encode()).hexdigest()
        return f"{self.home}/locks/{slug}.lock"

    def mount(self, project: str, to: str) -> str:
        """Of the build_dir mount of `project` at the path `to` in its images; readable, and another for every other `to`."""
        slug = re.sub(_NOT_IN_SLUG, "-", to).strip("-.")[:48]
        place = project_folder(project)
        return f"{self.mounts}/{place}/{slug}-{hashlib.sha256(to.encode()).hexdigest()[:12]}"


def project_folder(project: str) -> str:
    """The name of a project's folder among the mounts."""
    return re.sub(_NOT_IN_SLUG, "-", project).strip("-.") or "-"


def _hex(digest: str) -> str:
    """What follows "sha256:"; cheaper than a full check, and enough to be a plain file name."""
    assert digest.startswith("sha256:"), digest
    name = digest[7:]
    assert len(name) == 64, digest
    assert name.isalnum(), digest
    return name
