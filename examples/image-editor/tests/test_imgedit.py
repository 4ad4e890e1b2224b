"""imgedit on images of each format."""

import pytest
from imgedit import main

from pytest_imagemount import Symlink, diff


def system(disk):
    return str(disk), "--partition=PARTLABEL=system"


def test_the_host_name_is_set_wherever_it_stands(disk, mounted_image):
    assert main(["hostname", *system(disk), "web02"]) == 0
    with mounted_image(disk, "PARTLABEL=system") as image:
        assert (image / "etc/hostname").read_text() == "web02\n"
        hosts = (image / "etc/hosts").read_text()
        assert hosts == "127.0.0.1 localhost\n127.0.1.1 web01.example web02\n10.0.0.1 web011\n"


def test_nothing_else_is_changed(disk, mounted_image):
    with mounted_image(disk, 1) as boot, mounted_image(disk, 2) as image:
        before = [boot.manifest(), image.manifest()]
    assert main(["hostname", *system(disk), "web02"]) == 0
    with mounted_image(disk, 1) as boot, mounted_image(disk, 2) as image:
        assert not diff(before[0], boot)
        assert sorted(diff(before[1], image).changed) == ["/etc/hostname", "/etc/hosts"]


def test_a_file_is_put_into_the_image(disk, mounted_image, tmp_path):
    (tmp_path / "site.conf").write_text("colour=red\n")
    assert main(["add", *system(disk), str(tmp_path / "site.conf"), "/etc/site/site.conf", "--mode=600"]) == 0
    with mounted_image(disk, "PARTLABEL=system") as image:
        file = image / "etc/site/site.conf"
        assert file.read_text() == "colour=red\n"
        assert file.stat().st_mode & 0o7777 == 0o600
        assert file.stat().st_uid == 0


def test_a_file_is_put_into_a_folder_under_its_own_name(disk, mounted_image, tmp_path):
    (tmp_path / "motd").write_text("hello\n")
    assert main(["add", *system(disk), str(tmp_path / "motd"), "/srv/link"]) == 0
    with mounted_image(disk, "PARTLABEL=system") as image:
        assert (image / "etc/motd").read_text() == "hello\n"


def test_a_link_in_the_image_does_not_lead_to_this_machine(image_factory, mounted_image, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    content = {"etc/hostname": Symlink(str(canary)), "etc/up": Symlink("../../../../../../" + str(tmp_path))}
    disk = image_factory(fstype="ext4", content=content)
    main(["hostname", str(disk), "web02", "--partition=auto"])
    main(["add", str(disk), __file__, "/etc/up/canary", "--partition=auto"])
    assert canary.read_text() == "untouched"
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["web02!"], "'web02!' is no host name"),
        (["web02", "--partition=1"], "there is no /etc: choose another partition"),
        (["web02", "--partition=7"], "there is no such partition"),
    ],
)
def test_what_cannot_be_done_is_said(disk, capsys, arguments, message):
    before = disk.read_bytes()
    assert main(["hostname", str(disk), "--partition=2", *arguments]) == 1
    assert message in capsys.readouterr().err
    if "--partition=7" in arguments:
        assert disk.read_bytes() == before


def test_an_image_that_somebody_writes_to_is_left_alone(disk, mounted_image, capsys, monkeypatch):
    monkeypatch.setenv("IMAGEMOUNT_TIMEOUT", "0.2")
    with mounted_image(disk, 2, mode="rw") as image:
        assert main(["hostname", *system(disk), "web02"]) == 1
        assert (image / "etc/hostname").read_text() == "web01\n"
    assert "in use" in capsys.readouterr().err
