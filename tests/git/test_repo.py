from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.git.objects import ObjectMissing
from layerwright.git.repo import Repo, open_repo
from layerwright.git.values import EXECUTABLE, FILE, SYMLINK, BlobId, CommitId, TreeEntry
from tests.git.repositories import ENV, Repositories
from tests.support.project import Project

NAMES = [b"with space", b"new\nline", b'tab\t"quote"', b"\xff\xfe not utf-8", "ünïcödé".encode(), b"-dash", b":(top)x", b"*?[x]", b"a 100644 blob\tx"]


@pytest.fixture
def project(repositories: Repositories) -> Project:
    """Two commits: what is changed, added and removed by the second is in the names."""
    project = repositories.new()
    project.write("a.txt", "a")
    project.write("a/inner", "inner")
    project.write("a0", "after the directory in byte order")
    project.write("run.sh", "#!/bin/sh\n", executable=True)
    project.write("empty", "")
    project.link("link", "a/inner")
    for name in NAMES:
        with open(os.path.join(os.fsencode(project.path), b"a", name), "wb") as file:
            file.write(name)
    project.commit()
    return project


@pytest.fixture
def repo(project: Project) -> Iterator[Repo]:
    with open_repo(str(project.path), env=ENV) as repo:
        yield repo


def listed(repo: Repo, scope: bytes = b"") -> dict[bytes, int]:
    return {entry.path: entry.mode for entry in repo.list_tree(repo.head().id, scope)}


def test_a_listing_has_every_file_with_its_mode_sorted_by_bytes(repo: Repo) -> None:
    inner = {b"a/" + name: FILE for name in [b"inner", *NAMES]}
    expected = {b"a.txt": FILE, b"a0": FILE, b"run.sh": EXECUTABLE, b"empty": FILE, b"link": SYMLINK, **inner}
    assert listed(repo) == expected
    assert list(listed(repo)) == sorted(expected)


@pytest.mark.parametrize("scope", [b"a", b"/a/"])
def test_a_scope_is_a_path_and_what_is_below_it_not_a_prefix(repo: Repo, scope: bytes) -> None:
    assert listed(repo, scope).keys() == {b"a/" + name for name in [b"inner", *NAMES]}


@pytest.mark.parametrize("name", NAMES)
def test_a_scope_may_be_one_file_of_any_name(repo: Repo, name: bytes) -> None:
    assert listed(repo, b"a/" + name) == {b"a/" + name: FILE}


@pytest.mark.parametrize("scope", [b"none", b"a/none", b"a.txt/x", b"link/x", b"../x"])
def test_a_scope_that_names_nothing_is_empty(repo: Repo, scope: bytes) -> None:
    assert listed(repo, scope) == {}


def test_the_index_and_the_work_tree_do_not_enter(project: Project) -> None:
    project.write("a.txt", "changed")
    project.write("staged", "x")
    project.git("add", "staged")
    project.write("untracked", "x")
    with open_repo(str(project.path), env=ENV) as repo:
        assert b"staged" not in listed(repo)
        assert b"untracked" not in listed(repo)
        assert repo.read_file(repo.head().id, b"a.txt") == b"a"


def test_attributes_and_settings_that_convert_do_not_change_contents(project: Project) -> None:
    project.write(".gitattributes", "lines text eol=crlf ident working-tree-encoding=UTF-16\n")
    project.git("config", "core.autocrlf", "true")
    project.write("lines", b"one\r\ntwo $Id$\r\n".decode().encode("utf-16"))
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        assert repo.read_file(repo.head().id, b"lines") == b"one\ntwo $Id$\n"


def test_contents_come_in_the_order_asked_for_with_repeats(repo: Repo) -> None:
    entries = [entry for entry in repo.list_tree(repo.head().id) for _ in range(200)]
    read = list(repo.read_blobs(entries))
    assert [entry for entry, _ in read] == entries
    contents = dict(read)
    by_path = {entry.path: content for entry, content in contents.items()}
    assert by_path[b"link"] == b"a/inner"
    assert by_path[b"empty"] == b""
    assert all(by_path[b"a/" + name] == name for name in NAMES)


