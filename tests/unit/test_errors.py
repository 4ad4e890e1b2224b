from __future__ import annotations

import json
import pickle

import pytest

from pytest_imagemount import errors

EXAMPLES = [
    errors.ImageNotFound(image="a.raw", looked=["/x/a.raw", "/y/a.raw"]),
    errors.ImageUnreadable(image="a.raw", mode="rw", reason="Permission denied", hint="chmod it"),
    errors.ImageUnsafe(image="a.qcow2", reason="it has a backing file", hint="flatten it"),
    errors.PartitionNotFound(image="a.raw", wanted=9, reason="there is none", table="1  16 MiB"),
    errors.MountFailed(image="a.raw", partition=1, fstype="ext4", errno=22, reason="Invalid argument", hint="fsck"),
    errors.DeviceFailed(image="a.raw", device="/dev/loop1", reason="refused", hint="try", errno=16),
    errors.DeviceTimeout(image="a.raw", waited=60.2, holders=["nbd0: pid 7"]),
    errors.ProgramFailed(argv=["mke2fs", "x"], returncode=1, reason="exit status 1", stderr="no"),
    errors.TeardownError(subject="image a.raw", failures=["unmount /x: busy"]),
    errors.PassphraseWrong(image="a.raw", place="partition 2"),
    errors.VolumeNotFound(
        image="a.raw", wanted="vg/x", reason="there is none", hint="say one of:", volumes=["vg/y  1 MiB"]
    ),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_the_way_between_processes(error: errors.ImageMountError) -> None:
    error.add_note("seen by worker gw1")
    for copy in (pickle.loads(pickle.dumps(error)), errors.from_wire(json.loads(json.dumps(error.to_wire())))):
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.__notes__ == ["seen by worker gw1"]
        assert vars(copy).keys() == vars(error).keys()


def test_errors_are_builtins_too_and_carry_errno() -> None:
    for builtin, kind in [
        (FileNotFoundError, errors.ImageNotFound),
        (PermissionError, errors.ImageUnreadable),
        (ValueError, errors.ImageInvalid),
        (LookupError, errors.PartitionNotFound),
        (TimeoutError, errors.DeviceTimeout),
        (OSError, errors.MountFailed),
    ]:
        assert issubclass(kind, builtin)
        assert issubclass(kind, errors.ImageMountError)
    assert EXAMPLES[4].errno == 22  # type: ignore[attr-defined]


def test_an_error_of_a_newer_version_still_has_its_text() -> None:
    wire = {"type": "FromTheFuture", "args": ["something happened"], "kwargs": {}, "notes": []}
    assert str(errors.from_wire(wire)) == "something happened"
