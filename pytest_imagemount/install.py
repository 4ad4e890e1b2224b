"""``imagemount doctor --install``: the missing Debian packages, by apt-get."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from . import programs
from .capabilities import absent_packages, absent_programs
from .doctor import APT_INSTALL, install_command
from .errors import CapabilityMissing, ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .capabilities import Capabilities
    from .machine import Machine

# A machine that has just booted may still run its own unattended upgrade, which holds dpkg's lock.
_APT_INSTALL = (APT_INSTALL[0], "-o", "DPkg::Lock::Timeout=300", *APT_INSTALL[1:])
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def install(here: Capabilities, *, dry_run: bool = False) -> tuple[str, ...]:
    """Install the packages that are missing and return them; the programs' output is shown as it comes.

    Where nothing is missing, nothing is run. A package that the distribution does not have is named and left out.

    :param dry_run: print the commands only
    :raises CapabilityMissing: this is not Debian or Ubuntu, or the user is not root and has no ``sudo -n``
    :raises ProgramFailed: apt-get failed
    """
    packages = absent_packages(here)
    if not packages:
        print("Nothing to install: every package is there.", flush=True)
        return ()
    _require_apt(here, packages)
    environment = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    environment["DEBIAN_FRONTEND"] = "noninteractive"
    sudo = () if here.machine.uid == 0 else ("sudo", "-n", f"--preserve-env={','.join(environment)}")
    update = (*sudo, "apt-get", "update")
    if dry_run:
        print(shlex.join(update))
        print(shlex.join((*sudo, *_APT_INSTALL, *packages)))
        return packages
    if _stream(update, environment):
        print("apt-get update failed; going on with the package lists that are here", flush=True)
    offered = _offered(packages)
    for package in sorted({*packages} - {*offered}):
        print(f"This distribution has no package {package}; left out.", flush=True)
    if offered:
        argv = (*sudo, *_APT_INSTALL, *offered)
        if status := _stream(argv, environment):
            hint = "its own words are above"
            raise ProgramFailed(argv=argv, returncode=status, reason=f"exit status {status}", hint=hint)
    return offered


def _require_apt(here: Capabilities, packages: Sequence[str]) -> None:
    machine = here.machine
    if not _is_debian(machine):
        raise CapabilityMissing(
            capability="apt-get",
            reason="this machine is not Debian or Ubuntu",
            hint=f"install by its own package manager what has these programs: {', '.join(absent_programs(here))} "
            f"(Debian's packages are {', '.join(packages)})",
        )
    if machine.uid != 0 and (reason := here["sudo"]):
        hint = f"run this yourself: {shlex.join(install_command(here))}"
        raise CapabilityMissing(capability="sudo", reason=reason, hint=hint)


def _is_debian(machine: Machine) -> bool:
    found = re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)"?$', machine.read("etc/os-release"), re.MULTILINE)
    return "debian" in " ".join(found).split() and machine.program("apt-get") is not None


def _offered(packages: Sequence[str]) -> tuple[str, ...]:
    """Those of ``packages`` that this distribution has."""
    policy = programs.run(["apt-cache", "policy", *packages]).decode(errors="replace")
    found = re.findall(r"^(\S+?)(?::\w+)?:\n  Installed: .*\n  Candidate: (.*)$", policy, re.MULTILINE)
    known = {name for name, candidate in found if candidate != "(none)"}
    return tuple(package for package in packages if package in known)


def _stream(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    print(f"+ {shlex.join(argv)}", flush=True)
    return programs.stream(argv, extra_environment=environment)
