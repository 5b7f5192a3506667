"""Fetching data sets of images: from a local server or from disk, in small, with manifests of their own."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from local_server import Server, names
from PIL import Image

from textdiff.base.checkpoints import read_json
from textdiff.data import fetch as fetching
from textdiff.data import load_dataset
from textdiff.data.download import DiskFullError, FetchError, WrongContentError, digest
from textdiff.data.fetch import address, fetch
from textdiff.data.folders import check_folder
from textdiff.data.images.lvit import read_split
from textdiff.data.images.sgseg import recorded_rows
from textdiff.data.registry import DATASETS
from textdiff.data.splits import MANIFESTS, SPLITS, manifest_split


def picture_bytes(path: Path, seed: int, mask: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 2 if mask else 256, (6, 6), dtype=np.uint8)
    Image.fromarray(pixels * 255 if mask else pixels).save(path)


def manifest_of(root: Path, paths: list[Path]) -> dict:
    facts = [{"size": path.stat().st_size, "git_blob": digest(path, "git_blob")} for path in paths]
    return {path.relative_to(root).as_posix(): its for path, its in zip(paths, facts, strict=True)}


def register(monkeypatch, name: str, **changes: object) -> None:
    """Change facts of the source from which a data set is fetched."""
    entry = DATASETS[name]
    monkeypatch.setitem(DATASETS, name, replace(entry, source=replace(entry.source, size=1000, **changes)))


def manifest(home: Path, name: str, content: dict) -> str:
    path = home / f"{name}.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def monuseg(home, monkeypatch) -> Path:
    """A tiny MoNuSeg in LViT's layout, and its manifest in the registry."""
    root = home / "origin" / "MoNuSeg"
    for number, split in enumerate(("Train", "Val", "Test")):
        folder = root / f"{split}_Folder"
        picture_bytes(folder / "img" / "x y.tif", number, mask=False)
        picture_bytes(folder / "labelcol" / "x y.png", number, mask=True)
        pd.DataFrame({"Image": ["x y.png"], "Description": ["text"]}).to_excel(
            folder / f"{split}_text.xlsx", index=False
        )
    files = sorted(path for path in root.rglob("*") if path.is_file())
    register(monkeypatch, "monuseg", manifest=manifest(home, "monuseg", {"files": manifest_of(root, files)}))
    return root


def serve_monuseg(server: Server, root: Path) -> None:
    source = DATASETS["monuseg"].source
    for path in root.rglob("*"):
        if path.is_file():
            url = address(source, path.relative_to(root).as_posix(), server.url)
            server.files[url.removeprefix(server.url)] = path.read_bytes()


def quiet(*_):
    pass


def test_monuseg_over_http(server, monuseg, home):
    serve_monuseg(server, monuseg)
    target = fetch("monuseg", base_url=server.url, say=quiet)
    assert target == home / "data" / "MoNuSeg"
    assert [case.caption for case in read_split(target / "Test_Folder")] == ["text"]
    assert json.loads((target / "SOURCE.json").read_text())["verified"] is True
    assert names(target.parent) == ["MoNuSeg"] and not any((home / "cache").rglob("*.tif"))
    asked = len(server.asked)
    assert fetch("monuseg", base_url=server.url, say=quiet) == target and len(server.asked) == asked


def test_monuseg_broken_off_goes_on_with_the_file_it_was_at(server, monuseg):
    serve_monuseg(server, monuseg)
    last = sorted(server.files)[-1]
    body = server.files.pop(last)
    with pytest.raises(FetchError, match="404"):
        fetch("monuseg", base_url=server.url, say=quiet)
    server.files[last] = body
    server.asked.clear()
    fetch("monuseg", base_url=server.url, say=quiet)
    assert [path for path, _ in server.asked] == [last]


@pytest.mark.parametrize("pack", [None, "zip", "gztar"])
def test_monuseg_from_disk(monuseg, home, pack):
    source = monuseg.parent
    if pack:
        source = Path(shutil.make_archive(str(home / "packed"), pack, monuseg.parent))
    target = fetch("monuseg", source=source, say=quiet)
    assert len(read_split(target / "Train_Folder")) == 1
    assert not (target / "unpacked").exists()


