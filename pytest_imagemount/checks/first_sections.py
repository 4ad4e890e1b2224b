"""The sections of a first check file: each gives its lines of YAML, or none where there is nothing to say."""

from __future__ import annotations

import glob
import json
import re
import stat
from typing import TYPE_CHECKING, Any

from ..engine.text import human_size
from ..errors import ImageMountError
from ..image_option import AUTO
from .accounts import group_name
from .disk import partitions_of
from .document import scalar
from .fstab import subject_of
from .plan import Check
from .rules import check_rules
from .text import cause_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..shared_images import SharedImage
    from .problem import Problem

    Section = Callable[[SharedImage], list[str]]

_NO_LOGIN = ("nologin", "false", "sync", "shutdown", "halt")
_POWERFUL = ("sudo", "wheel", "admin", "adm", "docker", "lxd", "libvirt", "disk", "shadow")
_TELLING = re.compile(
    r"apparmor|busybox|ca-certificates|cloud-init|dbus|docker.*|dropbear.*|grub-(?:efi|pc|common).*|init|kernel(?:-core)?"
    r"|linux-(?:image|lts|virt).*|linux|network-?manager|nftables|openrc|openssh-server|openssl|podman|python3"
    r"|selinux-policy|shim-signed|sudo|systemd(?:-boot)?|u-boot.*|ufw|unattended-upgrades",
    re.IGNORECASE,
)
_GUARDED = (
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/ssh/sshd_config",
    "/etc/crontab",
    "/root",
    "/tmp",
)
_NAMES_A_DISK = re.compile(r"(?i)uuid=|/dev/|^BOOT_IMAGE=|^initrd=")
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+=:-]*(?<!:)")
_MOST_EXCEPTIONS = 100


def quoted(value: object) -> str:
    """``value`` as a YAML scalar that reads the same in YAML 1.1 and 1.2, and in an editor."""
    text = str(value)
    words = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "~")
    numeric = re.fullmatch(r"[-+.0-9][-+.0-9:_eExXoO]*", text)
    if _PLAIN.fullmatch(text) and scalar(text) == text and not numeric and text.lower() not in words:
        return text
    return text if isinstance(value, int) else json.dumps(text)


def flow(values: Mapping[str, object]) -> str:
    """``{key: value, key: [a, b]}``."""
    return "{" + ", ".join(f"{key}: {_flow_value(value)}" for key, value in values.items()) + "}"


def _flow_value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(quoted(item) for item in value)}]"
    return quoted(value)


def _image(shared: SharedImage) -> list[str]:
    """The partition, where one was asked for: the checks are for it alone."""
    partition = shared.choice.partition
    return [] if partition == AUTO else ["image:", f"  partition: {quoted(partition)}"]


def _os(shared: SharedImage) -> list[str]:
    facts = shared.image.os
    found = {"id": facts.id, "version": facts.version_id, "arch": facts.architecture, "timezone": facts.timezone}
    lines = ["os:", *(f"  {key}: {quoted(value)}" for key, value in found.items() if value)]
    if facts.kernels:
        lines.append(f"  kernel: {quoted(_series(facts.kernels[-1]))}")
    return lines


def _series(version: str) -> str:
    """``6.1.*`` for ``6.1.0-18-amd64``: an update of the kernel is no fault."""
    match = re.match(r"[0-9]+\.[0-9]+\.", version)
    return f"{match[0]}*" if match else version


def _files(shared: SharedImage) -> list[str]:
    lines = []
    for name in _GUARDED:
        path = shared.image / name
        if path.exists():
            status = path.stat()
            found = {
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
                "owner": _name(path.owner, status.st_uid),
                "group": _name(path.group, status.st_gid),
            }
            lines.append(f"  {name}: {flow(found)}")
    return ["files:", *lines] if lines else []


def _name(ask: Callable[[], str], number: int) -> str | int:
    try:
        return ask()
    except (KeyError, FileNotFoundError):
        return number


def _packages(shared: SharedImage) -> list[str]:
    packages = shared.image.packages
    names = dict.fromkeys(package.name for package in packages.values() if _TELLING.fullmatch(package.name))
    lines = [f"  {quoted(name)}: installed" for name in names]
    return [f"# {len(packages)} packages are installed; these tell the most.", "packages:", *lines] if lines else []


