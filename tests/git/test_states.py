from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layerwright.git.states import BadState, decode_state, encode_state

paths = st.binary(max_size=40).map(lambda path: path.replace(b"\0", b"/"))
modes = st.sampled_from([0o100644, 0o100755, 0o120000])


def entries(oid_digits: int) -> st.SearchStrategy[list[tuple[bytes, int, str]]]:
    oids = st.text("0123456789abcdef", min_size=oid_digits, max_size=oid_digits)
    return st.lists(st.tuples(paths, modes, oids), unique_by=lambda entry: entry[0], max_size=30)


@given(st.sampled_from([40, 64]).flatmap(entries))
@example([])
@example([(b"", 0o100644, "0" * 40)])
@example([(b"a\nb \xff\xfe", 0o120000, "f" * 64)])
def test_decoding_gives_what_was_encoded(given: list[tuple[bytes, int, str]]) -> None:
    assert decode_state(encode_state(given)) == tuple(sorted(given))


@given(entries(40), st.randoms(use_true_random=False))
def test_the_order_of_the_entries_does_not_matter(given: list[tuple[bytes, int, str]], shuffler: random.Random) -> None:
    shuffled = list(given)
    shuffler.shuffle(shuffled)
    assert encode_state(shuffled) == encode_state(given)


@given(entries(40), entries(40))
def test_other_entries_give_other_bytes(one: list[tuple[bytes, int, str]], other: list[tuple[bytes, int, str]]) -> None:
    assert (encode_state(one) == encode_state(other)) == (sorted(one) == sorted(other))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(BadState):
        decode_state(content)


STATE = encode_state([(b"a", 0o100644, "1" * 40), (b"b/c", 0o100755, "2" * 40)])


@pytest.mark.parametrize("length", range(len(STATE)))
def test_a_state_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(BadState):
        decode_state(STATE[:length])


@pytest.mark.parametrize(
    "content",
    [
        STATE + b"x",
        STATE.replace(b"2 20\n", b"3 20\n"),
        STATE.replace(b"2 20\n", b"-2 20\n"),
        STATE.replace(b"2 20\n", b"2 99999999999\n"),
        STATE.replace(b"2 20\n", b"2\n"),
        b"layerwright-state 1\n1 0\n" + zlib.compress(b"not a mode\0path\0"),
        b"layerwright-state 2\n" + STATE.partition(b"\n")[2],
    ],
)
def test_a_damaged_state_is_refused(content: bytes) -> None:
    with pytest.raises(BadState):
        decode_state(content)


def test_it_is_compressed() -> None:
    listed = [(b"some/long/directory/name/file-%06d.txt" % number, 0o100644, f"{number:040x}") for number in range(2000)]
    assert len(encode_state(listed)) < 2000 * 30
