"""Fetching a task of the Decathlon: one tar from a local server, with the MD5 that MONAI would keep."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from local_server import names as inside
from msd_files import msd

from textdiff.data import fetch as fetching
from textdiff.data import load_volumes
from textdiff.data.download import FetchError, WrongContentError, digest
from textdiff.data.entries import Decathlon
from textdiff.data.fetch import address, fetch
from textdiff.data.registry import DATASETS
from textdiff.data.splits import SPLITS, hashed_split
from textdiff.data.volumes import layouts

FOLDER = "Task04_Hippocampus"
ADDRESS = f"/{FOLDER}.tar"


@pytest.fixture
def origin(home, monkeypatch) -> Path:
    """A small task in the Decathlon's layout, with what macOS left in it; its MD5 is the known one."""
    from monai.apps import DecathlonDataset

    folder = msd(home / "origin" / FOLDER, 5)
    (folder / "imagesTr" / "._case_0.nii.gz").write_bytes(b"left by macOS")
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "case_7.nii.gz").write_bytes(b"of which no label is given out")
    rows = [{"image": f"./imagesTr/case_{k}.nii.gz", "label": f"./labelsTr/case_{k}.nii.gz"} for k in range(5)]
    (folder / "dataset.json").write_text(json.dumps({"training": rows}))
    with tarfile.open(home / "origin.tar", "w") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setitem(DecathlonDataset.md5, FOLDER, digest(home / "origin.tar", "md5"))
    small = replace(DATASETS["hippocampus"], source=Decathlon(FOLDER, 1000))
    monkeypatch.setitem(DATASETS, "hippocampus", small)
    return folder


@pytest.fixture
def server(server, home, origin):
    server.files[ADDRESS] = (home / "origin.tar").read_bytes()
    return server


def quiet(*_):
    pass


def number_of_cases() -> int:
    data = load_volumes("hippocampus")
    return len(data.train + data.val + data.test)


@pytest.fixture
def recorded(monkeypatch) -> dict:
    """Of the small task two volumes are those of the records."""
    known = {"case_1": "train", "case_3": "test"}
    for module in (fetching, layouts):
        monkeypatch.setattr(module, "manifest_split", lambda _: known)
    monkeypatch.setitem(fetching.RECORDED, "hippocampus", {"train": 1, "val": 0, "test": 1})
    return known


def test_as_recorded_leaves_the_volumes_of_the_shipped_split(server, recorded):
    target = fetch("hippocampus", base_url=server.url, say=quiet, as_recorded=True)
    data = load_volumes("hippocampus")
    assert [[case.name for case in part] for part in (data.train, data.val, data.test)] == [["case_1"], [], ["case_3"]]
    about = json.loads((target / "dataset.json").read_text())
    assert (about["numTraining"], about["numTest"], about["test"]) == (2, 0, [])
    assert not (target / "imagesTs").exists()
    assert inside(target / "labelsTr") == ["case_1.nii.gz", "case_3.nii.gz"]


def test_as_recorded_takes_what_a_plain_fetch_takes(origin, recorded):
    """Channels in the names, a list of splits that names what is left out, a folder beside the volumes."""
    for k in range(5):
        (origin / "imagesTr" / f"case_{k}.nii.gz").rename(origin / "imagesTr" / f"case_{k}_0000.nii.gz")
    (origin / "split.json").write_text(json.dumps({"train": [f"case_{k}" for k in range(5)]}))
    (origin / "imagesTr" / "more").mkdir()
    (origin / "imagesTr" / "more" / "case_9.nii.gz").write_bytes(b"")
    target = fetch("hippocampus", source=origin, say=quiet, as_recorded=True)
    assert inside(target / "labelsTr") == ["case_1.nii.gz", "case_3.nii.gz"] and number_of_cases() == 2