def _users(shared: SharedImage) -> list[str]:
    lines = []
    groups = shared.image.groups
    for user in shared.image.users.values():
        if user.uid == 0 or (user.shell and not user.shell.endswith(_NO_LOGIN)):
            found: dict[str, Any] = {"uid": user.uid, "group": group_name(groups, user.gid) or user.gid}
            found |= {key: value for key, value in (("home", user.home), ("shell", user.shell)) if value}
            lines.append(f"  {quoted(user.name)}: {flow({**found, 'password': user.password})}")
    return ["# Those who can log in.", "users:", *lines] if lines else []


def _groups(shared: SharedImage) -> list[str]:
    groups = [group for group in shared.image.groups.values() if group.name in _POWERFUL]
    lines = [f"  {group.name}: {{members: {_flow_value(group.members or 'none')}}}" for group in groups]
    return ["# Whose members can do much.", "groups:", *lines] if lines else []


def _services(shared: SharedImage) -> list[str]:
    services = shared.image.services
    lines = [f"  {quoted(name)}: enabled" for name, service in sorted(services.items()) if service.state == "enabled"]
    return ["services:", *lines] if lines else []


def _fstab(shared: SharedImage) -> list[str]:
    lines: dict[str, str] = {}
    for entry in shared.image.fstab:
        subject = subject_of(entry)
        if subject == "swap" or subject.startswith("/"):
            lines.setdefault(subject, f"  {quoted(subject)}: {flow({'source': entry.source, 'type': entry.fstype})}")
    return ["fstab:", *lines.values()] if lines else []


def _kernel_cmdline(shared: SharedImage) -> list[str]:
    cmdline = shared.image.kernel_cmdline
    words = [glob.escape(word) for word in cmdline.split() if not _NAMES_A_DISK.search(word)]
    return ["kernel-cmdline:", f"  contains: {_flow_value(list(dict.fromkeys(words)))}"] if words else []


def _disk(shared: SharedImage) -> list[str]:
    disk = shared.inspection
    kind = disk.table.kind if disk.table else "none"
    found = {"format": disk.format, "table": kind, "partitions": len(partitions_of(disk))}
    return ["disk:", *(f"  {key}: {quoted(value)}" for key, value in found.items())]


def _partitions(shared: SharedImage) -> list[str]:
    disk = shared.inspection
    lines = []
    for each in partitions_of(disk):
        volume = disk.volumes.get(each.number)
        found = {"label": each.label, "type": each.type_name or each.type}
        if volume and volume.superblock:
            found |= {"filesystem": volume.superblock.type, "fs-label": volume.superblock.label}
        size = human_size(each.window.size)
        found["min-size"] = size if "." not in size else str(each.window.size)
        lines.append(f"  {each.number}: {flow({key: value for key, value in found.items() if value})}")
    return ["partitions:", *lines] if lines else []


_RULES = {
    "no-world-writable": True,
    "no-setuid": True,
    "no-host-keys": False,
    "machine-id-empty": False,
    "no-empty-passwords": False,
    "no-secrets": True,
}
"""The rules, and whether they take exceptions."""


def _rules(shared: SharedImage) -> list[str]:
    lines = []
    for rule, takes_exceptions in _RULES.items():
        try:
            problems = list(check_rules(Check("rules", rule, {}, "", "", 0), shared))
        except (ImageMountError, OSError) as error:
            lines.append(f"  # {rule}: true   # {cause_line(error)}")
            continue
        lines += _rule(rule, problems, takes_exceptions=takes_exceptions)
    # Where no rule holds there are comments alone, and a section must not be empty.
    return ["rules:" if any(not line.lstrip().startswith("#") for line in lines) else "# rules:", *lines]


def _rule(rule: str, problems: list[Problem], *, takes_exceptions: bool) -> list[str]:
    paths = [problem.path for problem in problems]
    if not problems:
        return [f"  {rule}: true"]
    if rule == "no-secrets" or not takes_exceptions or "…" in paths or len(paths) > _MOST_EXCEPTIONS:
        return [f"  # {rule}: true   # the image breaks it:", *(f"  #   {json.dumps(path)}" for path in paths)]
    exceptions: Iterable[str] = (f"      - {quoted(glob.escape(path))}" for path in paths)
    return [f"  {rule}:", "    except:", *exceptions]


SECTIONS: dict[str, Section] = {
    "image": _image,
    "os": _os,
    "files": _files,
    "packages": _packages,
    "users": _users,
    "groups": _groups,
    "services": _services,
    "fstab": _fstab,
    "kernel-cmdline": _kernel_cmdline,
    "disk": _disk,
    "partitions": _partitions,
    "rules": _rules,
}
