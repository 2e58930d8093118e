"""Globs against tables of what doublestar and the werf.yaml reference say, and against a slow matcher written straight from the rules."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layerwright.globs import BadGlob, Globs, check_glob, clean_path, expression

# Patterns as written (doublestar's own rules), before the filter's three alternatives.
WRITTEN = [
    ("", "", True),
    ("abc", "abc", True),
    ("abc", "abd", False),
    ("*", "abc", True),
    ("*", "", True),
    ("*c", "abc", True),
    ("a*", "ab/c", False),
    ("a*b*c", "axxbyyc", True),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("***", "abc", True),
    ("***", "a/b", False),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("a?c", "a☺c", True),
    ("a??c", "a☺c", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "ab", False),
    ("a/**/b", "a/xb", False),
    ("**/b", "b", True),
    ("**/b", "x/y/b", True),
    ("**/b", "xb", False),
    ("a/**", "a", True),
    ("a/**", "a/b/c", True),
    ("a/**", "ab", False),
    ("**", "", True),
    ("**", "a/b/.c", True),
    ("**/**", "a/b", True),
    ("a/**/**/b", "a/b", True),
    ("a/**/**/**/b", "a/x/y/b", True),
    ("a**b", "axxb", True),
    ("a**b", "a/b", False),
    ("a/**b", "a/xb", True),
    ("a/**b", "a/x/b", False),
    ("**.txt", "a.txt", True),
    ("**.txt", "x/a.txt", False),
    ("a/**/*/b", "a/b", False),
    ("a/**/*/b", "a/x/b", True),
    ("a/**/*/**/b", "a/x/b", True),
    (".*", ".git", True),
    ("*", ".git", True),
    ("[abc]", "b", True),
    ("[abc]", "d", False),
    ("[a-c]x", "bx", True),
    ("[^a-c]", "d", True),
    ("[!a-c]", "d", True),
    ("[!a-c]", "b", False),
    ("[^a]", "/", False),
    ("[a/]b", "/b", False),
    ("[--0]", "/", False),
    ("[a-b-d]", "d", True),
    ("[a-b-d]", "c", False),
    ("[-x]", "-", True),
    ("[x-]", "-", True),
    ("[c-a]", "b", False),
    ("[^c-a]", "b", True),
    ("[\\]a]", "]", True),
    ("[a\\-c]", "b", False),
    ("[a\\-c]", "-", True),
    ("[\\--0]", ".", True),
    ("[[a]", "[", True),
    ("[a^]", "^", True),
    ("[&&~~||]", "&", True),
    ("[{]", "{", True),
    ("]", "]", True),
    ("a,b", "a,b", True),
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("a\\b", "ab", True),
    ("\\\\", "\\", True),
    ("{a,b}", "b", True),
    ("{a,b}c", "bc", True),
    ("{a,b}c", "b", False),
    ("a{,b}c", "ac", True),
    ("{a,{b,c}d}e", "cde", True),
    ("{a,b}{c,d}", "bd", True),
    ("{**/a,b}", "x/y/a", True),
    ("x{/**,}", "x/y/z", True),
    ("x{/**,}", "x", True),
    ("{a\\,b}", "a,b", True),
    ("\\{a\\}", "{a}", True),
    ("{}", "", True),
    ("a.b+(c)|d$", "a.b+(c)|d$", True),
    ("a.b", "axb", False),
    ("a\nb", "a\nb", True),
    ("a*", "a\nb", True),
]

DIRECTORY_FORMS = ["dir", "dir/", "dir/*", "dir/**", "dir/**/*", "./dir", "x/../dir", "dir/*/*/**"]
EVERYTHING = ["*", "**", "**/*", ".", "/", "", "*/*", "**/**"]

# Globs as path filters take them (the reference's section 5.1).
FILTERS = [
    ("*.php", "a.php", True),
    ("*.php", "a.php/x/y", True),
    ("*.php", "x/a.php", False),
    ("**/*.php", "a.php", True),
    ("**/*.php", "x/y/a.php", True),
    ("**/*.php", "x/a.phpx", False),
    ("a/*/b", "a/x/b", True),
    ("a/*/b", "a/x/b/c", True),
    ("a/*/b", "a/x/y/b", False),
    ("a/*/b", "a/x", False),
    ("src/**/test*", "src/test1", True),
    ("src/**/test*", "src/a/test1/b", True),
    ("src/**/test*", "src/a", False),
    ("/a/b", "/a/b", True),
    ("/a/b", "a/b", True),
    ("/a/b", "a/b/c", True),
    ("/a/b", "/a/b/c", False),
    ("/a/b/**", "/a/b/c", True),
    ("**/*", "/any/where", True),
    ("docker*", "Dockerfile", False),
    ("{a,b}/*", "b/x/y", True),
    ("a", "", False),
    (".git*", ".gitignore", True),
]

MALFORMED = ["[", "{a[,]b}", "[]", "[]a]", "[^", "[!]", "[^bc", "a[", "{", "{a", "{a,b", "a}", "}{", "{a,{b}", "a\\", "x/[a", "[a\\]", "{[a}", "\\/*"]


@pytest.mark.parametrize(("pattern", "path", "matches"), WRITTEN)
def test_a_pattern_matches_as_doublestar_says(pattern: str, path: str, matches: bool) -> None:
    assert (expression(pattern).fullmatch(path) is not None) is matches


@pytest.mark.parametrize("pattern", DIRECTORY_FORMS)
def test_all_forms_of_a_directory_are_equal(pattern: str) -> None:
    globs = Globs([pattern])
    assert globs.match("dir")
    assert globs.match(b"dir/a/b")
    assert not globs.match("dirx")
    assert not globs.match("x/dir")
    assert not globs.match("")


@pytest.mark.parametrize("pattern", EVERYTHING)
@pytest.mark.parametrize("path", ["", ".", "/", "a", "a/b/.c", b"\xff/\xfe"])
def test_the_root_and_stars_alone_match_everything(pattern: str, path: str | bytes) -> None:
    assert Globs([pattern]).match(path)


@pytest.mark.parametrize(("pattern", "path", "matches"), FILTERS)
def test_a_filter_matches_as_the_reference_says(pattern: str, path: str, matches: bool) -> None:
    assert Globs([pattern]).match(path) is matches
    assert Globs([pattern]).match(path.encode()) is matches


@pytest.mark.parametrize("pattern", MALFORMED)
def test_a_malformed_pattern_is_refused_with_a_reason(pattern: str) -> None:
    with pytest.raises(BadGlob, match=r"\w+ \w+"):
        check_glob(pattern)
    with pytest.raises(BadGlob):
        Globs(["good", pattern])


def test_too_many_alternatives_are_refused() -> None:
    with pytest.raises(BadGlob, match="more than 1000"):
        check_glob("{a,b}" * 20)


def test_several_globs_match_what_any_of_them_does() -> None:
    globs = Globs(["a", "b/*.c"])
    assert [globs.match(one) for one in ("a/x", "b/x.c", "b/x.d", "c")] == [True, True, False, False]
    assert not Globs([]).match("a")


def test_a_path_that_is_not_utf8_is_matched_by_wildcards() -> None:
    assert Globs(["src/?.c"]).match(b"src/\xff.c")
    assert not Globs(["src/a.c"]).match(b"src/\xff.c")


def test_without_braces_they_are_ordinary() -> None:
    assert expression("a{b}*", braces=False).fullmatch("a{b}c")


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("", "."),
        (".", "."),
        ("/", "/"),
        ("//", "/"),
        ("a//b/", "a/b"),
        ("/a/../..", "/"),
        ("a/../..", ".."),
        ("../a", "../a"),
        ("./a/./b/..", "a"),
        ("//a", "/a"),
    ],
)
def test_paths_are_cleaned_lexically(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@given(st.lists(st.sampled_from(["", ".", "..", "a", "bc"])).map("/".join))
def test_cleaning_agrees_with_posixpath_save_for_two_leading_slashes(path: str) -> None:
    expected = posixpath.normpath(path)
    assert clean_path(path) == (expected[1:] if expected.startswith("//") else expected)
    assert clean_path(clean_path(path)) == clean_path(path)


COMPONENT = st.text("ab*?", min_size=1, max_size=4)
PATTERNS = st.lists(COMPONENT | st.just("**"), min_size=1, max_size=5).map("/".join)
PATHS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=5).map("/".join)


@given(PATTERNS, PATHS)
@example("a/**/b", "a/b")
@example("**/*/**", "a")
def test_a_filter_agrees_with_a_slow_matcher(pattern: str, path: str) -> None:
    assert Globs([pattern]).match(path) is _slow_filter(pattern, path)


@given(st.text("ab/*?[]{}^!-\\,"), PATHS)
def test_any_text_is_a_glob_or_told_to_be_none(pattern: str, path: str) -> None:
    try:
        check_glob(pattern)
    except BadGlob:
        return
    assert Globs([pattern]).match(path) in (True, False)


def _slow_filter(pattern: str, path: str) -> bool:
    """The reference's three alternatives, word for word."""
    parts = pattern.split("/")
    trimmed = list(parts)
    while trimmed and set(trimmed[-1]) == {"*"}:
        trimmed.pop()
    names = path.split("/") if path else []
    return any(_slow_match(one, names) for one in (parts, trimmed, [*trimmed, "**", "*"]))


def _slow_match(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_slow_match(parts[1:], names[skipped:]) for skipped in range(len(names) + 1))
    if not names:
        return len(parts) == 1 and set(parts[0]) <= {"*"}
    return _slow_component(parts[0], names[0]) and _slow_match(parts[1:], names[1:])


def _slow_component(part: str, name: str) -> bool:
    if not part:
        return not name
    if part[0] == "*":
        return any(_slow_component(part[1:], name[taken:]) for taken in range(len(name) + 1))
    return bool(name) and part[0] in ("?", name[0]) and _slow_component(part[1:], name[1:])
