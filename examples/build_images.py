"""Builds the two images of this example into images/: yours come from mkosi, Packer, Yocto, ..."""

from pathlib import Path

from pytest_imagemount import File, Partition, Symlink, build_image

IMAGES = Path(__file__).parent / "images"

OS_RELEASE = """\
ID=example
PRETTY_NAME="Example Linux 1"
"""


def build_server(path: Path) -> None:
    """A qcow2 with a GPT: a boot partition and a root partition, as an installer would leave it."""
    system = {
        "etc/hostname": "web01\n",
        "etc/os-release": Symlink("/usr/lib/os-release"),
        "usr/lib/os-release": OS_RELEASE,
        "usr/bin/passwd": File(b"#!/bin/sh\n", mode=0o4755, uid=0, gid=0),
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/usr/sbin/nologin\n",
        "var/www/index.html": File(b"<h1>It works</h1>\n", mode=0o644, uid=33, gid=33),
    }
    boot = {"loader/entries/example.conf": "title Example Linux\noptions root=LABEL=root ro\n"}
    build_image(
        path,
        format="qcow2",
        table="gpt",
        partitions=[
            Partition(fstype="ext4", size="16M", name="boot", type="xbootldr", content=boot),
            Partition(fstype="ext4", size="32M", name="system", label="root", type="root-x86-64", content=system),
        ],
    )


def build_data(path: Path) -> None:
    """A raw image without a partition table: the file system alone."""
    build_image(path, fstype="squashfs", content={"data/colours.csv": "name,hex\nred,#ff0000\n"})


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    build_server(IMAGES / "disk.qcow2")
    build_data(IMAGES / "data.raw")
    for image in sorted(IMAGES.iterdir()):
        print(f"built {image.relative_to(Path.cwd())}: {image.stat().st_size:,} bytes")