def test_reading_that_is_broken_off_does_not_disturb_the_next(repo: Repo) -> None:
    entries = repo.list_tree(repo.head().id) * 50
    for _ in range(3):
        reading = repo.read_blobs(entries)
        next(reading)
        del reading
    with pytest.raises(RuntimeError), repo.open_blob(entries[0]):
        raise RuntimeError
    assert repo.read_file(repo.head().id, b"a.txt") == b"a"
    assert len(list(repo.read_blobs(entries))) == len(entries)


def test_one_may_read_while_reading(repo: Repo) -> None:
    entries = repo.list_tree(repo.head().id)
    for entry, content in repo.read_blobs(entries):
        with repo.open_blob(entry) as (size, stream):
            assert (size, stream.read()) == (len(content), content)


def test_sizes_are_by_repository_and_id(repo: Repo) -> None:
    entries = repo.list_tree(repo.head().id) * 40
    sizes = repo.blob_sizes(entries)
    assert sizes == {(b"", entry.oid): len(content) for entry, content in repo.read_blobs(entries)}


def test_nothing_asked_nothing_started(repo: Repo) -> None:
    assert list(repo.read_blobs([])) == []
    assert repo.blob_sizes([]) == {}
    assert repo.lfs_paths(repo.head().id, []) == ()


def test_a_missing_blob_is_named(repo: Repo) -> None:
    entry = TreeEntry(b"x", FILE, BlobId("1" * 40))
    with pytest.raises(ObjectMissing, match="1111"):
        list(repo.read_blobs([entry]))
    with pytest.raises(ObjectMissing, match="1111"):
        repo.blob_sizes([entry])
    with pytest.raises(ObjectMissing, match="1111"), repo.open_blob(entry):
        pass
    assert repo.read_file(repo.head().id, b"a.txt") == b"a"


@pytest.mark.parametrize(
    ("read", "expected"),
    [(-1, 40 << 20), (0, 0), (10, 10), ((40 << 20) - 1, (40 << 20) - 1)],
)
def test_a_large_blob_is_streamed_and_may_be_left_unread(project: Project, read: int, expected: int) -> None:
    project.write("large", os.urandom(1 << 20) * 40)
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        (entry,) = repo.list_tree(repo.head().id, b"large")
        with repo.open_blob(entry) as (size, stream):
            assert size == 40 << 20
            assert len(stream.read(read)) == expected
        assert repo.read_file(repo.head().id, b"a.txt") == b"a"


