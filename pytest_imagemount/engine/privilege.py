"""Root that may not mount: in most containers the kernel refuses it what root of the machine may do."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CapabilityMissing

if TYPE_CHECKING:
    from ..machine import Machine

_REFUSALS = (errno.EPERM, errno.EACCES)
"""What the kernel answers to those who lack privilege."""


class _Here(NamedTuple):
    machine: Machine


def missing_privilege(error: OSError | None = None) -> CapabilityMissing | None:
    """The error that says what this process, which is root, lacks to mount; None where it lacks nothing.

    For after a refusal, and not to be asked before: some container managers let even such a root mount.

    :param error: what the kernel answered, where that is known: there are other reasons than a lack of privilege
    """
    if error is not None and error.errno not in _REFUSALS:
        return None
    from .. import probes
    from ..machine import Machine

    here = Machine.this()
    reason = probes.root(_Here(here)) if here.uid == 0 else None
    if reason is None:
        return None
    hint = (
        "start the container with --privileged, by root of the machine, or run the tests in a kernel of their own, "
        "which needs no privilege: `imagemount lab -- pytest`"
    )
    return CapabilityMissing(capability="root", reason=reason, hint=hint)
