"""LUKS 1 and 2, opened by cryptsetup. The secret goes to its stdin, and nowhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, PassphraseRequired, PassphraseWrong, ProgramFailed, VolumeInvalid
from ...programs import run
from . import dm

if TYPE_CHECKING:
    from .ground import Block, Ground

_TIMEOUT = 60.0
"""Seconds that the derivation of a key may take, which the image's header decides."""
_WRONG_PASSPHRASE, _NOT_FOUND = 2, 127  # exit status; cryptsetup(8), "Return codes"
_ENVIRONMENT = {
    # The node is made by cryptsetup itself: no wait for a udev that may not be there, and one that is gets no sign that
    # it should look for physical volumes in the device (DM_UDEV_PRIMARY_SOURCE_FLAG, 69-dm-lvm.rules).
    "DM_DISABLE_UDEV": "1",
}
_LONGEST_KEY = 8 << 20


def open_volume(ground: Ground, block: Block) -> dm.MappedDevice:
    """The device of what is encrypted in ``block``.

    :raises PassphraseRequired: there is no key
    :raises PassphraseWrong: no key slot opens with it
    :raises VolumeInvalid: the header is damaged, or of a kind that cryptsetup does not know
    :raises CapabilityMissing: cryptsetup or the device mapper is missing
    """
    number = block.partition.number if block.partition else None
    if ground.key < 0:
        reason, hint = f"{block.place} is encrypted (LUKS)", "give passphrase= or key_file="
        raise PassphraseRequired(image=ground.image, partition=number, found="crypto_LUKS", reason=reason, hint=hint)
    dm.require()
    device, _ = block.device(ground)
    name = ground.new_name()
    # The header of an image is not to say which library of this machine cryptsetup loads (its option since 2.4).
    argv = ["cryptsetup", "open", "--type", "luks", "--batch-mode", "--key-file=-", "--disable-external-tokens"]
    # Not to the kernel's keyring, from which nobody would remove it; no lock files, the device is ours alone.
    argv += ["--disable-keyring", "--disable-locks", *(["--readonly"] if ground.readonly else []), device.path, name]
    try:
        run(argv, stdin=os.pread(ground.key, _LONGEST_KEY, 0), extra_environment=_ENVIRONMENT, timeout=_TIMEOUT)
        found = dm.hold(name, image=ground.image, readonly=ground.readonly, node_folder=ground.folder)
    except ProgramFailed as error:
        raise _refused(ground.image, block.place, error) from error
    finally:
        # With authenticated encryption there is a second mapping below it.
        for made in (name, f"{name}_dif"):
            dm.remove(made, deferred=True)
    return ground.adopt(found)


def _refused(image: str, place: str, error: ProgramFailed) -> Exception:
    if error.returncode == _WRONG_PASSPHRASE:
        return PassphraseWrong(image=image, place=place)
    if error.returncode == _NOT_FOUND:
        return CapabilityMissing(capability="cryptsetup", reason="cryptsetup is not installed", hint=error.hint)
    said = error.stderr.splitlines()[-1] if error.stderr else error.reason
    hint = "see `cryptsetup luksDump`, and the kernel log (dmesg)"
    return VolumeInvalid(image=image, reason=f"the LUKS volume in {place} was not opened: {said}", hint=hint)
