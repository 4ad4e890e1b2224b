"""dm-verity: data that is read is checked against a tree of hashes, up to a root hash that the caller gives.

``verity=`` is the root hash, hexadecimal. The hashes are looked for, in this order,

- where the caller says: ``"HASH:3"`` in partition 3, ``"HASH@8388608"`` from that byte of the data's own partition on;
- in the partition whose UUID is the second half of the root hash (Discoverable Partitions Specification);
- in the one partition, or further image, that holds a hash tree; of several, in that whose type belongs to the data's.

Without ``partition=`` the data are in the partition whose UUID is the first half of the root hash.
Source: Documentation/admin-guide/device-mapper/verity.rst; cryptsetup's wiki, DMVerity.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RequestInvalid, VolumeInvalid
from . import dm
from .kinds import VERITY_HASHES

if TYPE_CHECKING:
    from typing import Self

    from .ground import Block, Ground, ImageBlock

_FORM = re.compile(r"([0-9a-fA-F]{32,256})(?::([0-9]{1,9})|@([0-9]{1,18}))?")
# struct verity_sb: signature, version, hash_type, uuid, algorithm, data_block_size, hash_block_size, data_blocks,
# salt_size, padding, salt.
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6s256s")
_SIGNATURE = b"verity\0\0"


@dataclass(frozen=True, slots=True)
class RootHash:
    """What the caller says: ``digest`` in lower case, and the number of the partition, or the byte, of the hashes."""

    digest: str
    partition: int | None = None
    offset: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The root hash in ``text``.

        :raises RequestInvalid: it is none
        """
        found = _FORM.fullmatch(text)
        if found is None or len(found[1]) % 2:
            reason = "must be a root hash in hexadecimal, and perhaps ':PARTITION' or '@BYTE', where its hashes are"
            raise RequestInvalid(argument="verity", value=repr(text), reason=reason)
        number, offset = (None if part is None else int(part) for part in found.groups()[1:])
        return cls(found[1].lower(), number, offset)

    @property
    def data_uuid(self) -> str:
        """The UUID of the partition with the data, where that follows the specification."""
        return str(uuid.UUID(self.digest[:32]))

    @property
    def hash_uuid(self) -> str:
        """The same for the hashes."""
        return str(uuid.UUID(self.digest[-32:]))


@dataclass(frozen=True, slots=True)
class HashTree:
    """What the superblock in front of the hashes says."""

    kind: int
    algorithm: str
    data_block: int
    hash_block: int
    data_blocks: int
    salt: str

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """The superblock in ``content``; None where there is none."""
        if len(content) < _SUPERBLOCK.size or not content.startswith(_SIGNATURE):
            return None
        _, version, kind, _, algorithm, data, hashes, blocks, salt_size, _, salt = _SUPERBLOCK.unpack_from(content)
        name = algorithm.partition(b"\0")[0].decode("ascii", "replace")
        sane = all(512 <= size <= 1 << 19 and size & (size - 1) == 0 for size in (data, hashes)) and salt_size <= len(
            salt
        )
        if version != 1 or not sane or not re.fullmatch(r"[a-z0-9_-]+", name):
            return None
        return cls(kind, name, data, hashes, blocks, salt[:salt_size].hex())

    def targets(self, data: str, hashes: str, start: int, root: str) -> list[dm.Target]:
        """The table; the devices are ``MAJOR:MINOR``, ``start`` is where this superblock is on ``hashes``, in bytes."""
        first_hash = start // self.hash_block + 1
        parameters = (
            f"{self.kind} {data} {hashes} {self.data_block} {self.hash_block} {self.data_blocks} {first_hash} "
            f"{self.algorithm} {root} {self.salt or '-'}"
        )
        return [dm.Target(0, self.data_blocks * self.data_block // dm.SECTOR, "verity", parameters)]


def open_volume(ground: Ground, block: Block, root: RootHash) -> dm.MappedDevice:
    """The device of the verified data in ``block``: what does not fit the root hash is read as an input/output error.

    :raises VolumeInvalid: there are no hashes for it, or the root hash is not theirs
    """
    if not ground.readonly:
        reason = "verified data can only be read; use mode='ro'"
        raise RequestInvalid(argument="mode", value=repr(ground.mode), reason=reason)
    hashes, start = _hashes(ground, block, root)
    tree = HashTree.parse(hashes.pread(_SUPERBLOCK.size, start))
    if tree is None:
        raise _invalid(ground, f"there is no dm-verity superblock in {hashes.place}, at byte {start}")
    if tree.algorithm in hashlib.algorithms_available:
        length = hashlib.new(tree.algorithm).digest_size
        if length and length * 2 != len(root.digest):
            raise _invalid(ground, f"the hashes are {tree.algorithm}, and the root hash has {len(root.digest)} digits")
    if tree.data_blocks * tree.data_block > block.size or start % tree.hash_block:
        raise _invalid(ground, f"the hashes in {hashes.place} are not those of {block.place}")
    data, _ = block.device(ground)
    on = data if hashes is block else hashes.device(ground)[0]
    device = ground.map(tree.targets(dm.number_of(data.fd), dm.number_of(on.fd), start, root.digest))
    try:
        os.pread(device.fd, tree.data_block, 0)  # its hash, and all hashes above it, are checked
    except OSError as error:
        reason = f"the root hash does not fit {block.place} and the hashes in {hashes.place}, or they are corrupt"
        raise _invalid(ground, reason) from error
    return device


def find_data(ground: Ground, root: RootHash) -> ImageBlock | None:
    """The partition with the data, where it bears its part of the root hash as UUID."""
    return _with_uuid(ground.candidates(), root.data_uuid)


def _with_uuid(blocks: list[ImageBlock], wanted: str) -> ImageBlock | None:
    matches = [block for block in blocks if block.partition is not None and block.partition.uuid == wanted]
    return matches[0] if len(matches) == 1 else None


def _hashes(ground: Ground, block: Block, root: RootHash) -> tuple[Block, int]:
    """Where the hash tree is, and from which byte of that on."""
    if root.offset is not None:
        return block, root.offset
    candidates = ground.candidates()
    if root.partition is not None:
        numbered = [one for one in candidates if one.partition and one.partition.number == root.partition]
        if not numbered:
            raise _invalid(ground, f"there is no partition {root.partition} for the hashes")
        return numbered[0], 0
    if found := _with_uuid(candidates, root.hash_uuid):
        return found, 0
    trees = [one for one in candidates if one != block and _holds_hashes(one)]
    if len(trees) > 1 and block.partition is not None and (kind := block.partition.type_name):
        trees = [one for one in trees if one.partition and one.partition.type_name == f"{kind}-verity"] or trees
    if len(trees) == 1:
        return trees[0], 0
    if not trees:
        raise _invalid(ground, "no partition, and no further image, holds a hash tree")
    places = ", ".join(one.place for one in trees)
    raise _invalid(ground, f"hash trees are in {places}, and none says that it is that of {block.place}")


def _holds_hashes(block: Block) -> bool:
    found = block.superblock()
    return found is not None and found.type == VERITY_HASHES


def _invalid(ground: Ground, reason: str) -> VolumeInvalid:
    hint = "give verity='ROOTHASH:PARTITION' or 'ROOTHASH@BYTE', with the hash that `veritysetup format` printed"
    return VolumeInvalid(image=ground.image, reason=reason, hint=hint)
