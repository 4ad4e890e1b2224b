"""Who builds an image: this process, or when that is root's, a child that has given up all privilege."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.factory import build_image, folder

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534

assert folder  # imported here, since an unprivileged child may not be able to read the package


class Builder:
    """Builds images in a folder of its own as user ``uid``, or as the calling user."""

    def __init__(self, folder: Path, uid: int | None) -> None:
        self.folder, self._uid = folder, uid

    def __call__(self, name: str = "image", **options: Any) -> Path:
        path = self.folder / name
        if self._uid is None:
            return build_image(path, **options)
        _run_as(self._uid, lambda: build_image(path, **options))
        return path


@contextmanager
def builder_of(uid: int | None) -> Iterator[Builder]:
    """A builder with a folder that ``uid`` can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="imagemount-builder-"))
    try:
        if uid is not None:
            os.chown(folder, uid, uid)
        yield Builder(folder, uid)
    finally:
        shutil.rmtree(folder)


BUILDERS = [
    pytest.param(None, id="by-me"),
    pytest.param(NOBODY, id="by-nobody", marks=pytest.mark.needs("root")),
]


def _run_as(uid: int, action: Any) -> None:
    """Run ``action`` in a child process as ``uid``; a failure there is an AssertionError here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0o077)
            action()
        except BaseException:  # noqa: BLE001 - all goes to the parent
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
        failure = pipe.read().decode()
    os.waitpid(child, 0)
    assert not failure, failure
