"""Every kind of check on a folder that stands for an image: what passes, and what a user reads when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.checks.schema import schema
from tests.unit.checked_image import FolderImage, failures, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.image_path import ImagePath

UID, GID = os.getuid(), os.getgid()
ME, MY_GROUP = ("root" if UID == 0 else "me"), ("root" if GID == 0 else "mygroup")
SSHD = "Port 22\n#PermitRootLogin prohibit-password\nUsePAM yes\n"
SHA256 = hashlib.sha256(SSHD.encode()).hexdigest()
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
UNITS = "usr/lib/systemd/system"

TREE = {
    "etc/hostname": "web01\n",
    "etc/machine-id": "",
    "etc/os-release": "-> ../usr/lib/os-release",
    "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\nNAME="Debian GNU/Linux"\nVARIANT_ID=cloud\n',
    "usr/lib/modules/6.1.0-18-amd64/modules.dep": "",
    "etc/localtime": "-> /usr/share/zoneinfo/Europe/Berlin",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/ssh/sshd_config": SSHD,
    "etc/dangling": "-> /run/nowhere",
    "etc/empty": "",
    "etc/passwd": f"{ME}:x:{UID}:{GID}::/:/bin/sh\ndeploy:x:1000:998:Deployment:/srv/app:/bin/bash\n"
    "guest::1001:1001::/home/guest:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\n",
    "etc/shadow": f"{ME}:*:1::::::\ndeploy:!:1::::::\ndaemon:*:1::::::\n",
    "etc/group": f"{MY_GROUP}:x:{GID}:\nsudo:x:27:deploy\ndocker:x:998:\nwheel:x:10:alice,bob\n",
    "etc/fstab": "LABEL=root / ext4 noatime,errors=remount-ro 0 1\n"
    "LABEL=ESP /boot/efi vfat umask=0077 0 2\nUUID=1 none swap sw 0 0\n",
    "var/lib/dpkg/status": "".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
        for name, version in (("nginx", "1.22.1-9"), ("openssh-server", "1:9.2p1-2+deb12u2"), ("nginx-common", "1.22"))
    ),
    f"{UNITS}/ssh.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "etc/systemd/system/multi-user.target.wants/ssh.service": f"-> /{UNITS}/ssh.service",
    f"{UNITS}/cups.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/dbus.socket": "[Socket]\nListenStream=/run/x\n",
    "usr/lib/systemd/system-preset/90-system.preset": "enable ssh.service\ndisable *\n",
    f"{UNITS}/multi-user.target": "[Unit]\n",
    "etc/systemd/system/rpcbind.service": "-> /dev/null",
    "etc/kernel/cmdline": "root=UUID=1 ro quiet console=ttyS0\n",
    "boot/loader/entries/one.conf": "title One\nlinux /vmlinuz\noptions root=UUID=1 ro quiet console=ttyS0\n",
    "usr/bin/ping": "x",
    "usr/bin/passwd": "x",
    "usr/bin/[": "x",
    "srv/app/a.log": "a",
    "srv/app/b.log": "bb",
}
MODES = {"usr/bin/passwd": 0o4755, "etc/shadow": 0o640, "etc/hostname": 0o644, "srv/app/a.log": 0o600}
CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
XATTRS = {"security.capability": CAP_NET_RAW, "security.selinux": b"u:r:t:s0\0", "user.origin": b"build-7"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "root"
    write_tree(tree, TREE)
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    for name, mode in MODES.items():
        (tree / name).chmod(mode)
    return tree


@pytest.fixture
def image(tree: Path, monkeypatch: pytest.MonkeyPatch) -> FolderImage:
    from pytest_imagemount.image_path import ImagePath

    def xattrs(self: ImagePath, **_: Any) -> dict[str, bytes]:
        return dict(XATTRS) if self.name == "ping" else {}

    # Capabilities and labels can be set by root alone.
    monkeypatch.setattr(ImagePath, "xattrs", xattrs)
    return FolderImage(tree)


PASSING = """
os:
  {id: debian, version: 12, name: Debian GNU/Linux, kernel: 6.1.*-amd64, hostname: web01, timezone: Europe/Berlin,
   locale: C.UTF-8, machine-id: empty, fields: {VARIANT_ID: cloud}}