def anonymous_memory_bytes(pid: int) -> int:
    """What a process holds of its own; mapped files do not count."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


@pytest.mark.slow
def test_neither_git_nor_we_hold_a_packed_blob_whole(project: Project) -> None:
    piece = os.urandom(1 << 20)
    with open(project.path / "large", "wb") as out:
        for _ in range(256):
            out.write(piece)
    project.git("config", "core.bigFileThreshold", "16m")  # or it would be stored loose
    project.git("config", "core.compression", "0")
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        (entry,) = repo.list_tree(repo.head().id, b"large")
        (reader,) = repo._source.objects._idle
        watched = (os.getpid(), reader._process._popen.pid)
        before = [anonymous_memory_bytes(pid) for pid in watched]
        with repo.open_blob(entry) as (size, stream):
            total = 0
            while chunk := stream.read(1 << 20):
                assert chunk == piece[: len(chunk)]
                total += len(chunk)
                if total % (32 << 20) == 0:
                    assert all(anonymous_memory_bytes(pid) - was < 32 << 20 for pid, was in zip(watched, before, strict=True))
        assert total == size == 256 << 20


def test_threads_read_at_once(project: Project) -> None:
    for number in range(8):
        project.write(f"large{number}", bytes([number]) * (3 << 20))
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        entries = [entry for entry in repo.list_tree(repo.head().id) if entry.path.startswith(b"large")]
        together = threading.Barrier(len(entries))
        wrong: list[bytes] = []

        def read(entry: TreeEntry) -> None:
            with repo.open_blob(entry) as (size, stream):
                together.wait(60)  # all are open
                content = b"".join(iter(lambda: stream.read(100_000), b""))
            if content != bytes([int(entry.path[5:])]) * size:
                wrong.append(entry.path)

        threads = [threading.Thread(target=read, args=(entry,)) for entry in entries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_closing_leaves_no_process_and_no_descriptor(project: Project) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open_repo(str(project.path), env=ENV) as repo:
        entry = repo.list_tree(repo.head().id)[0]
        with repo.open_blob(entry), repo.open_blob(entry), repo.open_blob(entry):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (b"a.txt", b"a"),
        (b"./a//inner", b"inner"),
        (b"a/../a.txt", b"a"),
        (b"link", b"inner"),
        (b"none", None),
        (b"a", None),
        (b"", None),
        (b"a.txt/", None),
        (b"a.txt/..", None),
        (b"../a.txt", None),
        (b"to-dir/inner", b"inner"),
        (b"to-dir/up", b"a"),
        (b"chain", b"inner"),
        (b"absolute", None),
        (b"out", None),
        (b"out-and-in", None),
        (b"broken", None),
        (b"to-dir", None),
    ],
)
def test_files_are_read_through_committed_symlinks_inside_the_work_tree(project: Project, path: bytes, content: bytes | None) -> None:
    project.link("to-dir", "a")
    project.link("a/up", "../a.txt")
    project.link("chain", "deep/er/link")
    project.link("deep/er/link", "../../to-dir/inner")
    project.link("absolute", str(project.path / "a.txt"))
    project.link("out", "../a.txt")
    project.link("out-and-in", f"../{project.path.name}/a.txt")
    project.link("broken", "nothing")
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo:
        assert repo.read_file(repo.head().id, path) == content


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name_are_read(repo: Repo, name: bytes) -> None:
    assert repo.read_file(repo.head().id, b"a/" + name) == name


def test_a_loop_of_symlinks_is_an_error(project: Project) -> None:
    project.link("one", "two")
    project.link("two", "one")
    project.commit()
    with open_repo(str(project.path), env=ENV) as repo, pytest.raises(UsageError, match="too many levels"):
        repo.read_file(repo.head().id, b"one")


@pytest.mark.parametrize(("path", "expected"), [(b"a", True), (b"", True), (b"a/inner", False), (b"link", False), (b"none", None), (b"link/x", None)])
def test_a_path_is_a_directory_or_a_file_or_nothing(repo: Repo, path: bytes, expected: bool | None) -> None:
    assert repo.is_directory(repo.head().id, path) is expected


def test_changed_paths_between_two_commits(project: Project) -> None:
    old = CommitId(project.head())
    project.write("a.txt", "changed")
    project.write("run.sh", "#!/bin/sh\n", executable=False)
    project.remove("empty")
    project.git("mv", "a0", "renamed")
    project.remove("link")
    project.write("link/now/a/directory", "x")
    with open(os.path.join(os.fsencode(project.path), b"a", NAMES[1]), "wb") as file:
        file.write(b"other")
    new = CommitId(project.commit())
    with open_repo(str(project.path), env=ENV) as repo:
        before = {entry.path: entry for entry in repo.list_tree(old)}
        after = {entry.path: entry for entry in repo.list_tree(new)}
        changes = repo.changed_paths(old, new)
        assert [path for path, _, _ in changes] == sorted(
            [b"a.txt", b"run.sh", b"empty", b"a0", b"renamed", b"link", b"link/now/a/directory", b"a/" + NAMES[1]]
        )
        assert all((one, other) == (before.get(path), after.get(path)) for path, one, other in changes)
        assert repo.changed_paths(new, new) == ()
        assert [(path, other, one) for path, one, other in changes] == list(repo.changed_paths(new, old))


def test_a_commit_is_found_by_id_branch_and_tag(project: Project) -> None:
    project.git("tag", "-a", "-m", "x", "v1")
    project.git("branch", "work/one")
    with open_repo(str(project.path), env=ENV) as repo:
        head = repo.head()
        for revision in (head.id, head.id[:10], "v1", "work/one", "main", "HEAD"):
            assert repo.find_commit(revision) == head
        for revision in ("", "none", "1" * 40, "a\nHEAD", "HEAD:a.txt", head.tree):
            assert repo.find_commit(revision) is None
        assert repo.has_commit(head.id)
        assert not repo.has_commit(CommitId("1" * 40))
        assert not repo.has_commit(CommitId(head.tree))


def test_a_shallow_clone_has_its_commit_and_not_its_parents(project: Project, repositories: Repositories) -> None:
    old = CommitId(project.head())
    project.write("new", "x")
    project.commit()
    shallow = repositories.clone(project, "shallow", "--depth=1")
    with open_repo(str(shallow.path), env=ENV) as repo:
        assert repo.head().id == project.head()
        assert b"new" in listed(repo)
        assert not repo.has_commit(old)
        assert len(list(repo.read_blobs(repo.list_tree(repo.head().id)))) == len(listed(repo))


def test_a_sha256_repository(repositories: Repositories) -> None:
    project = repositories.sha256()
    project.write("a/b", "1")
    project.write("c", "2")
    project.write(".gitattributes", "*.bin filter=lfs\n")
    project.write("x.bin", "pointer")
    old = CommitId(project.commit())
    project.write("c", "3")
    new = CommitId(project.commit())
    with open_repo(str(project.path), env=ENV) as repo:
        assert len(repo.head().id) == len(repo.head().tree) == 64
        entries = repo.list_tree(new)
        assert all(len(entry.oid) == 64 for entry in entries)
        assert repo.read_file(old, b"c") == b"2"
        assert [path for path, _, _ in repo.changed_paths(old, new)] == [b"c"]
        assert {entry.path: content for entry, content in repo.read_blobs(entries)}[b"a/b"] == b"1"
        assert repo.lfs_paths(new, entries) == (b"x.bin",)


def test_a_git_that_dies_is_an_error_and_not_a_hang(project: Project) -> None:
    with open_repo(str(project.path), env=ENV) as repo:
        entry = repo.list_tree(repo.head().id)[0]
        for reader in repo._source.objects._idle:
            reader._process.kill()
            reader._process.wait()
        with pytest.raises(Exception, match="cannot read from git"):
            list(repo.read_blobs([entry]))
        assert [content for _, content in repo.read_blobs([entry])] == [b"a"]


@pytest.mark.slow
def test_fifty_thousand_files(repositories: Repositories, tmp_path: Path) -> None:
    project = repositories.new()
    stream = tmp_path / "stream"
    with open(stream, "wb") as out:
        out.write(b"blob\nmark :1\ndata 2\nxy\ncommit refs/heads/main\nmark :2\ncommitter A <a@b> 1700000000 +0000\ndata 1\nm\n")
        out.writelines(b"M 100644 :1 d%02d/e%02d/file-%05d\n" % (number % 40, number // 40 % 50, number) for number in range(50_000))
        out.write(b"\n")
    with open(stream, "rb") as source:
        subprocess.run(["git", "fast-import", "--quiet"], cwd=project.path, env=ENV, stdin=source, check=True)
    with open_repo(str(project.path), env=ENV) as repo:
        entries = repo.list_tree(repo.head().id)
        assert len(entries) == 50_000
        assert list(entries) == sorted(entries)
        assert sum(len(content) for _, content in repo.read_blobs(entries)) == 100_000
