"""How cryptsetup is called, and what its answers mean; no device is made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_imagemount.engine.volumes import dm, luks
from pytest_imagemount.errors import (
    CapabilityMissing,
    PassphraseRequired,
    PassphraseWrong,
    ProgramFailed,
    VolumeInvalid,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = b"correct\nhorse\n"


@dataclass
class FakeDevice:
    path: str = "/dev/loop7"


@dataclass
class FakeBlock:
    place: str = "partition 2"
    partition: None = None

    def device(self, ground: object) -> tuple[FakeDevice, int]:
        return FakeDevice(), 0


@dataclass
class FakeGround:
    key: int
    readonly: bool = True
    image: str = "disk.raw"
    folder: Path = Path("/nowhere")
    adopted: list[object] = field(default_factory=list)

    def new_name(self) -> str:
        return "imagemount-1-deadbeef-1-1"

    def adopt(self, device: object) -> object:
        self.adopted.append(device)
        return device


@dataclass
class Cryptsetup:
    """Takes the place of the program: notes how it was called, and fails as it is told to."""

    error: ProgramFailed | None = None
    argv: list[str] = field(default_factory=list)
    stdin: bytes = b""
    removed: list[str] = field(default_factory=list)

    def run(self, argv: list[str], *, stdin: bytes, **_: Any) -> bytes:
        self.argv, self.stdin = argv, stdin
        if self.error is not None:
            raise self.error
        return b""


@pytest.fixture
def cryptsetup(monkeypatch: pytest.MonkeyPatch) -> Cryptsetup:
    fake = Cryptsetup()
    monkeypatch.setattr(luks, "run", fake.run)
    monkeypatch.setattr(dm, "require", lambda: None)
    monkeypatch.setattr(dm, "hold", lambda name, **_: name)
    monkeypatch.setattr(dm, "remove", lambda name, **_: fake.removed.append(name))
    return fake


@pytest.fixture
def key() -> Iterator[int]:
    fd = os.memfd_create("key")
    os.write(fd, SECRET)
    yield fd
    os.close(fd)


def open_volume(ground: FakeGround) -> object:
    return luks.open_volume(cast("Any", ground), cast("Any", FakeBlock()))


def test_the_secret_goes_to_stdin_byte_for_byte_and_nowhere_else(cryptsetup: Cryptsetup, key: int) -> None:
    ground = FakeGround(key)
    assert open_volume(ground) == ground.adopted[0] == "imagemount-1-deadbeef-1-1"
    assert cryptsetup.stdin == SECRET
    assert all("horse" not in word for word in cryptsetup.argv)
    assert cryptsetup.argv[-2:] == ["/dev/loop7", "imagemount-1-deadbeef-1-1"]


def test_nothing_is_left_in_keyrings_and_nothing_is_loaded_for_the_header(cryptsetup: Cryptsetup, key: int) -> None:
    open_volume(FakeGround(key))
    assert {"--disable-keyring", "--disable-locks", "--disable-external-tokens"} <= {*cryptsetup.argv}


@pytest.mark.parametrize("readonly", [True, False])
def test_the_volume_is_writable_only_in_a_mode_that_writes(cryptsetup: Cryptsetup, key: int, readonly: bool) -> None:
    open_volume(FakeGround(key, readonly=readonly))
    assert ("--readonly" in cryptsetup.argv) == readonly


def test_without_a_key_cryptsetup_is_not_called(cryptsetup: Cryptsetup) -> None:
    with pytest.raises(PassphraseRequired, match=r"partition 2 is encrypted \(LUKS\); give passphrase= or key_file="):
        open_volume(FakeGround(-1))
    assert cryptsetup.argv == []


@pytest.mark.parametrize(
    ("status", "stderr", "error", "says"),
    [
        (2, "No key available with this passphrase.", PassphraseWrong, "partition 2: no key slot opens"),
        (127, "", CapabilityMissing, "cryptsetup is not installed"),
        (1, "Device /dev/loop7 is not a valid LUKS device.", VolumeInvalid, "not a valid LUKS device"),
        (-9, "", VolumeInvalid, "partition 2 was not opened: it failed"),
    ],
)
def test_what_cryptsetup_answers_is_told(
    status: int, stderr: str, error: type[Exception], says: str, cryptsetup: Cryptsetup, key: int
) -> None:
    cryptsetup.error = ProgramFailed(argv=["cryptsetup"], returncode=status, reason="it failed", stderr=stderr)
    with pytest.raises(error, match=says):
        open_volume(FakeGround(key))
    assert cryptsetup.removed == ["imagemount-1-deadbeef-1-1", "imagemount-1-deadbeef-1-1_dif"]
