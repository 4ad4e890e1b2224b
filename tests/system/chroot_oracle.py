"""A program that says what os functions give inside a chroot; root only.

Reads one JSON question a line, ``{"root": FOLDER, "calls": [[NAME, ARGUMENT…], …]}``, and answers with one JSON line, a
list of ``["value", VALUE]`` or ``["errno", NUMBER]``. Each question is answered by a child that entered the folder.
"""

# The plain functions of os are the measure here.
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH110, PTH115, PTH116, PTH121, PTH208, PTH211

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any


def status(result: os.stat_result) -> list[int]:
    """What must be equal: the very inode, and not only one that looks alike."""
    return [stat.S_IFMT(result.st_mode), result.st_dev, result.st_ino, result.st_size]


def tell(path: str) -> list[Any]:
    """Every reading operation on ``path``, each as a call of its own."""
    return [[name, path] for name in ("stat", "lstat", "readlink", "read", "names", "walk", "resolve", "exists")]


def walk(path: str) -> list[Any]:
    """os.walk in the form of pathlib's: a link to a folder is among the files."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for folder, folders, files in os.walk(path, onerror=fail):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found.append([folder, sorted(set(folders) - set(links)), sorted(files + links)])
    return sorted(found)


def call(name: str, *args: Any) -> Any:
    """One operation as ``os`` and the builtins do it."""
    first = args[0]
    match name:
        case "stat":
            return status(os.stat(first))
        case "lstat":
            return status(os.lstat(first))
        case "readlink":
            return str(Path(os.readlink(first)))
        case "read":
            return Path(first).read_text()
        case "names":
            return sorted(os.listdir(first))
        case "walk":
            return walk(first)
        case "resolve":
            os.stat(first)  # realpath takes ".." after a file for its folder, which no system call does
            return os.path.realpath(first, strict=True)
        case "exists":
            return os.path.exists(first)
        case "samefile":
            return os.path.samefile(first, args[1])
        case "glob":
            return sorted({str(path) for path in Path(first).glob(args[1])})
        case "write":
            return Path(first).write_text(args[1])
        case "mkdir":
            return os.mkdir(first)
        case "rmdir":
            return os.rmdir(first)
        case "unlink":
            return os.unlink(first)
        case "touch":
            return Path(first).touch()
        case "chmod":
            return os.chmod(first, args[1])
        case "symlink":
            return os.symlink(args[1], first)
        case "link":
            return os.link(args[1], first, follow_symlinks=False)
        case "rename":
            return os.rename(first, args[1])
    raise AssertionError(name)


def answers(calls: list[list[Any]]) -> list[list[Any]]:
    """The outcome of each call, in order."""
    found: list[list[Any]] = []
    for name, *args in calls:
        try:
            found.append(["value", call(name, *args)])
        except OSError as error:
            found.append(["errno", error.errno])
    return found


def serve() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                os.chroot(question["root"])
                os.chdir("/")
                sys.stdout.write(json.dumps(answers(question["calls"])) + "\n")
                sys.stdout.flush()
                failed = 0
            finally:
                os._exit(failed)
        if os.waitpid(child, 0)[1]:
            sys.exit("the child that answers has failed")


if __name__ == "__main__":
    serve()
