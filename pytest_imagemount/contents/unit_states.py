"""The state of a systemd unit in an image, by the rules of `systemctl --root=… is-enabled` (systemd 252).

Two steps. *Discovery*: from the name to its file, over the search path, links and templates. *Enablement*: which links
there are to it. Source: systemctl(1) for the meaning of the states; where it is silent, what systemd does.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from . import unit_names
from .reading import read_bytes
from .unit_folders import ETC, GENERATED, SEARCH_PATH, TRANSIENT, configuration_files, is_runtime, kind_of
from .unit_install import BadUnit, Install

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..image_path import ImagePath
    from .unit_folders import UnitFolder

State = Literal[
    "enabled",
    "enabled-runtime",
    "linked",
    "linked-runtime",
    "alias",
    "masked",
    "masked-runtime",
    "static",
    "indirect",
    "disabled",
    "generated",
    "transient",
    "bad",
]

_MOST_LINKS = 64  # UNIT_FILE_FOLLOW_SYMLINK_MAX
_MOST_BYTES = 4 << 20
_BROKEN = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
_Mode = Literal["regular", "linked", "alias", "masked"]


class NoSuchUnit(BadUnit):
    """No folder has a unit of that name."""


@dataclass
class _Found:
    """A unit on the way from its name to its file. ``path`` is in the image; ``target`` is where a link leads."""

    install: Install
    path: str = ""
    mode: _Mode = "regular"
    target: str = ""

    @property
    def name(self) -> str:
        return self.install.name


class UnitStates:
    """Answers for all units of one image.

    :param folders: the snapshot of its unit folders, the one that wins first
    """

    def __init__(self, root: ImagePath, folders: Sequence[UnitFolder]) -> None:
        self._root, self._folders = root, folders

    def state_of(self, name: str) -> tuple[State, str]:
        """The state, and the file that it was found in.

        :raises NoSuchUnit: there is none of that name
        """
        first = self._first_place(name)
        try:
            found = self._discover(name)
            return self._state(name, found), found.path
        except BadUnit:
            pass
        except OSError as error:
            if error.errno not in _BROKEN:
                raise
        if first is None:
            raise NoSuchUnit(name)
        return "bad", first

    def _first_place(self, name: str) -> str | None:
        names = [name, unit_names.template_of(name)] if unit_names.is_instance(name) else [name]
        places = (f"{folder.place}/{each}" for each in names for folder in self._folders if each in folder.names)
        return next(places, None)

    # Discovery

    def _discover(self, name: str) -> _Found:
        found = self._search(name)
        for _ in range(_MOST_LINKS):
            if found.mode in ("regular", "masked"):
                return found
            target = PurePosixPath(found.target).name
            if found.mode == "alias" and target != found.name:
                instance = unit_names.instance_of(found.name)
                if instance and unit_names.is_template(target):
                    made = unit_names.with_instance(target, instance)
                    if made is None:
                        raise BadUnit(f"{target} has no instance {instance!r}")
                    target = made
                if target != found.name:
                    found = self._search(target)
                    continue
            self._load(found, found.target)
        raise BadUnit(f"{name}: too many links")

    def _search(self, name: str) -> _Found:
        """The unit of that name, or its template, in the first folder that has it, with its drop-ins."""
        names = [name, unit_names.template_of(name)] if unit_names.is_instance(name) else [name]
        found = _Found(Install(name))
        for each in names:
            for folder in self._folders:
                if each in folder.names or each in folder.others:
                    self._load(found, f"{folder.place}/{each}")
                    if found.mode != "masked":
                        self._load_drop_ins(found, names)
                    return found
        raise NoSuchUnit(name)

    def _load(self, found: _Found, path: str) -> None:
        """Read the file at ``path``, or, of a link, where it leads."""
        plain = unit_names.instance_of(found.name) is None
        if not plain and unit_names.type_of(found.name) not in unit_names.WITH_TEMPLATES:
            raise BadUnit(f"{found.name}: units of this type have no templates")
        kind = kind_of(self._root / path)
        if kind is None:
            raise BadUnit(f"{path} leads nowhere")
        found.path = path
        if kind == "link":
            found.target, found.mode = self._resolve_link(found.name, path)
        elif kind in ("empty", "device"):
            found.mode = "masked"
        elif kind == "file":
            found.mode = "regular"
            found.install.read(read_bytes(self._root / path, _MOST_BYTES) or b"")
        else:
            raise BadUnit(f"{path} is no regular file")

    def _load_drop_ins(self, found: _Found, names: list[str]) -> None:
        folders: list[ImagePath] = []
        for name in names:
            for folder in self._folders:
                if f"{name}.d" in folder.drop_ins:
                    resolved = (folder.path / f"{name}.d").resolve()
                    folders += [] if resolved in folders else [resolved]
        for path in configuration_files(folders, ".conf"):
            resolved = path.resolve(strict=True)
            kind = kind_of(resolved)
            if kind == "file":
                found.install.read(read_bytes(resolved, _MOST_BYTES) or b"")
            elif kind not in ("empty", "device"):
                raise BadUnit(f"{path} is no regular file")

    def _resolve_link(self, name: str, path: str) -> tuple[str, _Mode]:
        """Where the link at ``path`` leads, its last part not followed, and what that makes of the unit."""
        link = self._root / path
        target = link.parent.joinpath(link.readlink())
        is_name = target.name not in ("", "..")
        target = target.parent.resolve() / target.name if is_name else target.resolve()
        text = str(target)
        if text == "/dev/null":
            return text, "masked"
        if not any(f"{text}/".startswith(f"{place}/") for place in SEARCH_PATH):
            return text, "linked"
        _check_alias(PurePosixPath(path).name, target.name)
        return text, "alias"

    # Enablement

    def _state(self, name: str, found: _Found) -> State:
        if found.mode == "masked":
            return "masked-runtime" if is_runtime(found.path) else "masked"
        if name != PurePosixPath(found.path).name and not unit_names.is_instance(found.name):
            return "alias"
        parent = str(PurePosixPath(found.path).parent)
        if parent in GENERATED:
            return "generated"
        if parent == TRANSIENT:
            return "transient"
        state = self._state_by_links(found, only_own_names=True)
        if state is not None:
            return state
        if self._state_by_links(found, only_own_names=False) is not None:
            return "indirect"
        if found.install.has_rules:
            return "disabled"
        return "indirect" if found.install.also else "static"

    def _state_by_links(self, found: _Found, *, only_own_names: bool) -> State | None:
        """What the links to the unit say; with ``only_own_names`` only those that enabling it would make count."""
        in_runtime = elsewhere = False
        same_name: set[str] = set()
        below_file = False
        for folder in self._folders:
            linked, same = _links_in(folder, found.install, only_own_names, below_file)
            if linked:
                if folder.place == ETC:
                    return "enabled"
                in_runtime |= folder.is_runtime
                elsewhere |= not folder.is_runtime
            elif same:
                same_name.add(folder.place)
            # What has the unit's own name in folders of less weight than its file's is hidden by it.
            below_file = below_file or found.path.startswith(f"{folder.place}/")
        if in_runtime:
            return "enabled-runtime"
        if elsewhere and unit_names.is_instance(found.name):
            return "static"
        if ETC in same_name:
            return "linked"
        return "linked-runtime" if any(is_runtime(place) for place in same_name) else None


def _links_in(folder: UnitFolder, install: Install, only_own_names: bool, below_file: bool) -> tuple[bool, bool]:
    """Whether a link in ``folder`` or its ``.wants`` and ``.requires`` enables the unit; whether one has its name."""
    name = install.name
    found: set[str] = set()
    for links in folder.pulled.values():
        found |= links & {name}
        if unit_names.is_template(name):
            found |= {link for link in links if _is_made_from(link, name)}
    to_unit = set(folder.targets.get(name, ()))
    named_so = {name} & set(folder.links) if not below_file else set()
    same = bool(to_unit & named_so)
    found |= (to_unit | named_so) - (to_unit & named_so)
    return bool(found & install.own_names() if only_own_names else found), same


def _is_made_from(name: str, template: str) -> bool:
    return unit_names.is_valid(name) and "@" in name and unit_names.template_of(name) == template


def _check_alias(name: str, target: str) -> None:
    """Raises BadUnit where systemd does not take the link ``name`` as an alias of ``target``."""
    if not unit_names.is_valid(target) or name == target or unit_names.type_of(name) != unit_names.type_of(target):
        raise BadUnit(f"{name} is no alias of {target}")
    if unit_names.type_of(name) not in unit_names.WITH_ALIASES:
        raise BadUnit(f"{name}: units of this type have no aliases")
    own, other = unit_names.instance_of(name), unit_names.instance_of(target)
    fits = own == other or (own is not None and own != "" and other == "")
    if not fits:
        raise BadUnit(f"{name} is no alias of {target}")