def test_as_recorded_wants_all_of_them(origin, recorded, home):
    (origin / "labelsTr" / "case_3.nii.gz").unlink()
    (origin / "imagesTr" / "case_3.nii.gz").unlink()
    rows = json.loads((origin / "dataset.json").read_text())["training"]
    (origin / "dataset.json").write_text(
        json.dumps({"training": [row for row in rows if "case_3" not in row["image"]]})
    )
    with pytest.raises(FetchError, match="'absent': 1} of the cases of the published records, which are"):
        fetch("hippocampus", source=origin, say=quiet, as_recorded=True)
    assert not (home / "data" / FOLDER).exists()


def test_as_recorded_wants_a_list_of_cases(origin, recorded):
    (origin / "dataset.json").write_text('{"training": ["imagesTr/case_1.nii.gz"]}')
    with pytest.raises(FetchError, match=r'dataset.json: expected "training": \[\{"image"'):
        fetch("hippocampus", source=origin, say=quiet, as_recorded=True)


def test_addresses_and_sums_are_monais():
    from monai.apps import DecathlonDataset

    liver = DATASETS["liver_tumour"].source
    assert address(liver) == "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task03_Liver.tar"
    sources = [entry for entry in DATASETS.values() if isinstance(entry.source, Decathlon)]
    assert len(sources) == 4 and DecathlonDataset.md5[liver.folder] == "a90ec6c4aa7f6a3d087205e23d4e6397"
    assert all(entry.source.folder == entry.folders[0] in DecathlonDataset.md5 for entry in sources)


def test_over_http(server, home):
    said = []
    target = fetch("hippocampus", base_url=server.url, say=said.append)
    assert target == home / "data" / FOLDER and inside(target.parent) == [FOLDER]
    assert inside(target) == ["SOURCE.json", "dataset.json", "imagesTr", "imagesTs", "labelsTr"]
    assert len(inside(target / "imagesTr")) == 5 and number_of_cases() == 5
    note = json.loads((target / "SOURCE.json").read_text())
    found = [hashed_split(f"case_{k}") for k in range(5)]
    counts = {split: found.count(split) for split in SPLITS}
    assert note["verified"] is True and note["cases"] == counts | {"absent": 221}
    assert "CC BY-SA 4.0" in said[-1] and "Please cite: Antonelli" in said[-1]
    assert not any((home / "cache").rglob("*.tar"))
    assert fetch("hippocampus", base_url=server.url, say=said.append) == target and len(server.asked) == 1
    assert "already in" in said[-1]


