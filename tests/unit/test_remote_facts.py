"""Facts for a user who is not root: what the helper is asked for, with the helper's own code behind it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, cast

import pytest

from pytest_imagemount.helper import inside
from pytest_imagemount.helper.messages import MAX_MESSAGE
from pytest_imagemount.helper.protocol import OpenInside, XattrsInside, decode_request, encode_request
from pytest_imagemount.image_root import LocalOpener
from pytest_imagemount.mounted_image import MountedImage
from pytest_imagemount.remote_opener import RemoteOpener

from .trees import mounted, small_tree

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.client import Client


class Helper:
    """Answers as the helper does, from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[OpenInside | XattrsInside] = []

    def ask_for_file(self, request: OpenInside | XattrsInside) -> int:
        assert decode_request(json.loads(json.dumps(encode_request(request)))) == request
        self.requests.append(request)
        root = os.open(self.folder, os.O_PATH)
        try:
            if isinstance(request, OpenInside):
                return inside.open_inside(root, request)
            return inside.xattrs_inside(root, request)
        finally:
            os.close(root)


class Refusing(LocalOpener):
    """Has no right to anything below ``/etc``."""

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        if path.startswith("/etc"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return super().open(path, flags, mode)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


@pytest.fixture
def helper(tree: Path) -> Helper:
    return Helper(tree)


@pytest.fixture
def image(tree: Path, helper: Helper) -> MountedImage:
    opener = RemoteOpener(Refusing(tree), cast("Client", helper), 1)
    return MountedImage(mounted(tree).facts, lambda: None, opener=opener)


@pytest.fixture
def attributes(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the helper finds at every file; this process asks for none itself."""
    found = {"trusted.me": b"\0\xff", "user.\udcff": b""}
    monkeypatch.setattr(inside, "read_xattrs", lambda _, most: found)
    return found


def test_attributes_come_from_the_helper_alone(
    image: MountedImage, helper: Helper, attributes: dict[str, bytes]
) -> None:
    assert (image / "etc/hostname").xattrs() == attributes
    assert (image / "run").facts().xattrs == attributes
    asked = [request for request in helper.requests if isinstance(request, XattrsInside)]
    assert asked == [XattrsInside(1, ("/etc/hostname",), True), XattrsInside(1, ("/run",), True)]


def test_a_manifest_is_the_one_that_root_gets(
    image: MountedImage, helper: Helper, tree: Path, attributes: dict[str, bytes]
) -> None:
    found = {each.path: each for each in image.manifest()}
    for facts in mounted(tree).manifest():
        assert found[facts.path].xattrs == attributes
        assert (found[facts.path].sha256, found[facts.path].target) == (facts.sha256, facts.target)
    asked = [request for request in helper.requests if isinstance(request, XattrsInside)]
    assert len(asked) == 5, "one for the root, one for each folder that is not empty"


def test_requests_and_replies_of_any_size_fit(
    image: MountedImage, helper: Helper, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "read_xattrs", lambda _, most: {"user.a": bytes(1000)})
    monkeypatch.setattr(inside, "_XATTRS_A_REPLY", 20_000)
    for number in range(300):
        (tree / f"run/{number:03}{os.fsdecode(bytes([255])) * 200}").touch()
    manifest = image.manifest()
    assert sum(len(each.xattrs["user.a"]) for each in manifest) == 1000 * len(manifest)
    asked = [request for request in helper.requests if isinstance(request, XattrsInside)]
    assert len(asked) > 15
    assert all(len(json.dumps(encode_request(request))) < MAX_MESSAGE for request in asked)


def test_a_path_whose_attributes_are_refused_is_named(image: MountedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def read_xattrs(file: object, most: int) -> dict[str, bytes]:
        seen.append(file)
        if len(seen) == 4:  # after the root: etc, etc.d, run
            raise OSError(errno.EINVAL, "Invalid argument, for extended attribute 'security.capability'")
        return {}

    monkeypatch.setattr(inside, "read_xattrs", read_xattrs)
    with pytest.raises(OSError, match=r"security\.capability") as caught:
        image.manifest()
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "disk.raw partition 2:/run")
