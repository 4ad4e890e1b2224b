"""What cloud-init does at the first start, on the image itself and with nothing of it kept."""

import hashlib
import json
import subprocess

import pytest

SEED = {"meta-data": "instance-id: test-1\nlocal-hostname: web01\n", "user-data": "#cloud-config\n"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_can_be_put_into_it(image_path, mounted_image):
    before = sha256(image_path)
    with mounted_image(image_path, partition="PARTLABEL=root", mode="overlay") as image:
        seed = image / "var/lib/cloud/seed/nocloud"
        for name, text in SEED.items():
            (seed / name).write_text(text)
        assert sorted(path.name for path in seed.iterdir()) == sorted(SEED)
    assert sha256(image_path) == before


def test_the_data_source_of_the_seed_is_asked(image):
    (line,) = [
        line for line in (image / "etc/cloud/cloud.cfg").read_text().splitlines() if line.startswith("datasource_list:")
    ]
    sources = [source.strip() for source in line.partition("[")[2].rstrip("]").split(",")]
    assert "NoCloud" in sources
    assert sources[-1] == "None", "with no data source at all the machine must start all the same"


def test_the_root_partition_can_grow(image, image_path):
    shown = subprocess.run(["imagemount", "inspect", "--json", image_path], capture_output=True, check=True)
    partitions = json.loads(shown.stdout)["table"]["partitions"]
    last = max(partitions, key=lambda partition: partition["offset"])
    assert last["number"] == image.partition, "growpart only grows into what follows"


def test_the_kernel_finds_the_root_partition(image):
    assert f"root=UUID={image.uuid}" in image.kernel_cmdline.split()


@pytest.mark.parametrize("name", ["vmlinuz", "initrd.img"])
def test_the_boot_entry_names_files_that_are_there(image, name):
    (entry,) = image.bootloader.entries
    assert any((image / path).is_file() and name in path for path in (entry.linux, *entry.initrd))