def test_altered_file_is_named_with_the_expected_hash_and_the_old_folder_stays(monuseg, home):
    target = fetch("monuseg", source=monuseg, say=quiet)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    mask = monuseg / "Val_Folder" / "labelcol" / "x y.png"
    expected = digest(mask, "git_blob")
    mask.write_bytes(mask.read_bytes() + b"!")
    with pytest.raises(WrongContentError, match=r"x y\.png: size"):
        fetch("monuseg", source=monuseg, force=True, say=quiet)
    picture_bytes(mask, 9, mask=True)
    with pytest.raises(FetchError, match=f"x y.png: .*expected ({expected}|[0-9]+)"):
        fetch("monuseg", source=monuseg, force=True, say=quiet)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert names(target.parent) == ["MoNuSeg"]


def test_existing_folder_is_checked_and_only_replaced_by_force(monuseg):
    target = fetch("monuseg", source=monuseg, say=quiet)
    with pytest.raises(FetchError, match="--force"):
        fetch("monuseg", source=monuseg, say=quiet)
    (target / "Train_Folder" / "img" / "x y.tif").unlink()
    with pytest.raises(FetchError, match=r"missing Train_Folder/img/x y\.tif .*--force"):
        fetch("monuseg", say=quiet)
    fetch("monuseg", source=monuseg, force=True, say=quiet)
    assert (target / "Train_Folder" / "img" / "x y.tif").exists()


def test_kill_during_the_swap_is_mended_by_the_next_run(monuseg):
    target = fetch("monuseg", source=monuseg, say=quiet)
    target.rename(target.with_name(".MoNuSeg.old"))
    target.with_name(".MoNuSeg.partial").mkdir()
    assert fetch("monuseg", say=quiet) == target
    assert names(target.parent) == ["MoNuSeg"]


def test_full_disk_during_conversion_keeps_the_old_folder(monuseg, monkeypatch):
    target = fetch("monuseg", source=monuseg, say=quiet)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching.shutil, "copyfile", full)
    with pytest.raises(DiskFullError, match="disk full"):
        fetch("monuseg", source=monuseg, force=True, say=quiet)
    assert len(read_split(target / "Train_Folder")) == 1
    assert names(target.parent) == ["MoNuSeg"]


