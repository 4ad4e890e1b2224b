"""vfat by mkfs.vfat and mtools. It has no owners, modes or links, and names as DOS and Windows take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import programs
from ...errors import RequestInvalid
from ..content import Directory, File
from ..sizes import KIB, MIB, round_up
from ..staging import stage_tree
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from ..content import Tree

_FORBIDDEN = set('\\:*?"<>|') | {chr(code) for code in range(32)} | {"\x7f"}
_FIRST_TIME = 315_532_800
_NAMES_AT_ONCE = 200
_DEFAULT_SLOTS = 512


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    _check_names(volume.tree)
    label = ["-n", volume.label] if volume.label else []
    slots = _root_slots(volume.tree)
    label += ["-r", str(slots)] if slots > _DEFAULT_SLOTS else []
    argv = ["mkfs.vfat", "--invariant", "-i", volume.uuid, "-S", str(volume.sector_size), *label, *volume.options]
    programs.run([*argv, str(target)], extra_environment=volume.environment())
    staged = scratch / "tree"
    stage_tree(volume.tree, staged)
    inside = volume.tree.by_folder()
    for path, folder in volume.tree.folders():
        # mtools takes the time of a new folder from SOURCE_DATE_EPOCH, and by TZ writes it as UTC.
        times = {"SOURCE_DATE_EPOCH": str(volume.tree.time(folder)), "MTOOLS_SKIP_CHECK": "1"}
        environment = volume.environment() | times
        if path:
            programs.run(["mmd", "-i", str(target), f"::/{path}"], extra_environment=environment)
        files = [str(staged / inner) for _, inner, entry in inside.get(path, ()) if isinstance(entry, File)]
        for start in range(0, len(files), _NAMES_AT_ONCE):
            batch = files[start : start + _NAMES_AT_ONCE]
            programs.run(["mcopy", "-m", "-i", str(target), *batch, f"::/{path}"], extra_environment=environment)


def _check_names(tree: Tree) -> None:
    seen: dict[str, str] = {}
    for path, entry in tree.entries.items():
        name = path.rpartition("/")[2]
        other = seen.setdefault(path.upper(), path)
        if set(name) & _FORBIDDEN or name.endswith((".", " ")) or name.startswith(" "):
            reason = (
                'a name on vfat has none of \\ : * ? " < > | or control characters, no space at its ends, no last dot'
            )
        elif any("\udc80" <= character <= "\udcff" for character in name):
            reason = "a name on vfat is Unicode text; these bytes are not UTF-8"
        elif len(name.encode("utf-16-le")) > 2 * 255:
            reason = "a name on vfat has at most 255 characters"
        elif other != path:
            reason = f"is the same name as {other!r} on vfat, which does not tell upper from lower case"
        elif isinstance(entry, (File, Directory)) and tree.explicit and tree.time(entry) < _FIRST_TIME:
            reason = "times on vfat begin with the year 1980"
        else:
            continue
        raise RequestInvalid(argument="content", value=repr(path), reason=reason)


def _root_slots(tree: Tree) -> int:
    """Slots that the root folder needs: in FAT12 and FAT16 it cannot grow. A name takes one for 13 characters."""
    names = [path for path in tree.entries if "/" not in path]
    return round_up(sum(2 + len(name.encode("utf-16-le")) // 26 for name in names) + 2, 16)


def _default_size(tree: Tree) -> int:
    return max(4 * MIB, 2 * MIB + tree.data_size(4 * KIB) * 33 // 32 + len(tree.entries) * 5 * KIB)


KIND = FilesystemKind(
    make=_make,
    default_size=_default_size,
    minimum=64 * KIB,
    label_limit=11,
    lacks=frozenset({"owners", "links", "hardlinks", "devices", "xattrs"}),
)
