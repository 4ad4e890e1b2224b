"""``users`` and ``groups``, by the image's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .problem import Problem, value_problems
from .values import show_list, similar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..contents.accounts import Group
    from ..shared_images import SharedImage
    from .plan import Check


def check_users(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``users``."""
    users = shared.image.users
    user = users.get(check.subject)
    if check.expect.get("state") == "absent":
        if user is not None:
            yield Problem("state", "absent", f"exists, uid {user.uid}, shell {user.shell}")
        return
    if user is None:
        yield Problem("state", "exists", f"no such user{similar(check.subject, users)}")
        return
    found = {"uid": str(user.uid), "home": user.home, "shell": user.shell, "gecos": user.gecos}
    yield from value_problems(check, found, nothing="empty")
    if "password" in check.expect and user.password not in check.texts("password"):
        yield Problem("password", " or ".join(check.texts("password")), user.password)
    if "group" in check.expect:
        name = group_name(shared.image.groups, user.gid)
        if check.text("group") not in (name, str(user.gid)):
            yield Problem("group", check.text("group"), f"{name} ({user.gid})" if name else str(user.gid))
    if "groups" in check.expect:
        groups = shared.image.groups
        member = sorted(name for name, group in groups.items() if user.name in group.members or group.gid == user.gid)
        for wanted in check.texts("groups"):
            if wanted not in member:
                reason = "" if wanted in groups else f"; the image has no group {wanted}"
                yield Problem("groups", wanted, f"is a member of: {show_list(member)}{reason}")


def check_groups(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``groups``."""
    groups = shared.image.groups
    group = groups.get(check.subject)
    if check.expect.get("state") == "absent":
        if group is not None:
            yield Problem("state", "absent", f"exists, gid {group.gid}, members: {show_list(group.members)}")
        return
    if group is None:
        yield Problem("state", "exists", f"no such group{similar(check.subject, groups)}")
        return
    yield from value_problems(check, {"gid": str(group.gid)})
    if "members" in check.expect:
        wanted = [] if check.texts("members") == ["none"] else check.texts("members")
        if set(wanted) != set(group.members):
            yield Problem("members", show_list(sorted(wanted)), show_list(sorted(group.members)))


def group_name(groups: Mapping[str, Group], gid: int) -> str | None:
    """The name of the group with number ``gid``."""
    return next((group.name for group in groups.values() if group.gid == gid), None)
