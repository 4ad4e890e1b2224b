"""ext2, ext3 and ext4 by mke2fs and debugfs.

``mke2fs -d`` takes owners from the staged files, which a plain user cannot give away, and before 1.47.1 its inode
numbers follow the order of readdir. A debugfs script creates every inode instead, in the order of the tree: equal
content gives equal bytes, whoever builds.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import TYPE_CHECKING

from ... import programs
from ...errors import ProgramFailed, RequestInvalid
from ..content import Device, Directory, File, Hardlink, Symlink
from ..sizes import MIB
from ..staging import data_bytes
from .modes import full_mode, wide_number
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from ..content import Entry, Node, Tree

_ROOT_INODE, _LOST_FOUND_INODE, _FIRST_INODE = 2, 11, 12
_MKNOD = {"char": "mknod {} c 0 0", "block": "mknod {} b 0 0", "fifo": "mknod {} p"}
_PLACEHOLDER = ".imagemount-placeholder"
_ECHO = re.compile(rb"(debugfs[: ].*|Allocated inode: [0-9]+|)")
_LISTED = re.compile(rb"/([0-9]+)/([0-7]{6})/([0-9]+)/([0-9]+)/([^/]+)/([0-9]*)/\n", re.DOTALL)


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    _check_journal(volume, target)
    block = ["-b", "4096"] if volume.sector_size == 4096 else []
    seed = uuid.uuid5(uuid.UUID(volume.uuid), "directory hash seed")
    argv = ["mke2fs", "-q", "-F", "-t", volume.fstype, "-U", volume.uuid, "-L", volume.label, *block]
    argv += ["-E", f"root_owner=0:0,hash_seed={seed}", "-N", str(_inode_count(volume.tree, target.stat().st_size))]
    programs.run([*argv, *volume.options, str(target)], extra_environment=volume.environment())
    inodes = _number_inodes(volume.tree)
    for batch in _batches(_commands(volume.tree, inodes, scratch)):
        _debugfs(target, batch, volume, scratch)
    _verify(target, volume, inodes, scratch)


def _check_journal(volume: Volume, target: Path) -> None:
    # mke2fs makes no journal in less than 2048 blocks of 1 KiB, and calls that a success.
    if volume.fstype != "ext2" and target.stat().st_size < 2 * MIB:
        reason = f"{volume.fstype} needs at least 2M, or it has no room for a journal; or take ext2"
        raise RequestInvalid(argument="size", value=str(target.stat().st_size), reason=reason)


def _inode_count(tree: Tree, size: int) -> int:
    return max(size // 16384, 1024, len(tree.entries) + len(tree.entries) // 8 + 64)


def _default_size(tree: Tree) -> int:
    return max(16 * MIB, 12 * MIB + tree.data_size(4096) * 17 // 16 + len(tree.entries) * 1024)


def _number_inodes(tree: Tree) -> dict[str, int]:
    """The inode number of every path. debugfs takes the lowest that is free, so they follow the order of creation."""
    inodes, following = {"": _ROOT_INODE}, _FIRST_INODE
    for path, entry in tree.entries.items():
        if path == "lost+found":
            inodes[path] = _LOST_FOUND_INODE
        elif isinstance(entry, Hardlink):
            inodes[path] = inodes[entry.target]
        else:
            inodes[path], following = following, following + 1
    return inodes


def _commands(tree: Tree, inodes: dict[str, int], scratch: Path) -> list[str]:
    commands = _field_commands(_ROOT_INODE, tree.root, tree)
    links = dict.fromkeys(inodes.values(), 1)
    for path, entry in tree.entries.items():
        parent, _, name = path.rpartition("/")
        number, folder = inodes[path], inodes[parent]
        if isinstance(entry, Hardlink):
            links[number] += 1
            commands += [_link(number, folder, name), f"sif <{number}> links_count {links[number]}"]
        elif isinstance(entry, Directory):
            commands += [] if path == "lost+found" else _creation(number, folder, name, "mkdir {}")
            commands += _field_commands(number, entry, tree)
        elif isinstance(entry, Symlink):
            commands += _symlink(number, folder, name, entry.target)
            commands += _field_commands(number, entry, tree)
        elif isinstance(entry, Device):
            commands += _creation(number, folder, name, _MKNOD[entry.kind])
            commands += _device_commands(number, entry)
            commands += _field_commands(number, entry, tree)
        else:
            data = _quote(str(_data_file(entry, scratch / f"data-{number}")))
            commands += _creation(number, folder, name, f"write {_literal(data)} {{}}")
            commands += _field_commands(number, entry, tree)
            commands += _attribute_commands(number, entry, scratch)
    return commands


def _creation(number: int, folder: int, name: str, command: str) -> list[str]:
    """``command``, with the name at ``{}``, in the folder with inode ``folder``.

    A script is read by lines. A name with a newline is given afterwards, by a command on its own.
    """
    if "\n" not in name:
        return [f"cd <{folder}>", command.format(_quote(name))]
    moves = [_link(number, folder, name), f"cd <{folder}>", f"unlink {_PLACEHOLDER}"]
    return [f"cd <{folder}>", command.format(_PLACEHOLDER), *moves]


def _symlink(number: int, folder: int, name: str, target: str) -> list[str]:
    if "\n" not in target:
        return _creation(number, folder, name, f"symlink {{}} {_literal(_quote(target))}")
    # A command on its own runs in the root folder.
    made = f"symlink {_PLACEHOLDER} {_quote(target)}"
    return [made, _link(number, folder, name), f"cd <{_ROOT_INODE}>", f"unlink {_PLACEHOLDER}"]


def _link(number: int, folder: int, name: str) -> str:
    return f"ln <{number}> {_quote(f'<{folder}>/{name}')}"


def _field_commands(number: int, entry: Node, tree: Tree) -> list[str]:
    fields = {"mode": f"0{full_mode(entry):o}", "uid": str(entry.uid), "gid": str(entry.gid)}
    fields |= dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{tree.time(entry)}")
    return [f"sif <{number}> {name} {value}" for name, value in fields.items()]


def _device_commands(number: int, device: Device) -> list[str]:
    if device.kind == "fifo":
        return []
    # debugfs takes no minor above 255. The wide form of a device number is in the second block field of the inode.
    return [f"sif <{number}> block[0] 0", f"sif <{number}> block[1] {wide_number(device)}"]


def _attribute_commands(number: int, file: File, scratch: Path) -> list[str]:
    commands = []
    for index, (name, value) in enumerate(sorted(file.xattrs.items())):
        holder = scratch / f"attribute-{number}-{index}"
        holder.write_bytes(value)
        commands.append(f"ea_set -f {_quote(str(holder))} <{number}> {_quote(name)}")
    return commands


def _data_file(file: File, spare: Path) -> os.PathLike[str]:
    """A file of this machine with the data of ``file``: its own, or ``spare``, written here."""
    if isinstance(file.data, (str, bytes)):
        spare.write_bytes(data_bytes(file.data))
        return spare
    return file.data.absolute()


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """``text`` as it must stand in a format."""
    return text.replace("{", "{{").replace("}", "}}")


def _batches(commands: list[str]) -> list[list[str]]:
    """``commands`` in runs of debugfs: one that has a newline in it is a run of its own."""
    batches: list[list[str]] = [[]]
    for command in commands:
        if "\n" in command:
            batches += [[command], []]
        else:
            batches[-1].append(command)
    return [batch for batch in batches if batch]


def _debugfs(target: Path, commands: list[str], volume: Volume, scratch: Path) -> None:
    """Run ``commands``. debugfs ends with status 0 whatever fails, so anything that it says beyond its echo counts."""
    script = scratch / "script"
    script.write_bytes("".join(f"{command}\n" for command in commands).encode("utf-8", "surrogateescape"))
    what = ["-R", commands[0]] if "\n" in commands[0] else ["-f", str(script)]
    argv = ["debugfs", "-w", *what, str(target)]
    output = programs.run(argv, extra_environment=volume.environment(), merge_stderr=True)
    said = [line for line in output.split(b"\n") if not _ECHO.fullmatch(line)]
    if said:
        raise _failed(argv, b"\n".join(said[:20]).decode("utf-8", "backslashreplace"))


def _failed(argv: list[str], said: str) -> ProgramFailed:
    hint = "when it says that it could not allocate, give a larger size"
    return ProgramFailed(argv=argv, returncode=0, reason="could not write the content", stderr=said, hint=hint)


def _verify(target: Path, volume: Volume, inodes: dict[str, int], scratch: Path) -> None:
    """Read every folder back: each name has the inode, mode, owner and size that it should have."""
    folders = [inodes[path] for path, _ in volume.tree.folders()]
    script = scratch / "listing"
    script.write_text("".join(f"ls -p <{number}>\n" for number in folders))
    argv = ["debugfs", "-f", str(script), str(target)]
    output = programs.run(argv, extra_environment=volume.environment())
    found = {match.groups() for match in _LISTED.finditer(output)}
    for path, number in inodes.items():
        entry = volume.tree.entries.get(path)
        if entry is not None and _line(path, number, entry, volume.tree) not in found:
            raise _failed(argv, f"{path!r} is not in the image as asked for")


def _line(path: str, number: int, entry: Entry, tree: Tree) -> tuple[bytes, ...]:
    """The fields of the line that lists ``entry``."""
    if isinstance(entry, Hardlink):
        target = tree.entries[entry.target]
        assert not isinstance(target, Hardlink)
        entry = target
    name = os.fsencode(path.rpartition("/")[2])
    size = "0"
    if isinstance(entry, Directory):
        size = ""
    elif isinstance(entry, Symlink):
        size = str(len(os.fsencode(entry.target)))
    elif isinstance(entry, File):
        size = str(entry.size)
    fields = str(number), f"{full_mode(entry):06o}", str(entry.uid), str(entry.gid)
    return *(field.encode() for field in fields), name, size.encode()


KIND = FilesystemKind(make=_make, default_size=_default_size, minimum=256 * 1024, label_limit=16)
