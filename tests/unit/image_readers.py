"""What is in an image, by the programs that come with each file system: a second opinion that needs no privilege."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_imagemount import programs

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """Mode (permissions only), owner, and modification time where the program shows it, in seconds."""

    mode: int
    uid: int
    gid: int
    mtime: int | None = None


def ext_facts(image: Path, path: str) -> Facts:
    text = _debugfs(image, f'stat "/{path}"').decode()
    mode = re.search(r"Mode:\s+([0-7]+)", text)
    owner = re.search(r"User:\s+([0-9]+)\s+Group:\s+([0-9]+)", text)
    time = re.search(r"mtime: 0x([0-9a-f]+)", text)
    assert mode, text
    assert owner, text
    assert time, text
    return Facts(int(mode[1], 8), int(owner[1]), int(owner[2]), int(time[1], 16))


def ext_data(image: Path, path: str) -> bytes:
    return _debugfs(image, f'cat "/{path}"')


def ext_is_sound(image: Path) -> None:
    programs.run(["e2fsck", "-f", "-n", str(image)])


def _debugfs(image: Path, command: str) -> bytes:
    return programs.run(["debugfs", "-R", command, str(image)])


def squashfs_facts(image: Path, path: str) -> Facts:
    # The listing shows modes as letters; a squashfs of one name has its facts in one line.
    text = programs.run(["unsquashfs", "-UTC", "-lln", str(image)]).decode()
    line = next(line for line in text.splitlines() if re.search(rf" squashfs-root{re.escape(f'/{path}')}( ->|$)", line))
    letters, owner, *_ = line.split()
    uid, gid = owner.split("/")
    when = re.search(r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2})", line)
    assert when
    return Facts(_mode(letters), int(uid), int(gid), _minutes(when[1]))


def squashfs_data(image: Path, path: str) -> bytes:
    return programs.run(["unsquashfs", "-cat", str(image), path])


def _mode(letters: str) -> int:
    bits = 0
    for place, letter in enumerate(letters[1:10]):
        bits |= (letter in "rwxst") << 8 - place
    return bits | (letters[3] in "sS") << 11 | (letters[6] in "sS") << 10 | (letters[9] in "tT") << 9


def _minutes(text: str) -> int:
    from datetime import UTC, datetime

    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp())


def erofs_facts(image: Path, path: str) -> Facts:
    text = programs.run(["dump.erofs", f"--path=/{path}", str(image)], extra_environment={"TZ": "UTC"}).decode()
    match = re.search(r"Uid: ([0-9]+)\s+Gid: ([0-9]+)\s+Access: ([0-7]+)/", text)  # 0777 only
    when = re.search(r"Timestamp: ([0-9-]+ [0-9]+:[0-9]+):([0-9]+)", text)
    assert match, text
    assert when, text
    return Facts(int(match[3], 8), int(match[1]), int(match[2]), _minutes(when[1]) + int(when[2]))


def erofs_data(image: Path, path: str) -> bytes:
    folder = image.parent / f"{image.name}.extracted"
    # Owners cannot be set by a plain user, and need not be: data is what is asked for.
    programs.run(["fsck.erofs", "--no-preserve", f"--extract={folder}", "--overwrite", str(image)])
    return (folder / path).read_bytes()


def erofs_is_sound(image: Path) -> None:
    programs.run(["fsck.erofs", str(image)])


def xfs_facts(image: Path, path: str) -> Facts:
    script = f"path /{path}\nprint core.mode core.uid core.gid\n".encode()
    text = programs.run(["xfs_db", "-r", str(image)], stdin=script).decode()
    mode, uid, gid = (line.split(" = ")[1] for line in text.splitlines() if line.startswith("core."))
    return Facts(int(mode, 8) & 0o7777, int(uid), int(gid))


def xfs_is_sound(image: Path) -> None:
    programs.run(["xfs_repair", "-n", "-f", str(image)])


def btrfs_facts(image: Path, path: str) -> Facts:
    inodes, names = _btrfs_tree(image)
    number = 256
    for part in path.split("/") if path else []:
        number = names[number, part]
    return inodes[number]


def btrfs_is_sound(image: Path) -> None:
    programs.run(["btrfs", "check", "--check-data-csum", str(image)])


def _btrfs_tree(image: Path) -> tuple[dict[int, Facts], dict[tuple[int, str], int]]:
    text = programs.run(["btrfs", "inspect-internal", "dump-tree", "-t", "5", str(image)]).decode()
    inodes, names = dict[int, Facts](), dict[tuple[int, str], int]()
    for item in re.split(r"^\titem ", text, flags=re.MULTILINE)[1:]:
        key = re.match(r"[0-9]+ key \(([0-9]+) ([A-Z_]+) [0-9]+\)", item)
        assert key
        if key[2] == "INODE_ITEM":
            facts = re.search(r"mode ([0-7]+) links [0-9]+ uid ([0-9]+) gid ([0-9]+)", item)
            time = re.search(r"mtime ([0-9]+)\.", item)
            assert facts, item
            assert time, item
            inodes[int(key[1])] = Facts(int(facts[1], 8) & 0o7777, int(facts[2]), int(facts[3]), int(time[1]))
        if key[2] == "DIR_INDEX":
            entry = re.search(r"location key \(([0-9]+) .*name: ([^\n]*)", item, re.DOTALL)
            assert entry, item
            names[int(key[1]), entry[2]] = int(entry[1])
    return inodes, names


def vfat_data(image: Path, path: str) -> bytes:
    return programs.run(["mtype", "-i", str(image), f"::/{path}"])


def vfat_is_sound(image: Path) -> None:
    programs.run(["fsck.vfat", "-n", str(image)])


def sfdisk_table(image: Path) -> dict[str, object]:
    """The partition table as ``sfdisk --json`` reads it, after ``sfdisk --verify`` found no fault."""
    import json

    verdict = subprocess.run(
        ["sfdisk", "--verify", image], capture_output=True, text=True, check=True, env=programs.environment()
    )
    assert "No errors detected" in verdict.stdout + verdict.stderr, verdict
    found = json.loads(programs.run(["sfdisk", "--json", str(image)]))["partitiontable"]
    assert isinstance(found, dict)
    return found
