"""As whom a command runs: a user of the image, by the image's own passwd and group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contents.accounts import read_groups, read_users
from ..errors import FactsMissing, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..contents.accounts import User
    from ..image_path import ImagePath


@dataclass(frozen=True, slots=True)
class Account:
    """Numbers as in the image; ``groups`` are the supplementary ones."""

    user: int
    group: int
    groups: tuple[int, ...]
    home: str = "/"


def account_of(root: ImagePath, user: str | int) -> Account:
    """The account of ``user``, a name or a number.

    Root, and a number that passwd does not have, need no passwd.

    :raises RequestInvalid: the image has no user of that name
    """
    found = next((each for each in _users(root).values() if user in (each.name, each.uid)), None)
    if found is not None:
        # The primary one among them, as initgroups(3) does.
        groups = dict.fromkeys([found.gid, *_groups_with(root, found.name)])
        return Account(found.uid, found.gid, tuple(groups), found.home or "/")
    if user in ("root", 0):
        return Account(0, 0, (0,), "/root")
    if isinstance(user, int):
        return Account(user, user, (user,))
    reason = f"{root / 'etc/passwd'} of the image has no user of that name"
    raise RequestInvalid(argument="user", value=repr(user), reason=reason)


def _users(root: ImagePath) -> Mapping[str, User]:
    try:
        return read_users(root)
    except FactsMissing:
        return {}


def _groups_with(root: ImagePath, name: str) -> list[int]:
    try:
        return [group.gid for group in read_groups(root).values() if name in group.members]
    except FactsMissing:
        return []
