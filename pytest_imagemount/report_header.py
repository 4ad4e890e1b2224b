"""The line of pytest's report header: apart from the table of capabilities, which costs more than all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import probes
from .machine import Machine

if TYPE_CHECKING:
    from .probes import OnMachine


class _Here(NamedTuple):
    machine: Machine


def header_line(here: OnMachine | None = None, *, sudo: str = "auto") -> str:
    """One line for pytest's report header. Starts no process: sudo is named where it is there, tried or not.

    :param sudo: the setting of that name
    """
    here = here or _Here(Machine.this())
    if here.machine.uid == 0:
        privilege, refused = "as root", probes.root(here)
    elif sudo == "never":
        privilege, refused = "", "the user is not root, and sudo is switched off"
    else:
        privilege, refused = "by sudo", probes.sudo_usable(here)
    refused = refused or probes.loop_driver(here)
    if refused:
        return f"imagemount: no image can be mounted: {refused}"
    no_nbd = probes.nbd_driver(here) or probes.qemu(here)
    if no_nbd is None:
        others = "qcow2 by NBD"
    elif no_fuse := probes.fuse(here):
        others = f"no qcow2 (no nbd: {no_nbd}; no fuse: {no_fuse})"
    else:
        others = f"qcow2 by FUSE + loop (no nbd: {no_nbd})"
    return f"imagemount: raw by loop, {others}, {privilege}"
