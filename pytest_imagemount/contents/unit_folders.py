"""The folders that systemd reads units from, as one snapshot: names, kinds and texts of links, each read once."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from .reading import entries, link_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

Kind = Literal["file", "empty", "link", "folder", "device", "other"]

ETC = "/etc/systemd/system"
GENERATED = ("/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late")
TRANSIENT = "/run/systemd/transient"
_SPLIT, _MERGED = "/lib/systemd/system", "/usr/lib/systemd/system"

# The order of systemd.unit(5), table 1. /lib counts where it is a folder of its own (systemd built with "split-usr").
SEARCH_PATH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    TRANSIENT,
    "/run/systemd/generator.early",
    ETC,
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    _SPLIT,
    _MERGED,
    "/run/systemd/generator.late",
)
PRESET_FOLDERS = tuple(
    f"{folder}/systemd/system-preset" for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)


def kind_of(path: ImagePath) -> Kind | None:
    """What ``path`` is, a link not followed; None where there is nothing."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISREG(status.st_mode):
        return "file" if status.st_size else "empty"
    kinds: dict[int, Kind] = {stat.S_IFLNK: "link", stat.S_IFDIR: "folder", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(status.st_mode), "other")


@dataclass(frozen=True)
class UnitFolder:
    """One folder of the search path.

    :param place: its path as systemd has it
    :param names: its files and links
    :param others: names of what is neither
    :param links: name of each link in it, to the text of the link
    :param pulled: names of the links in each ``NAME.wants`` and ``NAME.requires`` folder, by the folder's name
    :param drop_ins: names of its ``NAME.d`` folders
    """

    place: str
    path: ImagePath
    names: frozenset[str]
    others: frozenset[str]
    links: dict[str, str] = field(default_factory=dict)
    pulled: dict[str, frozenset[str]] = field(default_factory=dict)
    drop_ins: frozenset[str] = frozenset()

    @property
    def is_runtime(self) -> bool:
        """Whether it is empty again after a boot."""
        return is_runtime(self.place)

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """The names of links, by the last part of what they say."""
        found: dict[str, list[str]] = {}
        for name, text in self.links.items():
            found.setdefault(text.rpartition("/")[2], []).append(name)
        return found


def is_runtime(place: str) -> bool:
    """Whether a file or folder is below ``/run``."""
    return f"{place}/".startswith("/run/")


def read_unit_folders(root: ImagePath) -> list[UnitFolder]:
    """The folders that exist, the one that wins first; one that has two names only once."""
    found: list[UnitFolder] = []
    seen: set[ImagePath] = set()
    if (root / _SPLIT).resolve() == (root / _MERGED).resolve():
        seen.add(root / _SPLIT)
    for place in SEARCH_PATH:
        path = root / place
        if path.is_dir() and not {path, path.resolve()} & seen:
            seen.add(path.resolve())
            found.append(_read_folder(place, path))
    return found


def _read_folder(place: str, path: ImagePath) -> UnitFolder:
    listing = entries(path)
    links = {entry.name: link_text(path / entry.name) or "" for entry in listing if entry.is_link}
    folders = [entry.name for entry in listing if entry.is_folder]
    files = {entry.name for entry in listing} - links.keys() - set(folders)
    regular = {name for name in files if (path / name).is_file(follow_symlinks=False)}
    pulling = (name for name in folders if name.endswith((".wants", ".requires")))
    return UnitFolder(
        place,
        path,
        names=frozenset(regular | links.keys()),
        others=frozenset(folders) | (files - regular),
        links=links,
        pulled={name: frozenset(link.name for link in entries(path / name) if link.is_link) for name in pulling},
        drop_ins=frozenset(name for name in (*folders, *links) if name.endswith(".d")),
    )


def configuration_files(folders: list[ImagePath], suffix: str) -> Iterator[ImagePath]:
    """The files of all ``folders`` by name, each name from the first folder that has it: systemd's drop-in rule."""
    chosen: dict[str, ImagePath] = {}
    for folder in folders:
        for entry in entries(folder):
            if entry.name.endswith(suffix):
                chosen.setdefault(entry.name, folder / entry.name)
    return (path for _, path in sorted(chosen.items()))