def test_too_little_room_is_said_before_the_work(monuseg, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(FetchError, match="MiB free"):
        fetch("monuseg", source=monuseg, say=quiet)


def test_what_is_no_data_set_is_refused(home, monuseg):
    empty = home / "empty"
    empty.mkdir()
    with pytest.raises(FetchError, match="no data set inside"):
        fetch("monuseg", source=empty, say=quiet)
    with pytest.raises(FetchError, match="no such archive"):
        fetch("monuseg", source=home / "nothing.zip", say=quiet)
    (home / "text.zip").write_text("no archive")
    with pytest.raises(FetchError, match="neither a zip nor a tar"):
        fetch("monuseg", source=home / "text.zip", say=quiet)
    with pytest.raises(ValueError, match=r"did you mean .qata.\?.*monuseg, qata"):
        fetch("qatta", say=quiet)


CAPTION = "unilateral pulmonary infection, one infected area, lower left lung."


@pytest.fixture
def sgseg(home, monkeypatch) -> Path:
    """A tiny repository in SGSeg's layout with a twin in capital letters, and its manifest in the
    registry.
    """
    top = home / "origin" / "SGSeg-15f47b2"
    root = top / "data" / "QaTa"
    annotation = {}
    for number, split in enumerate(("train", "valid", "test")):
        names = [f"sub-s{number}{i}_dx.png" for i in range(2)]
        for i, name in enumerate(names):
            picture_bytes(root / "images" / split / "images" / name, 10 * number + i, mask=False)
            picture_bytes(root / "images" / split / "masks" / f"mask_{name}", 10 * number + i, mask=True)
        twin = root / "images" / split / "images" / names[0].replace("sub-s", "sub-S")
        twin.write_bytes((twin.parent / names[0]).read_bytes())
        annotation[split] = [{"image_path": f"mask_{name}", "caption": CAPTION} for name in names]
    (root / "prompts").mkdir()
    (root / "prompts" / "annotation.json").write_text(json.dumps(annotation))
    lines = "\n".join(sorted(f"{row['image_path']}\t{row['caption']}" for row in annotation["train"]))
    content = {
        "cases": {"train": 2, "valid": 2, "test": 2},
        "captions_sha256": {"train": hashlib.sha256(lines.encode()).hexdigest()},
        "files": manifest_of(root, [root / "images" / "test" / "images" / "sub-s20_dx.png"]),
    }
    register(monkeypatch, "qata", manifest=manifest(home, "qata", content))
    return top


def test_qata_archive_over_http_becomes_lvits_layout(server, sgseg, home):
    archive = Path(shutil.make_archive(str(home / "packed"), "zip", sgseg.parent))
    server.files[address(DATASETS["qata"].source)[len("https://codeload.github.com") :]] = archive.read_bytes()
    server.cut = [2000]
    target = fetch("qata", base_url=server.url, say=quiet)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=2000-"]
    for split in ("Train", "Val", "Test"):
        cases = read_split(target / f"{split}_Folder")
        assert [case.caption for case in cases] == [CAPTION] * 2
        assert all(case.mask_path.name == f"mask_{case.image_path.name}" for case in cases)
    assert not any((home / "cache").rglob("*.zip"))


@pytest.fixture
def recorded(sgseg, home, monkeypatch) -> dict:
    """Of the tiny repository one film for training, two for validation, one for the test: the rows, by split."""
    rows = read_json(sgseg / "data" / "QaTa" / "prompts" / "annotation.json")
    line = f"{rows['test'][1]['image_path']}\t{CAPTION}"
    digests = {"test": [hashlib.sha256(line.encode()).hexdigest()[:12]]}
    content = read_json(home / "qata.json") | {"recorded": {"train": 1, "valid": 2}, "rows_sha256": digests}
    (home / "qata.json").write_text(json.dumps(content))
    monkeypatch.setitem(fetching.RECORDED, "qata", {"train": 1, "val": 2, "test": 1})
    return rows


def test_qata_as_recorded_holds_the_films_of_the_records_alone(sgseg, recorded):
    target = fetch("qata", source=sgseg, say=quiet, as_recorded=True)
    masks = [row["image_path"] for row in recorded["train"]]
    first = min(masks, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert names(target / "Train_Folder" / "labelcol") == [first]
    assert names(target / "Test_Folder" / "labelcol") == [recorded["test"][1]["image_path"]]
    data = load_dataset("qata")
    assert [len(getattr(data, split)) for split in ("train", "val", "test", "unlabelled")] == [1, 2, 1, 2]


def test_a_part_is_never_taken_for_the_whole(sgseg, recorded):
    heard = []
    fetch("qata", source=sgseg, say=quiet)
    with pytest.raises(FetchError, match="holds .*'train': 2.*published records are of .*'train': 1.*--force"):
        fetch("qata", say=quiet, as_recorded=True)
    target = fetch("qata", source=sgseg, say=quiet, as_recorded=True, force=True)
    assert fetch("qata", say=heard.append, as_recorded=True) == target and "alone" not in heard[-1]
    assert fetch("qata", say=heard.append) == target and "of the published records alone; force" in heard[-1]
    (warned,) = [fault for fault in check_folder(target, progress=False).warnings if "as-recorded" in fault.text]
    assert warned.remedy == "`textdiff fetch qata --force` brings all"
    (target / "SOURCE.json").write_text("somebody's own notes")
    assert not [fault for fault in check_folder(target, progress=False).warnings if "as-recorded" in fault.text]


def test_what_lacks_recorded_cases_is_not_as_recorded(sgseg, recorded, home, monkeypatch):
    monkeypatch.setitem(fetching.RECORDED, "qata", {"train": 1, "val": 2, "test": 2})
    with pytest.raises(FetchError, match="'test': 1} of the cases of the published records, which are .*'test': 2"):
        fetch("qata", source=sgseg, say=quiet, as_recorded=True)
    assert not (home / "data" / "QaTa-COV19").exists()


def test_of_monuseg_all_images_are_recorded(monuseg):
    target = fetch("monuseg", source=monuseg, say=quiet)
    assert fetch("monuseg", say=quiet, as_recorded=True) == target


def test_the_numbers_of_recorded_cases_are_those_of_the_manifests():
    qata = read_json(MANIFESTS / "qata.json")
    of_qata = {
        "train": qata["recorded"]["train"],
        "val": qata["recorded"]["valid"],
        "test": len(qata["rows_sha256"]["test"]),
    }
    split = list(manifest_split("hippocampus.json").values())
    assert fetching.RECORDED == {"qata": of_qata, "hippocampus": {name: split.count(name) for name in SPLITS}}


@pytest.mark.parametrize(
    ("name", "said"),
    [("openai_256", "are weights"), ("kits23", "cannot be fetched"), ("liver_tumour", "no published record is of")],
)
def test_only_what_records_are_of_can_be_fetched_as_recorded(home, name, said):
    with pytest.raises((ValueError, FetchError), match=said):
        fetch(name, say=quiet, as_recorded=True)


def test_the_recorded_films_are_those_at_hand(qata_root):
    """Of the captions of all films, against the part of the films that the records were made with."""
    manifest = read_json(MANIFESTS / "qata.json")
    with gzip.open(qata_root / "annotation.json.gz") as file:
        annotation = json.load(file)
    for split, folder in (("train", "Train"), ("valid", "Val"), ("test", "Test")):
        rows = [(row["image_path"], row["caption"]) for row in annotation[split]]
        found = sorted(name for name, _ in recorded_rows(split, rows, manifest))
        assert found == names(qata_root / f"{folder}_Folder" / "labelcol")


def test_qata_defects_are_named(sgseg):
    image = sgseg / "data" / "QaTa" / "images" / "test" / "images" / "sub-s20_dx.png"
    table = sgseg / "data" / "QaTa" / "prompts" / "annotation.json"
    good_image, good_table = image.read_bytes(), table.read_text()
    picture_bytes(image, 99, mask=True)
    with pytest.raises(WrongContentError, match=r"sub-s20_dx\.png: (size|git_blob) .*expected"):
        fetch("qata", source=sgseg, say=quiet)
    image.write_bytes(good_image)
    table.write_text(good_table.replace("lower left", "upper left", 1))
    with pytest.raises(FetchError, match="SHA-256 of the captions of split 'train'"):
        fetch("qata", source=sgseg, say=quiet)
    table.write_text("{}")
    with pytest.raises(FetchError, match=r"annotation\.json: cannot read the captions"):
        fetch("qata", source=sgseg, say=quiet)
    table.write_text(good_table)
    (sgseg / "data" / "QaTa" / "images" / "valid" / "masks" / "mask_sub-s11_dx.png").unlink()
    with pytest.raises(FetchError, match=r"missing images/valid/masks/mask_sub-s11_dx\.png"):
        fetch("qata", source=sgseg, say=quiet)


PROGRAM = "import os; open(os.environ['EVIDENCE'], 'w')"


@pytest.mark.parametrize(
    "name", ["{home}/sitecustomize.py", "../../../sitecustomize.py", "sitecustomize.py", "{home}/x.png", "../x.png", 7]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_row_of_the_captions_writes_nothing_elsewhere(sgseg, home, name, split):
    """A picture's name in the captions is where it is written to: a path there would put a program wherever it likes."""
    name = name.format(home=home) if isinstance(name, str) else name
    root = sgseg / "data" / "QaTa"
    table = root / "prompts" / "annotation.json"
    rows = json.loads(table.read_text())
    rows[split][1]["image_path"] = name
    table.write_text(json.dumps(rows))
    for kind in ("images", "masks"):
        picture_bytes(root / "images" / split / kind / "sitecustomize.png", 1, mask=True)
        (root / "images" / split / kind / "sitecustomize.py.png").write_text(PROGRAM)
    before = sorted(home.rglob("*"))
    with pytest.raises(FetchError, match=r"split '(train|test)': .* is not the plain name of a file"):
        fetch("qata", source=sgseg, say=quiet)
    added = set(home.rglob("*")) - set(before) - {home / "data", home / "data" / ".QaTa-COV19.lock"}
    assert not added


def test_captions_that_nobody_published_are_refused(sgseg, home, monkeypatch):
    """Of test some rows are known by hash; the others have a caption that is known from these or from train."""
    table = sgseg / "data" / "QaTa" / "prompts" / "annotation.json"
    rows = json.loads(table.read_text())
    first = f"{rows['test'][0]['image_path']}\t{CAPTION}"
    content = read_json(home / "qata.json")
    content["rows_sha256"] = {"test": [hashlib.sha256(first.encode()).hexdigest()[:12]]}
    (home / "qata.json").write_text(json.dumps(content))
    for number, caption, said in (
        (1, "=cmd|' /c calc'!A0", "not published"),
        (0, CAPTION + " ", "1 rows of split 'test'"),
    ):
        changed = json.loads(json.dumps(rows))
        changed["test"][number]["caption"] = caption
        table.write_text(json.dumps(changed))
        with pytest.raises(FetchError, match=said):
            fetch("qata", source=sgseg, say=quiet)
    for broken in ("[" * 100_000, '{"train": [{"image_path": "a.png", "caption": {}}]}', "\ud800"):
        table.write_bytes(broken.encode("utf-8", "surrogatepass"))
        with pytest.raises(FetchError, match="cannot read the captions"):
            fetch("qata", source=sgseg, say=quiet)
    table.write_text(json.dumps({split: some * 2 for split, some in rows.items()}))
    with pytest.raises(FetchError, match="two captions for one image"):
        fetch("qata", source=sgseg, say=quiet)
    table.write_text(json.dumps(rows))
    assert fetch("qata", source=sgseg, say=quiet).is_dir()


def test_a_picture_of_a_folder_that_is_a_link_out_or_a_pipe_is_not_read(sgseg, monuseg, home):
    private = home / "private.png"
    picture_bytes(private, 5, mask=True)
    for path, name in (
        (sgseg / "data" / "QaTa" / "images" / "test" / "masks" / "mask_sub-s21_dx.png", "qata"),
        (monuseg / "Val_Folder" / "img" / "x y.tif", "monuseg"),
    ):
        for make, said in (
            (lambda at: at.symlink_to(private), "leads out|size is"),
            (os.mkfifo, "no regular file|missing"),
        ):
            path.unlink()
            make(path)
            with pytest.raises(FetchError, match=said):
                fetch(name, source=sgseg if name == "qata" else monuseg, say=quiet)
            assert names(home / "data") == []


def test_monuseg_is_not_taken_for_qata(monuseg, sgseg):
    with pytest.raises(FetchError, match="no data set inside; expected SGSeg's layout"):
        fetch("qata", source=monuseg, say=quiet)


def test_damaged_archive_in_the_cache_is_fetched_anew(server, sgseg, home):
    path = address(DATASETS["qata"].source, base_url=server.url).removeprefix(server.url)
    server.files[path] = b"an error page"
    with pytest.raises(FetchError, match="not a whole zip"):
        fetch("qata", base_url=server.url, say=quiet)
    archive = Path(shutil.make_archive(str(home / "packed"), "zip", sgseg.parent))
    server.files[path] = archive.read_bytes()
    assert fetch("qata", base_url=server.url, say=quiet).is_dir()


# --- the shipped manifests against the real data ---


def test_shipped_manifests_are_small_and_whole():
    monuseg, qata = (DATASETS[name].source for name in ("monuseg", "qata"))
    files = read_json(MANIFESTS / monuseg.manifest)["files"]
    assert len(files) == 91 and sum(entry["size"] for entry in files.values()) == monuseg.size
    assert read_json(MANIFESTS / qata.manifest)["cases"] == {"train": 5716, "valid": 1429, "test": 2113}
    for source in (monuseg, qata):
        assert (MANIFESTS / source.manifest).stat().st_size < 300_000
        assert len(source.commit) == 40


def test_real_monuseg_agrees_with_its_manifest(monuseg_root):
    assert fetching.check("monuseg", monuseg_root) == {"train": 24, "val": 6, "test": 14}
