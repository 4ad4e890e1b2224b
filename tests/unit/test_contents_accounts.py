"""Users and groups by the image's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.accounts import Group, User, password_state, read_groups, read_users
from pytest_imagemount.errors import FactsMissing

from .system_tree import Link, make_tree

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = "root:x:0:0:root:/root:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"


def test_users_and_their_fields(tmp_path: Path) -> None:
    users = read_users(make_tree(tmp_path, {"etc/passwd": PASSWD, "etc/shadow": "root:$y$j9T$s$h:19000::::::\n"}))
    assert users == {
        "root": User("root", 0, 0, "root", "/root", "/bin/bash", "set"),
        "sshd": User("sshd", 101, 65534, "", "/run/sshd", "/usr/sbin/nologin", "unknown"),
    }


@pytest.mark.parametrize(
    ("field", "state"),
    [
        ("", "empty"),
        ("!", "locked"),
        ("!!", "locked"),
        ("!*", "locked"),
        ("!$6$salt$hash", "locked"),
        ("*", "none"),
        ("x", "none"),
        ("*LK*", "none"),
        ("$6$salt$hash", "set"),
        ("$y$j9T$abc$def", "set"),
        ("ab01FAX.bQRSU", "set"),
        ("_J9..rasmBYk8r9AiWNc", "set"),
    ],
)
def test_the_state_of_a_password(field: str, state: str) -> None:
    assert password_state(field) == state


def test_a_password_in_passwd_itself_counts(tmp_path: Path) -> None:
    text = "a::1:1::/:/bin/sh\nb:$6$s$h:2:2::/:/bin/sh\nc:*:3:3::/:/bin/sh\n"
    users = read_users(make_tree(tmp_path, {"etc/passwd": text, "etc/shadow": "a:!:::::::\n"}))
    assert [user.password for user in users.values()] == ["empty", "set", "none"]


def test_lines_that_the_c_library_does_not_take_are_left_out(tmp_path: Path) -> None:
    bad = "# note\n\n+::::::\n+@net\n-bad\nshort:x:1\nno:x:a:1::/:\nneg:x:-1:1::/:\nhuge:x:99999999999:1::/:\n"
    text = f"{bad} ok:x:5:6:g:/h:/s\n"
    assert list(read_users(make_tree(tmp_path, {"etc/passwd": text}))) == ["ok"]


def test_the_first_of_two_users_with_one_name_counts(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "etc/passwd": "a:x:1:1::/:/bin/sh\na:x:2:2::/:/bin/sh\n",
        "usr/lib/passwd": "a:x:3:3::/:/bin/sh\nvendor:x:4:4::/:/bin/sh\n",
    }
    users = read_users(make_tree(tmp_path, files))
    assert {name: user.uid for name, user in users.items()} == {"a": 1, "vendor": 4}


def test_groups_and_their_members(tmp_path: Path) -> None:
    files: dict[str, str | bytes | Link] = {
        "etc/group": "root:x:0:\nsudo:x:27:ann,ben, cy ,\nbad:x:y:\nshort:x\n",
        "usr/lib/group": "sudo:x:1:eve\nvendor:x:99:\n",
    }
    assert read_groups(make_tree(tmp_path, files)) == {
        "root": Group("root", 0, ()),
        "sudo": Group("sudo", 27, ("ann", "ben", "cy")),
        "vendor": Group("vendor", 99, ()),
    }


def test_no_file_is_an_error_that_says_which(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"etc/shadow": "root:*:::::::\n"})
    with pytest.raises(FactsMissing, match="no user database") as caught:
        read_users(tree)
    assert caught.value.looked == ("/etc/passwd", "/usr/lib/passwd")
    with pytest.raises(FactsMissing, match="no group database"):
        read_groups(tree)


def test_names_that_are_not_utf8_stay_apart(tmp_path: Path) -> None:
    text = b"a\xff:x:1:1::/:/bin/sh\na\xfe:x:0:0::/:/bin/sh\n"
    users = read_users(make_tree(tmp_path, {"etc/passwd": text}))
    assert {name: user.uid for name, user in users.items()} == {"a\\xff": 1, "a\\xfe": 0}