def test_a_run_killed_after_the_transfer_is_taken_up(server, home, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "_install", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch("hippocampus", base_url=server.url, say=quiet)
    assert not (home / "data" / FOLDER).exists()
    fetch("hippocampus", base_url=server.url, say=quiet)
    assert len(server.asked) == 1


def test_another_content_is_refused_and_the_old_folder_stays(server, home):
    target = fetch("hippocampus", base_url=server.url, say=quiet)
    server.files[ADDRESS] = server.files[ADDRESS][:-1] + b"!"
    with pytest.raises(WrongContentError, match=rf"{FOLDER}\.tar.*: md5 is .*, expected "):
        fetch("hippocampus", base_url=server.url, force=True, say=quiet)
    assert inside(target.parent) == [FOLDER] and number_of_cases() == 5


@pytest.mark.parametrize("packed", [False, True])
def test_from_disk(home, origin, packed):
    source = home / "origin.tar" if packed else origin.parent
    target = fetch("hippocampus", source=source, say=quiet)
    assert json.loads((target / "SOURCE.json").read_text())["verified"] is packed
    assert len(inside(target / "labelsTr")) == 5 and len(inside(origin / "imagesTr")) == 6  # the origin stays whole


def packed(home: Path, origin: Path, *more: tarfile.TarInfo) -> bytes:
    """The task as a tar, dataset.json last, with more members after that."""
    parts = sorted(path for path in origin.iterdir() if path.name != "dataset.json")
    with tarfile.open(home / "again.tar", "w") as tar:
        for path in (*parts, origin / "dataset.json"):
            tar.add(path, f"{FOLDER}/{path.name}")
        for info in more:
            tar.addfile(info)
    return (home / "again.tar").read_bytes()


def known_by_md5(monkeypatch, archive: Path) -> None:
    from monai.apps import DecathlonDataset

    monkeypatch.setitem(DecathlonDataset.md5, FOLDER, digest(archive, "md5"))


def test_a_tar_cut_at_any_header_is_refused(home, origin, monkeypatch):
    """By its MD5; and where that were known, by its missing end."""
    content = packed(home, origin)
    with tarfile.open(home / "again.tar") as tar:
        heads = [info.offset for info in tar] + [tar.offset]
    for number, place in enumerate(heads[1:]):
        cut = home / f"cut_{number}.tar"
        cut.write_bytes(content[:place])
        with pytest.raises(FetchError, match="md5 is .*unpack it and give the folder"):
            fetch("hippocampus", source=cut, say=quiet)
        with monkeypatch.context() as patched:
            known_by_md5(patched, cut)
            with pytest.raises(FetchError, match="cut off or damaged at a header"):
                fetch("hippocampus", source=cut, say=quiet)
        assert inside(home / "data") == []
    assert len(heads) > 10


def test_a_folder_without_the_list_of_its_cases_is_refused(home, origin):
    (origin / "dataset.json").unlink()
    with pytest.raises(FetchError, match=r"no dataset\.json, so that nothing says which cases"):
        fetch("hippocampus", source=origin, say=quiet)


def test_a_link_that_leads_out_only_after_the_move_is_never_there(home, origin, monkeypatch):
    """From where it is unpacked "../../private" stays inside; from where the data set comes to lie it would not."""
    (home / "data").mkdir()
    (home / "data" / "private.nii.gz").write_bytes((origin / "labelsTr" / "case_0.nii.gz").read_bytes())
    link = tarfile.TarInfo(f"{FOLDER}/labelsTr/case_0.nii.gz")
    link.type, link.linkname = tarfile.SYMTYPE, "../../private.nii.gz"
    (origin / "labelsTr" / "case_0.nii.gz").unlink()
    packed(home, origin, link)
    known_by_md5(monkeypatch, home / "again.tar")
    with pytest.raises(FetchError, match="a link or device stands in the place of a file"):
        fetch("hippocampus", source=home / "again.tar", say=quiet)
    (origin / "labelsTr" / "case_0.nii.gz").symlink_to(home / "data" / "private.nii.gz")
    with pytest.raises(FetchError, match="is a link that leads out of the data set"):
        fetch("hippocampus", source=origin, say=quiet)
    assert inside(home / "data") == ["private.nii.gz"]


def test_programs_are_not_brought_along(home, origin):
    (origin / "sitecustomize.py").write_text("raise SystemExit")
    (origin / "imagesTr" / "run.sh").write_text("exit")
    target = fetch("hippocampus", source=origin, say=quiet)
    assert not list(target.rglob("*.py")) and not list(target.rglob("*.sh"))


def test_a_folder_that_lacks_a_file_is_refused(home, origin):
    (origin / "labelsTr" / "case_3.nii.gz").unlink()
    with pytest.raises(FetchError, match="not whole: case 'case_3': .* has no label map"):
        fetch("hippocampus", source=origin, say=quiet)
    assert inside(home / "data") == []
    with pytest.raises(FetchError, match="no data set inside; expected the Decathlon's layout: imagesTr/, labelsTr/"):
        fetch("hippocampus", source=origin / "imagesTs", say=quiet)


def test_damage_on_disk_is_noticed(server):
    target = fetch("hippocampus", base_url=server.url, say=quiet)
    (target / "imagesTr" / "case_2.nii.gz").write_bytes(b"")
    with pytest.raises(FetchError, match=r"cannot read .*case_2\.nii\.gz.*--force"):
        fetch("hippocampus", say=quiet)


def test_tasks_that_cannot_be_fetched_say_where_to_get_them(home):
    with pytest.raises(FetchError, match="'kits19' cannot be fetched.*github.com/neheller/kits19.*CC BY-NC-SA.*KiTS19"):
        fetch("kits19")
    with pytest.raises(FetchError, match="'abdomen_phantoms' is drawn when it is loaded"):
        fetch("abdomen_phantoms")
