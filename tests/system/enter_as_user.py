"""Become a plain user and run a program: ``enter_as_user.py JSON PROGRAM …``, as root in a new mount namespace.

The JSON object has ``name``, ``uid``, ``gid``, ``home`` and ``needed``: folders that the user shall reach, though one
that they lie in may be closed. Such a folder is covered by an empty one, into which the needed ones are bound.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path


def closed_ancestor(folder: Path) -> Path | None:
    """The topmost folder on the way to ``folder`` that others may not enter."""
    for path in reversed((folder, *folder.parents)):
        if not path.stat().st_mode & stat.S_IXOTH:
            return path
    return None


def open_up(closed: Path, needed: list[Path]) -> None:
    """Cover ``closed`` by an open folder that has only the ``needed`` folders in it."""
    aside = Path(tempfile.mkdtemp(prefix="imagemount-aside-"))
    mount("--rbind", str(closed), str(aside))
    aside_of = {folder: aside / folder.relative_to(closed) for folder in needed}
    mount("-t", "tmpfs", "-o", "mode=755,size=1m", "closed", str(closed))
    for folder, origin in aside_of.items():
        folder.mkdir(parents=True, exist_ok=True)
        mount("--rbind", str(origin), str(folder))
    subprocess.run(["umount", "--recursive", "--lazy", str(aside)], check=True)
    aside.rmdir()


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    who = json.loads(sys.argv[1])
    folder = Path.cwd()
    needed: dict[Path, list[Path]] = {}
    for path in sorted({Path(name) for name in who["needed"]}):
        closed = closed_ancestor(path)
        if closed is not None and not any(path.is_relative_to(other) for other in needed.get(closed, [])):
            needed.setdefault(closed, []).append(path)
    for closed, folders in needed.items():
        open_up(closed, folders)
    os.chdir(folder)
    os.initgroups(who["name"], who["gid"])
    os.setresgid(who["gid"], who["gid"], who["gid"])
    os.setresuid(who["uid"], who["uid"], who["uid"])
    kept = {name: os.environ[name] for name in ("PATH", "TERM", "IMAGEMOUNT_REQUIRE") if name in os.environ}
    environment = {**kept, "HOME": who["home"], "USER": who["name"], "LOGNAME": who["name"], "TMPDIR": who["home"]}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execvpe(sys.argv[2], sys.argv[2:], environment)


if __name__ == "__main__":
    main()
