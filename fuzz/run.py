#!/usr/bin/env python3
"""Runs one fuzz target: with atheris (coverage-guided) where it is installed, else with mutations of the seeds.

    python -m fuzz.run TARGET [--seconds N] [--corpus DIRECTORY] [--random] [FILE...]

FILEs are run once each, as a finding that was written is. What breaks a promise is written to crash-<hash> and ends the run with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from layerwright.host.files import remove_tree

INTERESTING = (b"\0", b"\xff", b"/", b"..", b".wh.", b"\x80", b"-1", b"99999999999", b"0" * 11, b"size=", b"path=", b'"', b"{", b"[", b"1e9", b"\\u0000")
_BLOCK = 512


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A seed with a few changes: bytes, pieces, whole tar blocks, or two seeds spliced."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.randrange(256)
            case 2:
                word = chance.choice(INTERESTING)
                data[at : at + len(word)] = word
            case 3:
                data[at:at] = chance.choice(INTERESTING)
            case 4:
                del data[at : at + chance.choice((1, 2, 9, _BLOCK))]
            case 5:
                start = at // _BLOCK * _BLOCK + 1
                block = data[start : start + _BLOCK]
                data[start:start] = block
            case 6:
                other = chance.choice(seeds)
                cut = chance.randrange(len(other) + 1)
                data[at:] = other[cut:]
            case _:
                start = at // _BLOCK * _BLOCK + 1
                field, width = chance.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (329, 8)))
                data[start + field : start + field + width] = (
                    chance.randbytes(width) if chance.random() < 0.5 else chance.choice(INTERESTING).ljust(width, b"\0")
                )
    return bytes(data[: 1 << 17])


def known_seeds(target: str, corpus: Path | None) -> list[bytes]:
    from fuzz.seeds import seeds

    found = [content for name, _, content in seeds() if name == target]
    if corpus is not None:
        found += [path.read_bytes() for path in sorted(corpus.rglob("*")) if path.is_file()]
    return found


def cases(target: str, count: int | None = None, *, seconds: float | None = None, start: int = 0, corpus: Path | None = None) -> Iterator[bytes]:
    """The seeds, then mutations of them: the same ones for the same `start`."""
    known = known_seeds(target, corpus)
    yield from known
    chance = random.Random(start)
    until = None if seconds is None else time.monotonic() + seconds
    number = 0
    while (count is None or number < count) and (until is None or time.monotonic() < until):
        yield mutated(known, chance)
        number += 1


@contextmanager
def opened(name: str) -> Iterator[object]:
    from fuzz.targets import targets

    making = targets()[name]()
    yield next(making)
    next(making, None)


def run_random(name: str, seconds: float, start: int, corpus: Path | None) -> int:
    done = 0
    with opened(name) as target:
        for data in cases(name, seconds=seconds, start=start, corpus=corpus):
            try:
                target(data)  # type: ignore[operator]
            except Exception:
                place = f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
                Path(place).write_bytes(data)
                traceback.print_exc()
                print(f"{name}: a finding after {done} inputs\n  again: python -m fuzz.run {name} {place}")
                return 1
            done += 1
    print(f"{name}: {done} inputs in {seconds:.0f} s, nothing found (mutations without coverage, start {start})")
    return 0


def in_child(act: Callable[[], None]) -> int:
    """Do `act` in a process of its own, and remove the temporary files it leaves: libFuzzer ends its process at once. Returns its exit code."""
    scratch = tempfile.mkdtemp(prefix="layerwright-fuzz-")
    try:
        pid = os.fork()
        if pid == 0:
            tempfile.tempdir = scratch
            try:
                act()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        remove_tree(scratch)


def run_atheris(name: str, seconds: float, corpus: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["layerwright"]):
        import fuzz.targets  # noqa: F401
    from fuzz.seeds import write_seeds

    write_seeds(corpus.parent)
    with opened(name) as target:
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={seconds:.0f}", "-max_len=65536", "-rss_limit_mb=2048", "-timeout=20", "-print_final_stats=1"], target
        )
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("tar", "unpack", "manifest", "index", "compressed"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--start", type=int, default=0, help="of the random numbers")
    parser.add_argument("--random", action="store_true", help="mutations only, even where atheris is installed")
    args = parser.parse_args()
    if args.files:
        with opened(args.target) as target:
            for path in args.files:
                target(path.read_bytes())  # type: ignore[operator]
                print(f"{path}: nothing found")
        return 0
    if not args.random and find_spec("atheris") is None:
        print("atheris is not installed (pip install '.[fuzz]'): mutations without coverage instead")
    elif not args.random:
        return in_child(lambda: run_atheris(args.target, args.seconds, args.corpus or Path("fuzz/corpus") / args.target))
    return run_random(args.target, args.seconds, args.start, args.corpus)


if __name__ == "__main__":
    sys.exit(main())