---
files:
  /etc/hostname: {state: exists, type: file, mode: 0644, max-mode: 0755, text: "web01\\n", size: 6, contains: web}
  /etc/shadow: {mode: 640, max-mode: "0640"}
  /etc/os-release: {type: link, link: ../usr/lib/os-release, contains: [debian, cloud]}
  /etc: {type: directory}
  /etc/ssh/sshd_config:
    min-size: 10
    max-size: 1 KiB
    not-contains: [secret, Match]
    matches: [^Port \\d+$, "^UsePAM yes$"]
    not-matches: ^PermitRootLogin
  /etc/dangling: {type: link, link: /run/nowhere}
  /etc/empty: {size: 0, max-size: 0}
  /etc/absent: absent
  /usr/bin/passwd: {mode: 4755}
  /usr/bin/ping:
    capabilities: cap_net_raw=ep
    selinux: u:r:t:s0
    xattrs: {user.origin: build-7}
    no-xattrs: user.other
  /usr/bin/[: {capabilities: none, selinux: none}
  /srv/app/*.log: {count: 2, max-size: 10}
  /srv/**/*.txt: absent
  /srv/app/*.tmp: {count: 0}
---
packages:
  nginx: ">= 1.22, < 2"
  openssh-server: {state: installed, version: "= 1:9.2p1-2+deb12u2", arch: amd64}
  telnetd: absent
---
users:
  deploy: {uid: 1000, group: docker, groups: [sudo, docker], home: /srv/app, shell: /bin/bash, gecos: Deployment}
  guest: {password: empty}
  daemon: {password: [locked, none], group: 1}
  games: absent
groups:
  sudo: {gid: 27, members: deploy}
  wheel: {members: [bob, alice]}
  docker: {members: none}
  lxd: absent
services:
  ssh: {state: enabled, wanted-by: multi-user.target, preset: enabled}
  cups: disabled
  dbus.socket: static
  rpcbind: masked
  telnet: {state: [disabled, absent]}
fstab:
  /: {source: LABEL=root, type: ext4, options: [noatime], not-options: discard, pass: 1}
  /boot/efi: exists
  swap: {source: UUID=1}
  /home: absent
kernel-cmdline: {contains: [quiet, root=UUID=*], not-contains: [debug, init=*]}
free-space: {min: 1, min-percent: 0, min-inodes: 0}
rules:
  no-host-keys: true
  machine-id-empty: true
  no-secrets: true
  no-world-writable: true
  no-setuid: {except: /usr/bin/pass*}
  no-unowned: true
"""

FAILING = [
    ("os: {id: ubuntu}", "id  expected ubuntu\n      found    debian"),
    ("os: {version: 13}", "version  expected 13\n           found    12"),
    ("os: {name: Debian}", "name  expected Debian\n        found    Debian GNU/Linux"),
    ("os: {arch: x86_64}", "arch  expected x86_64\n        found    not set"),
    ("os: {kernel: 5.*}", "kernel  expected 5.*\n          found    6.1.0-18-amd64"),
    ("os: {hostname: web02}", "hostname  expected web02\n            found    web01"),
    ("os: {timezone: UTC}", "timezone  expected UTC\n            found    Europe/Berlin"),
    ("os: {locale: de_DE}", "locale  expected de_DE\n          found    C.UTF-8"),
    ("os: {machine-id: absent}", "machine-id  expected absent\n              found    empty"),
    ("os: {fields: {VARIANT: x}}", "VARIANT  expected x\n           found    not set"),
    ("files: {/etc/motd: exists}", "state  expected exists\n         found    nothing there"),
    ("files: {/opt/a/b: exists}", "state  expected exists\n         found    nothing there; only / is"),
    ("files: {/etc/hostname: absent}", "state  expected absent\n         found    a file of 6 B"),
    ("files: {/etc/dangling: absent}", "state  expected absent\n         found    a link to /run/nowhere"),
    (
        "files: {/srv/app/*.log: absent}",
        (
            "  /srv/app/a.log\n    state  expected absent\n           found    a file of 1 B\n"
            "  /srv/app/b.log\n    state  expected absent\n           found    a file of 2 B"
        ),
    ),
    ("files: {/srv/*.x: {mode: 0644}}", "state  expected exists\n         found    no file that matches"),
    ("files: {/srv/app/*: {count: 1}}", "count  expected 1\n         found    2: /srv/app/a.log, /srv/app/b.log"),
    (
        "files: {/srv/app/*: {mode: 0600}}",
        "  /srv/app/b.log\n    mode  expected 0600\n          found    0644 (rw-r--r--)",
    ),
    ("files: {/etc: {type: file}}", "type  expected file\n        found    directory"),
    (
        "files: {/etc/os-release: {type: file}}",
        "type  expected file\n        found    link to ../usr/lib/os-release, which is a file",
    ),
    (
        "files: {/etc/dangling: {type: file, mode: 0644}}",
        (
            "type  expected file\n        found    link to /run/nowhere, which is nothing in the image\n"
            "  mode  expected 0644\n        found    a link to /run/nowhere, which is not in the image"
        ),
    ),
    ("files: {/etc/hostname: {mode: 0600}}", "mode  expected 0600\n        found    0644 (rw-r--r--)"),
    ("files: {/usr/bin/passwd: {mode: 0755}}", "mode  expected 0755\n        found    4755 (rwsr-xr-x)"),
    (
        "files: {/etc/shadow: {max-mode: 0600}}",
        "max-mode  expected nothing beyond 0600\n            found    0640 (rw-r-----), 0040 too much",
    ),
    ("files: {/etc/hostname: {owner: www}}", f"owner  expected www\n         found    {ME} ({UID})"),
    ("files: {/etc/hostname: {group: www}}", f"group  expected www\n         found    {MY_GROUP} ({GID})"),
    (
        "files: {/etc/os-release: {link: /usr/lib/os-release}}",
        "link  expected /usr/lib/os-release\n        found    a link to ../usr/lib/os-release",
    ),
    ("files: {/etc: {link: x}}", "link  expected x\n        found    no link, but a directory"),
    ("files: {/etc/hostname: {size: 7}}", "size  expected 7 B\n        found    6 B"),
    ("files: {/etc/hostname: {min-size: 1 KiB}}", "min-size  expected at least 1 KiB\n            found    6 B"),
    ("files: {/etc/hostname: {max-size: 5}}", "max-size  expected at most 5 B\n            found    6 B"),
    (
        "files: {/etc/ssh/sshd_config: {contains: PermitRootLogin no}}",
        (
            "contains  expected PermitRootLogin no\n"
            "            found    not in the file; the closest is line 2: #PermitRootLogin prohibit-password"
        ),
    ),
    ("files: {/etc/ssh/sshd_config: {contains: xyz}}", "contains  expected xyz\n            found    not in the file"),
    ("files: {/etc/empty: {contains: a}}", "contains  expected a\n            found    the file is empty"),
    (
        "files: {/etc/ssh/sshd_config: {not-contains: PAM}}",
        "not-contains  expected no 'PAM'\n                found    line 3: UsePAM yes",
    ),
    (
        "files: {/etc/ssh/sshd_config: {matches: ^UsePAM\\s+no$}}",
        "matches  expected ^UsePAM\\s+no$\n           found    no match; the closest is line 3: UsePAM yes",
    ),
    (
        "files: {/etc/ssh/sshd_config: {not-matches: ^Port}}",
        "not-matches  expected no match of ^Port\n               found    line 1: Port 22",
    ),
    ("files: {/etc/hostname: {text: web02}}", "text  expected 'web02'\n        found    'web01\\n'"),
    (f"files: {{/etc/ssh/sshd_config: {{sha256: {'0' * 64}}}}}", f"found    {SHA256}"),
    (
        "files: {/usr/bin/ping: {capabilities: none}}",
        "capabilities  expected none\n                found    cap_net_raw=ep",
    ),
    (
        "files: {/usr/bin/passwd: {capabilities: cap_net_raw=ep}}",
        "capabilities  expected cap_net_raw=ep\n                found    none",
    ),
    ("files: {/usr/bin/ping: {selinux: none}}", "selinux  expected none\n           found    u:r:t:s0"),
    (
        "files: {/usr/bin/ping: {xattrs: {user.origin: x, user.b: y}}}",
        (
            "xattr user.origin  expected x\n                     found    build-7\n"
            "  xattr user.b       expected y\n                     found    not there; there are: security.capability, "
        ),
    ),
    (
        "files: {/usr/bin/ping: {no-xattrs: user.origin}}",
        "xattr user.origin  expected absent\n                     found    build-7",
    ),
    ("packages: {telnetd: installed}", "state  expected installed\n         found    not installed"),
    (
        "packages: {nginx-commo: '>= 1'}",
        "state  expected installed, >= 1\n         found    not installed; similar: nginx-common",
    ),
    ("packages: {nginx: absent}", "state  expected absent\n         found    installed, version 1.22.1-9"),
    ("packages: {nginx: '>= 1.24'}", "version  expected >= 1.24\n           found    1.22.1-9"),
    ("packages: {nginx: {arch: arm64}}", "arch  expected arm64\n        found    amd64"),
    ("users: {deploi: exists}", "state  expected exists\n         found    no such user; similar: deploy"),
    ("users: {deploy: absent}", "state  expected absent\n         found    exists, uid 1000, shell /bin/bash"),
    ("users: {deploy: {uid: 1001}}", "uid  expected 1001\n       found    1000"),
    ("users: {deploy: {home: /}}", "home  expected /\n        found    /srv/app"),
    ("users: {deploy: {shell: /bin/sh}}", "shell  expected /bin/sh\n         found    /bin/bash"),
    ("users: {guest: {gecos: Guest}}", "gecos  expected Guest\n         found    empty"),
    ("users: {guest: {password: [locked, none]}}", "password  expected locked or none\n            found    empty"),
    ("users: {deploy: {group: sudo}}", "group  expected sudo\n         found    docker (998)"),
    (
        "users: {deploy: {groups: [sudo, lxd]}}",
        "groups  expected lxd\n          found    is a member of: docker, sudo; the image has no group lxd",
    ),
    ("groups: {sudoers: exists}", "state  expected exists\n         found    no such group; similar: sudo"),
    ("groups: {wheel: absent}", "state  expected absent\n         found    exists, gid 10, members: alice, bob"),
    ("groups: {sudo: {gid: 28}}", "gid  expected 28\n       found    27"),
    ("groups: {wheel: {members: [alice]}}", "members  expected alice\n           found    alice, bob"),
    ("groups: {sudo: {members: none}}", "members  expected none\n           found    deploy"),
    ("services: {cups: enabled}", f"state  expected enabled\n         found    disabled, /{UNITS}/cups.service"),
    ("services: {sshd: enabled}", "state  expected enabled\n         found    absent; similar: ssh.service"),
    (
        "services: {ssh: {wanted-by: graphical.target}}",
        "wanted-by  expected graphical.target\n             found    multi-user.target",
    ),
    ("services: {ssh: {preset: disabled}}", "preset  expected disabled\n          found    enabled"),
    ("services: {telnet: {preset: enabled}}", "state  expected a unit\n         found    absent"),
    (
        "fstab: {/home: exists}",
        "state  expected exists\n         found    no entry; there are entries for: /, /boot/efi, swap",
    ),
    ("fstab: {/boot/efi/: absent}", "state  expected absent\n         found    LABEL=ESP of type vfat"),
    ("fstab: {swap: absent}", "state  expected absent\n         found    UUID=1 of type swap"),
    ("fstab: {/: {source: /dev/sda1}}", "source  expected /dev/sda1\n          found    LABEL=root"),
    ("fstab: {/: {type: xfs}}", "type  expected xfs\n        found    ext4"),
    ("fstab: {/: {options: nosuid}}", "options  expected nosuid\n           found    noatime, errors=remount-ro"),
    (
        "fstab: {/: {not-options: noatime}}",
        "not-options  expected no noatime\n               found    noatime, errors=remount-ro",
    ),
    ("fstab: {/boot/efi: {pass: 0}}", "pass  expected 0\n        found    2"),
    (
        "kernel-cmdline: {contains: [quiet, splash]}",
        "contains  expected splash\n            found    root=UUID=1 ro quiet console=ttyS0",
    ),
    (
        "kernel-cmdline: {not-contains: console=*}",
        "not-contains  expected no console=*\n                found    console=ttyS0",
    ),
    ("free-space: 900 TiB", "min  expected at least 900 TiB\n       found    "),
    ("free-space: {max: 1}", "max  expected at most 1 B\n       found    "),
    ("free-space: {min-percent: 100}", "min-percent  expected at least 100 %\n               found    "),
    ("free-space: {min-inodes: 999999999999999}", "min-inodes  expected at least 999999999999999\n"),
    (
        "rules: {no-setuid: true}",
        (
            "  /usr/bin/passwd\n    rule  expected no setuid, no setgid\n"
            f"          found    setuid, 4755 (rwsr-xr-x), owner {UID}, group {GID}"
        ),
    ),
]


def test_what_is_as_expected_passes(image: FolderImage, tmp_path: Path) -> None:
    own = f"---\nfiles: {{/etc/hostname: {{owner: {ME}, group: {GID}}}}}\n---\n"
    own += f"files: {{/etc/ssh/sshd_config: {{sha256: {SHA256.upper()}}}}}\n"
    assert failures(PASSING + own, image, tmp_path) == ""


@pytest.mark.parametrize(("yaml", "text"), FAILING, ids=[yaml for yaml, _ in FAILING])
def test_what_is_not_as_expected_is_told(yaml: str, text: str, image: FolderImage, tmp_path: Path) -> None:
    told = failures(yaml, image, tmp_path)
    assert f"  {text.strip()}" in told
    assert told.splitlines()[0].endswith(" in disk.qcow2, partition 2 (ext4, ro)")
    assert told.splitlines()[-1] == "  see  base.imagecheck.yaml:1"


def test_a_value_of_the_image_is_one_line_however_it_is_written(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tree / "etc/os-release").unlink(missing_ok=True)
    write_tree(tree, {"etc/os-release": 'ID=x\nNAME="Linux\n::error::from the image"\n'})
    told = failures("os: {name: Debian}", image, tmp_path)
    assert r"found    Linux\n::error::from the image" in told


def test_long_texts_that_begin_the_same_are_shown_where_they_differ(
    image: FolderImage, tree: Path, tmp_path: Path
) -> None:
    head = "".join(f"line {number}\n" for number in range(1, 31))
    write_tree(tree, {"etc/long": f"{head}port 80\nend\n", "etc/short": head, "etc/wide": "x" * 500 + "a"})
    wanted = {"/etc/long": f"{head}port 443", "/etc/short": f"{head}more", "/etc/wide": "x" * 500 + "b"}
    files = {path: {"text": text} for path, text in wanted.items()}
    told = failures(json.dumps({"files": files}), image, tmp_path)  # JSON is YAML too
    assert "text  expected line 31: 'port 443'\n        found    line 31: 'port 80\\nend\\n'\n" in told
    assert "text  expected line 31: 'more'\n        found    the text ends there\n" in told
    assert f"text  expected line 1: '{'x' * 60}b'\n        found    line 1: '{'x' * 60}a'\n" in told


def test_every_key_of_the_schema_has_a_failing_example_here() -> None:
    """But those of the disk, which have a file of their own, and those of rules, below."""
    text = "\n".join(yaml for yaml, _ in FAILING)
    for section, node in schema()["properties"].items():
        if section in ("image", "disk", "partitions", "rules"):
            continue
        entry = node.get("additionalProperties") or node
        forms = entry.get("anyOf", [entry])
        for key in [key for form in forms for key in form.get("properties", ())]:
            short = key in ("state", "why", "version") or (section, key) == ("free-space", "min")
            assert short or f"{key}:" in "\n".join(line for line in text.splitlines() if line.startswith(section)), (
                section,
                key,
            )


def test_several_problems_of_one_check_are_all_told(image: FolderImage, tmp_path: Path) -> None:
    yaml = "files:\n  /etc/shadow:\n    mode: 0600\n    owner: www\n    contains: [a1, b1]\n    why: CIS 6.1.3\n"
    assert failures(yaml, image, tmp_path) == (
        "file /etc/shadow in disk.qcow2, partition 2 (ext4, ro)\n"
        "  mode      expected 0600\n            found    0640 (rw-r-----)\n"
        f"  owner     expected www\n            found    {ME} ({UID})\n"
        "  contains  expected a1\n            found    not in the file\n"
        "  contains  expected b1\n            found    not in the file\n"
        "  why: CIS 6.1.3\n"
        "  see  base.imagecheck.yaml:2"
    )


def test_a_user_without_a_name_in_the_image_is_told_by_number(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tree / "etc/passwd").unlink()
    told = failures("files: {/etc/hostname: {owner: www}}", image, tmp_path)
    assert f"found    {UID}, which the image gives no name" in told


def test_a_link_is_followed_inside_the_image(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("canary")
    (tree / "etc/out").symlink_to(tmp_path / "canary")
    assert failures("files: {/etc/out: {contains: canary}}", image, tmp_path) != ""


def test_many_files_are_counted_and_not_listed(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    write_tree(tree / "many", {str(number): "" for number in range(70)})
    told = failures("files: {/many/*: absent}", image, tmp_path)
    assert told.count("found    a file") == 20
    assert "and 50 more" in told
    for number in range(70):
        (tree / "many" / str(number)).chmod(0o666)
    told = failures("rules: {no-world-writable: true}", image, tmp_path)
    assert told.count("found    file, 0666") == 50
    assert "and 20 more files" in told


def test_scripts_of_another_init_have_the_names_of_their_files(tmp_path: Path) -> None:
    tree = tmp_path / "openrc"
    write_tree(tree, {"etc/init.d/sshd": "#!/sbin/openrc-run\n", "etc/runlevels/default/sshd": "-> /etc/init.d/sshd"})
    (tree / "etc/init.d/sshd").chmod(0o755)
    image = FolderImage(tree)
    assert failures("services: {sshd: {state: enabled, wanted-by: default}, crond: absent}", image, tmp_path) == ""
    assert "found    enabled, /etc/init.d/sshd\n" in failures("services: {sshd: disabled}", image, tmp_path)
    assert "found    absent; similar: sshd\n" in failures("services: {ssh: enabled}", image, tmp_path)


# Rules


def broken(rule: str, image: FolderImage, tmp_path: Path) -> str:
    return failures(f"rules: {{{rule}: true}}", image, tmp_path)


def test_world_writable_files_and_folders_are_told(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    write_tree(tree, {"srv/open": "", "srv/link": "-> open", "srv/dir/x": "", "tmp/x": ""})
    (tree / "srv/open").chmod(0o666)
    (tree / "srv/dir").chmod(0o777)
    (tree / "tmp").chmod(0o1777)
    assert broken("no-world-writable", image, tmp_path).splitlines()[1:7] == [
        "  /srv/dir",
        "    rule  expected not writable by everybody",
        "          found    directory, 0777 (rwxrwxrwx)",
        "  /srv/open",
        "    rule  expected not writable by everybody",
        "          found    file, 0666 (rw-rw-rw-)",
    ]
    assert failures("rules: {no-world-writable: {except: [/srv/open, /srv/d*]}}", image, tmp_path) == ""


def test_setgid_programs_are_told_and_setgid_folders_not(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tree / "usr/bin/passwd").chmod(0o2755)
    (tree / "srv").chmod(0o2755)
    told = broken("no-setuid", image, tmp_path)
    assert "setgid, 2755 (rwxr-sr-x)" in told
    assert "/srv" not in told


def test_files_of_unknown_users_are_told(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tree / "etc/passwd").write_text("someone:x:4242:4242::/:/bin/sh\n")
    told = broken("no-unowned", image, tmp_path)
    assert "  /etc/hostname\n    rule  expected a user and a group of the image\n" in told
    assert f"found    user {UID}, which the image does not have" in told


def test_host_keys_are_told(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    write_tree(tree, {"etc/ssh/ssh_host_ed25519_key": KEY})
    told = broken("no-host-keys", image, tmp_path)
    assert "  /etc/ssh/ssh_host_ed25519_key\n    rule  expected no SSH host key\n          found    private " in told
    assert broken("no-secrets", image, tmp_path) == "", "they have a rule of their own"


@pytest.mark.parametrize(("text", "fails"), [("", False), ("uninitialized\n", False), ("0123456789abcdef" * 2, True)])
def test_a_machine_id_that_is_set_is_told(
    text: str, fails: bool, image: FolderImage, tree: Path, tmp_path: Path
) -> None:
    (tree / "etc/machine-id").write_text(text)
    told = broken("machine-id-empty", image, tmp_path)
    assert ("found    set: machines made from the image would share it" in told) == fails
    assert bool(told) == fails


def test_the_machine_id_of_a_system_without_os_release_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path / "small", {"etc/machine-id": "0123456789abcdef" * 2})
    assert "found    set: " in broken("machine-id-empty", FolderImage(tmp_path / "small"), tmp_path)


def test_empty_passwords_are_told(image: FolderImage, tmp_path: Path) -> None:
    told = broken("no-empty-passwords", image, tmp_path)
    assert "found    user guest logs in without a password" in told
    assert told.count("found") == 1


SECRETS = {
    "root/.ssh/id_ed25519": (KEY, "private key"),
    "etc/ssl/private/any-name": ("-----BEGIN RSA PRIVATE KEY-----\n", "private key"),
    "usr/share/doc/server.pem": ("cert\n-----BEGIN PRIVATE KEY-----\n", "private key"),
    "home/a/k.ppk": ("PuTTY-User-Key-File-3: ssh-ed25519\n", "private key"),
    "root/.aws/credentials": ("[default]\n", "AWS credentials"),
    "root/.aws/config": ("[default]\nregion = eu\naws_secret_access_key = x\n", "AWS credentials"),
    "root/.aws/sso/cache/1.json": ("{}", "AWS tokens"),
    "root/.gnupg/private-keys-v1.d/AB.key": ("(11:private-key", "private key of GnuPG"),
    "usr/share/app/.gnupg/secring.gpg": ("x", "private key of GnuPG"),
    "home/a/.netrc": ("machine x\n", "credentials of .netrc"),
    "root/.docker/config.json": ('{"auths": {"x": {"auth": "abc"}}}', "credentials of a container registry"),
    "home/a/.npmrc": ("//r/:_authToken=abc\n", "token of npm"),
    "root/.bash_history": ("ls\n", "history of commands or files"),
    "etc/pip.conf": ("index-url = https://me:pw@pypi.example/simple\n", "password in a URL"),
    "srv/app/.env": ("DB_PASSWORD=x\n", "secrets in an environment file"),
}
HARMLESS = {
    "root/.ssh/id_ed25519.pub": "ssh-ed25519 AAAA\n",
    "etc/ssl/certs/ca.pem": "-----BEGIN CERTIFICATE-----\n",
    "root/.aws/config": "[default]\nregion = eu\n",
    "root/.docker/config.json": '{"auths": {}}',
    "root/.bash_history": "",
    "home/a/.npmrc": "fund=false\n",
    "etc/pip.conf": "index-url = https://pypi.example/simple\n",
    "usr/share/doc/keys.txt": KEY,
    "srv/app/.env": "PORT=80\n",
}


ENVIRONMENTS = {
    "export API_KEY=x\n": True,
    "PORT=80\n  db_password = x\n": True,
    "TOKEN='x y'\n": True,
    "TOKEN=#x\n": True,
    "DB_PASSWORD=\nDB_HOST=db\n": False,
    "TOKEN=''\r\nHOST=x\r\n": False,
    "TOKEN=  # of the server\n": False,
    "# TOKEN=x\n": False,
}


@pytest.mark.parametrize("text", ENVIRONMENTS)
def test_an_environment_file_holds_a_secret_where_one_has_a_value(
    text: str, image: FolderImage, tree: Path, tmp_path: Path
) -> None:
    write_tree(tree, {"srv/app/.env": text})
    assert bool(broken("no-secrets", image, tmp_path)) == ENVIRONMENTS[text]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("path", ["root/{}/.aws/config", "etc/apt/auth.conf.d/{}", "srv/{}/.env"])
def test_a_text_that_was_made_to_be_slow_is_searched_in_seconds(
    path: str, image: FolderImage, tree: Path, tmp_path: Path
) -> None:
    write_tree(tree, {path.format(number): "\n" * 60_000 + "secret" * 900 for number in range(40)})
    assert broken("no-secrets", image, tmp_path) == ""


@pytest.mark.parametrize("path", SECRETS)
def test_secrets_are_told(path: str, image: FolderImage, tree: Path, tmp_path: Path) -> None:
    content, kind = SECRETS[path]
    write_tree(tree, {path: content})
    told = broken("no-secrets", image, tmp_path)
    assert f"  /{path}\n    rule  expected no secret\n          found    {kind}\n" in told
    assert told.count("found") == 1
    assert failures(f"rules: {{no-secrets: {{except: /{path}}}}}", image, tmp_path) == ""


def test_what_only_looks_like_a_secret_is_not_told(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    write_tree(tree, HARMLESS)
    assert broken("no-secrets", image, tmp_path) == ""
