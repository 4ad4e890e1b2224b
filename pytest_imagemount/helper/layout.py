"""What the partitions of a mounted image are called, and which part each plays: for who assembles the system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.choosing import logical_volumes_of
from ..engine.tables.discoverable import architecture_of, discoverable_roles
from ..engine.volumes.kinds import LUKS

if TYPE_CHECKING:
    from ..engine.mount import Mount


def layout_of(mount: Mount, architecture: str | None) -> dict[str, Any]:
    """``roles``: role of the Discoverable Partitions Specification → number; ``names``: a list for each number;
    ``encrypted``: the numbers of those that hold LUKS; ``volumes``: UUID of the device, as udev has it in
    ``/dev/disk/by-id``, and ``GROUP/VOLUME`` of each logical volume.

    A name is as fstab writes it: ``UUID=…``, ``LABEL=…``, ``PARTUUID=…``, ``PARTLABEL=…``.

    :param architecture: whose partitions those of an architecture are; None is that of the mounted partition
    """
    table = mount.read_table()
    logical = logical_volumes_of(mount)
    volumes = [[f"dm-uuid-{one.uuid}", str(one.volume)] for one in (logical.found if logical else ())]
    if table is None:
        return {"roles": {}, "names": [], "encrypted": [], "volumes": volumes}
    if architecture is None and mount.partition is not None:
        architecture = architecture_of(mount.partition)
    roles = discoverable_roles(table, architecture)
    names, encrypted = [], []
    for partition in table.partitions:
        found = None if partition.container else mount.superblock_in(partition.window)
        values = {"PARTUUID": partition.uuid, "PARTLABEL": partition.label}
        if found is not None:
            values |= {"UUID": found.uuid, "LABEL": found.label}
            encrypted += [partition.number] if found.type == LUKS else []
        names.append([partition.number, [f"{name}={value}" for name, value in values.items() if value]])
    numbers = {role: partition.number for role, partition in roles.items()}
    return {"roles": numbers, "names": names, "encrypted": encrypted, "volumes": volumes}
