"""``rules``: what holds for the whole tree; each lists every file that breaks it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ..contents.operating_system import read_machine_id
from ..path_pattern import any_matcher
from .problem import Problem
from .secrets import find_secrets
from .tree import walk_tree
from .values import kind_of, show_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..mounted_image import MountedImage
    from ..shared_images import SharedImage
    from .plan import Check

    Breach = tuple[str, str, str]  # path, what is expected, what was found

MOST_PATHS = 50
"""So many files are listed; the rest is counted."""


def check_rules(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``rules``."""
    excepted = any_matcher(check.texts("except"))
    listed = left = 0
    for path, expected, found in _RULES[check.subject](shared.image):
        if excepted(path):
            continue
        if listed == MOST_PATHS:
            left += 1
            continue
        listed += 1
        yield Problem("rule", expected, found, path)
    if left:
        yield Problem("rule", "none", f"and {left} more files", "…")


def _no_world_writable(image: MountedImage) -> Iterator[Breach]:
    for entry in walk_tree(image):
        if entry.is_link or not entry.mode & stat.S_IWOTH:
            continue
        if entry.is_folder and entry.mode & stat.S_ISVTX:
            continue
        if entry.is_file or entry.is_folder:
            yield entry.path, "not writable by everybody", f"{kind_of(entry.mode)}, {show_mode(entry.mode)}"


def _no_setuid(image: MountedImage) -> Iterator[Breach]:
    for entry in walk_tree(image):
        bits = [word for bit, word in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")) if entry.mode & bit]
        if entry.is_file and bits:
            found = f"{' and '.join(bits)}, {show_mode(entry.mode)}, owner {entry.uid}, group {entry.gid}"
            yield entry.path, "no setuid, no setgid", found


def _no_unowned(image: MountedImage) -> Iterator[Breach]:
    uids = {user.uid for user in image.users.values()}
    gids = {group.gid for group in image.groups.values()}
    for entry in walk_tree(image):
        lost = [f"user {entry.uid}"] if entry.uid not in uids else []
        lost += [f"group {entry.gid}"] if entry.gid not in gids else []
        if lost:
            yield entry.path, "a user and a group of the image", f"{' and '.join(lost)}, which the image does not have"


def _no_host_keys(image: MountedImage) -> Iterator[Breach]:
    for key in image.ssh_host_keys:
        half = "private" if key.private else "public"
        shown = f", {key.fingerprint}" if key.fingerprint else ""
        yield key.path, "no SSH host key", f"{half} {key.type} key{shown}"


def _machine_id_empty(image: MountedImage) -> Iterator[Breach]:
    if read_machine_id(image / "/") == "set":
        yield "/etc/machine-id", "empty, uninitialized or absent", "set: machines made from the image would share it"


def _no_empty_passwords(image: MountedImage) -> Iterator[Breach]:
    for user in image.users.values():
        if user.password == "empty":
            yield "/etc/shadow", "a password, or none that opens it", f"user {user.name} logs in without a password"


def _no_secrets(image: MountedImage) -> Iterator[Breach]:
    for path, found in find_secrets(image):
        yield path, "no secret", found


_RULES: dict[str, Callable[[MountedImage], Iterator[Breach]]] = {
    "no-world-writable": _no_world_writable,
    "no-setuid": _no_setuid,
    "no-unowned": _no_unowned,
    "no-host-keys": _no_host_keys,
    "machine-id-empty": _machine_id_empty,
    "no-empty-passwords": _no_empty_passwords,
    "no-secrets": _no_secrets,
}
