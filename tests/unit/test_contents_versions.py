"""Comparing versions: tables of known cases, and dpkg itself where it is there."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.contents.versions import compare, satisfies
from pytest_imagemount.errors import RequestInvalid

OLDER_FIRST = {
    "dpkg": [
        ("1.0~~", "1.0~"),
        ("1.0~~a", "1.0~"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.0", "1.0-1"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0-1~bpo1", "1.0-1"),
        ("1.0a", "1.0+"),
        ("1.9", "1.10"),
        ("2.0", "1:1.0"),
        ("1.0-9", "1.0-10"),
        ("1.0", "1.0.0"),
        ("1.2-3-4", "1.2-4-1"),
        ("0.9", "09.1"),
    ],
    "rpm": [
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0^git1"),
        ("1.0^git1", "1.0.1"),
        ("1.0~rc1^a", "1.0~rc1^b"),
        ("1.a", "1.1"),
        ("1.9", "1.10"),
        ("1.0-1", "1.0-2"),
        ("5.0", "1:1.0"),
        ("1.0", "1.0-1"),
        ("1.0.fc9", "1.0.fc10"),
        ("1a", "1.0.1"),
    ],
    "apk": [
        ("1.0_alpha", "1.0_beta"),
        ("1.0_rc1", "1.0"),
        ("1.0_pre9", "1.0_pre10"),
        ("1.0", "1.0_p1"),
        ("1.0_git20200101", "1.0_p0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0b"),
        ("1.0", "1.0-r0"),
        ("1.0-r9", "1.0-r10"),
        ("1.0-r1", "1.0.1-r0"),
        ("1.9", "1.10"),
        ("1.02.06", "1.02.10"),
        ("1.01", "1.1"),
        ("0.7.18-r2", "0.17-r6"),
        ("0.1.0_alpha_pre2", "0.1.0_alpha"),
        ("1.3_pre1-r1", "1.3.2"),
        ("1.0", "1.0bc"),
        ("not a version", "0"),
    ],
    "pacman": [
        ("1.0rc", "1.0"),
        ("1.0", "1.0.a"),
        ("1.0a", "1.0.1"),
        ("1.9-1", "1.10-1"),
        ("1.0-1", "1.0-2"),
        ("2.0-1", "1:1.0-1"),
        ("1.0", "1..0"),
        ("1.5.a", "1.5.1"),
    ],
}
EQUAL = {
    "dpkg": [("1.0", "0:1.0"), ("1.01", "1.1"), ("1.0-0", "1.0"), ("1.0", "1.00")],
    "rpm": [("1.0", "0:1.0"), ("1.01", "1.1"), ("1_0", "1.0"), ("2.0.1a", "2.0.1a")],
    "apk": [("1.0-r1", "1.0-r1"), ("1", "01")],
    "pacman": [("1.0", "1.0-3"), ("1.0-1", "0:1.0-1"), ("1.01", "1.1")],
}


@pytest.mark.parametrize(
    ("manager", "a", "b"), [(name, *pair) for name, pairs in OLDER_FIRST.items() for pair in pairs]
)
def test_the_older_version_compares_less_both_ways(manager: str, a: str, b: str) -> None:
    assert (compare(manager, a, b), compare(manager, b, a)) == (-1, 1)
    assert (compare(manager, a, a), compare(manager, b, b)) == (0, 0)


@pytest.mark.parametrize(("manager", "a", "b"), [(name, *pair) for name, pairs in EQUAL.items() for pair in pairs])
def test_versions_that_differ_in_writing_only_are_equal(manager: str, a: str, b: str) -> None:
    assert (compare(manager, a, b), compare(manager, b, a)) == (0, 0)


def test_an_unknown_manager_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(RequestInvalid, match="dpkg, rpm, apk, pacman"):
        compare("portage", "1", "2")


debian_versions = st.from_regex(r"\A([0-3]:)?[0-9][a-c0-9.+~]{0,6}(-[a-c0-9+.~]{1,3})?\Z")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
@settings(max_examples=120, deadline=None)
@given(a=debian_versions, b=debian_versions)
def test_any_two_versions_compare_as_dpkg_compares_them(a: str, b: str) -> None:
    operator = {-1: "lt", 0: "eq", 1: "gt"}[compare("dpkg", a, b)]
    done = subprocess.run(["dpkg", "--compare-versions", a, operator, b], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), (a, operator, b)


@pytest.mark.parametrize("manager", ["dpkg", "rpm", "apk", "pacman"])
@given(data=st.data())
def test_any_text_compares_as_an_order(manager: str, data: st.DataObject) -> None:
    text = st.text(alphabet="01ab.~^-:_r+ ß", max_size=6)
    a, b = data.draw(text), data.draw(text)
    assert compare(manager, a, b) == -compare(manager, b, a)
    assert compare(manager, a, a) == 0


def test_numbers_of_thousands_of_digits_are_compared() -> None:
    for manager in ("dpkg", "rpm", "apk", "pacman"):
        assert compare(manager, "1" * 5000, "1" * 4999 + "2") == -1


@pytest.mark.parametrize(
    ("manager", "version", "constraint", "holds"),
    [
        ("dpkg", "1.2-1", ">= 1.2", True),
        ("dpkg", "1.2-1", "= 1.2", False),
        ("dpkg", "1.2-1", ">=1.2,<<1.3", True),
        ("dpkg", "1.3", ">= 1.2, < 1.3", False),
        ("dpkg", "1.3", "!= 1.2", True),
        ("dpkg", "1.3", "== 1.3", True),
        ("dpkg", "1.3", ">> 1.3", False),
        ("rpm", "1.2-3.el9", "= 1.2", True),
        ("rpm", "1.2-3.el9", "= 1.2-4.el9", False),
        ("rpm", "1:1.2-3.el9", "> 5", True),
        ("rpm", "1.2-3", "> 1.2", False),
        ("pacman", "1.2-3", "= 1.2", True),
        ("pacman", "1.2-3", "<= 1.2-2", False),
        ("apk", "1.2-r3", ">= 1.2", True),
        ("apk", "1.2-r3", "= 1.2", False),
        ("apk", "1.2-r3", "= 1.2-r3", True),
    ],
)
def test_a_constraint_holds_or_not(manager: str, version: str, constraint: str, holds: bool) -> None:
    assert satisfies(manager, version, constraint) is holds


@pytest.mark.parametrize("constraint", ["", "1.2", ">=", "~> 1.2", ">= 1.2 1.3", ">= 1.2,", "=> 1"])
def test_what_is_no_constraint_is_an_error_that_shows_the_form(constraint: str) -> None:
    with pytest.raises(RequestInvalid, match=r"'>= 1\.2'"):
        satisfies("dpkg", "1.2", constraint)
