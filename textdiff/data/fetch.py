"""Bring a data set to `data_dir()`, or weights to `weights_dir()`: a name, or what is already on disk, in; a
verified folder or file out.

2D data come from the public GitHub commits named in `REGISTRY`. Archives that GitHub makes are not stable byte
for byte, so what is verified is the content: each listed file against its git blob id in that commit
(`data/manifests/`). Tasks of the Medical Segmentation Decathlon (`DECATHLON`) come as one archive each, with the
addresses and MD5 sums that MONAI keeps. A transfer that breaks off goes on where it stopped; a folder appears only when it is
whole, and an older one stays until then.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from textdiff.base.paths import DATASET_FOLDERS, cache_dir, data_dir, weights_dir
from textdiff.data.cases import picture_size
from textdiff.data.images.lvit import find_entry, match_key, read_split
from textdiff.data.volumes.tasks import TASKS

MANIFESTS = Path(__file__).resolve().parent / "manifests"
CHUNK = 1 << 16
MIB = 1 << 20
GIB = 1 << 30
LVIT_SPLITS = ("Train", "Val", "Test")
SGSEG_SPLITS = {"train": "Train", "valid": "Val", "test": "Test"}
Say = Callable[[str], None]


class FetchError(RuntimeError):
    """Data could not be brought; the message names address, file, and what was expected."""


class WrongContentError(FetchError):
    """A file is there but is not the expected one."""


class DiskFullError(FetchError):
    """No room left; what has arrived is kept."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. `as_archive`: one zip of the repository, else file by file."""

    name: str
    repository: str
    commit: str
    folder: str
    manifest: str
    layout: str
    as_archive: bool
    size: int
    licence: str
    citation: str

    @property
    def store(self) -> str:
        """Folder of its unfinished downloads."""
        return f"{self.name}-{self.commit[:12]}"

    def address(self, path: str = "", base_url: str | None = None) -> str:
        """Address of a file, or of the archive; `base_url` stands in for the public host."""
        if self.as_archive:
            host = base_url or "https://codeload.github.com"
            return f"{host.rstrip('/')}/{self.repository}/zip/{self.commit}"
        host = base_url or "https://raw.githubusercontent.com"
        return f"{host.rstrip('/')}/{self.repository}/{self.commit}/{self.folder}/{urllib.request.quote(path)}"

    def read_manifest(self) -> dict:
        """The known content: {"files": {path: {"size", "git_blob"}}, ...}."""
        return json.loads((MANIFESTS / self.manifest).read_text(encoding="utf-8"))


REGISTRY: dict[str, Source] = {
    "monuseg": Source(
        name="monuseg",
        repository="HUANGLIZI/LViT",
        commit="a9b0b412415928d9c6a09459f66b263ab1a2bf06",
        folder="datasets/MoNuSeg",
        manifest="monuseg.json",
        layout="lvit",
        as_archive=False,
        size=98_384_066,
        licence="CC BY-NC-SA 4.0 (MoNuSeg challenge); text from LViT, whose repository is MIT",
        citation="Kumar et al., IEEE TMI 2017, doi:10.1109/TMI.2017.2677499; text: Li et al. (LViT), arXiv:2206.14718",
    ),
    "qata": Source(
        name="qata",
        repository="ShuchangYe-bib/SGSeg",
        commit="15f47b21c68df5046b8903cf11ff1b4e59b45888",
        folder="data/QaTa",
        manifest="qata.json",
        layout="sgseg",
        as_archive=True,
        size=288 * MIB,
        licence="CC BY-NC-SA 3.0 IGO (as recorded by dataset-ninja); SGSeg's repository is MIT",
        citation="Degerli et al., Health Inf Sci Syst 2021; text: Li et al. (LViT), arXiv:2206.14718, "
        "cleaned by Ye et al. (SGSeg), MICCAI 2024",
    ),
}


@dataclass(frozen=True)
class Archive:
    """A task of the Medical Segmentation Decathlon: one tar that holds `folder`. `size`: bytes, about."""

    name: str
    folder: str
    size: int
    layout: str = "msd"

    @property
    def licence(self) -> str:
        return TASKS[self.name].licence

    @property
    def citation(self) -> str:
        return TASKS[self.name].citation

    @property
    def store(self) -> str:
        """Folder of its unfinished downloads."""
        return self.folder

    @property
    def md5(self) -> str:
        """MD5 of the tar, as MONAI keeps it."""
        from monai.apps import DecathlonDataset

        return DecathlonDataset.md5[self.folder]

    def address(self, base_url: str | None = None) -> str:
        """Address of the tar; `base_url` stands in for the public host."""
        from monai.apps import DecathlonDataset

        public = DecathlonDataset.resource[self.folder]
        return f"{base_url.rstrip('/')}/{PurePosixPath(public).name}" if base_url else public


DECATHLON: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        Archive("hippocampus", "Task04_Hippocampus", 28 * MIB),
        Archive("liver_tumour", "Task03_Liver", 27 * GIB),
        Archive("pancreas_tumour", "Task07_Pancreas", 12 * GIB),
        Archive("colon_tumour", "Task10_Colon", 6 * GIB),
    )
}


@dataclass(frozen=True)
class Weights:
    """A published checkpoint of a backbone, one file. Its publisher gives no checksum."""

    name: str
    path: str
    host: str
    size: int
    licence: str
    citation: str


WEIGHTS: dict[str, Weights] = {
    "openai_256": Weights(
        name="openai_256",
        host="https://openaipublic.blob.core.windows.net",
        path="diffusion/jul-2021/256x256_diffusion_uncond.pt",
        size=2_212_000_000,
        licence="MIT (openai/guided-diffusion); see its model card for intended use",
        citation="Dhariwal & Nichol, NeurIPS 2021, arXiv:2105.05233",
    ),
}


def git_blob_id(content: bytes) -> str:
    """The id git gives to a file of this content (SHA-1 with git's header), hex."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _md5(path: Path) -> str:
    """MD5 of a file of any size, hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(path: Path, expected: dict, origin: str) -> None:
    """Raise WrongContentError unless `size`, `git_blob`, `sha256` and `md5` (those given) are as expected."""
    content = path.read_bytes() if {"git_blob", "sha256"} & expected.keys() else b""
    found = {"size": path.stat().st_size}
    if "git_blob" in expected:
        found["git_blob"] = git_blob_id(content)
    if "sha256" in expected:
        found["sha256"] = hashlib.sha256(content).hexdigest()
    if "md5" in expected:
        found["md5"] = _md5(path)
    for kind, value in found.items():
        if kind in expected and expected[kind] != value:
            raise WrongContentError(f"{origin} -> {path}: {kind} is {value}, expected {expected[kind]}")


def _disk_full(error: OSError, path: Path) -> DiskFullError:
    return DiskFullError(f"disk full while writing {path}; make room and run the same command again ({error.strerror})")


# --- transfer ------------------------------------------------------------------------------------------


def _append(response, part: Path, start: int) -> None:
    """Write a body into `part` from byte `start` on; ConnectionError when fewer bytes came than announced."""
    announced = response.headers.get("Content-Length")
    received = 0
    try:
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            while chunk := response.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(error, part) from error
        raise
    if announced is not None and received < int(announced):
        raise ConnectionError(f"transfer broke off after {received} of {announced} bytes")


def _request(url: str, part: Path, timeout: float) -> None:
    """Ask once for what `part` does not hold yet."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "textdiff", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            _append(response, part, start if goes_on else 0)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send: whether `part` is whole is for the check to say
            return
        if error.code in (429, 500, 502, 503, 504):
            raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
        raise FetchError(f"{url}: HTTP {error.code} {error.reason}") from error


def download(url: str, path: Path, expected: dict | None = None, attempts: int = 4, timeout: float = 60.0) -> Path:
    """Download `url` to `path`, going on from `<path>.part` when a transfer had broken off (HTTP Range).

    Args:
        url: http or https address.
        path: final place; it appears only when whole and verified.
        expected: any of {"size": bytes, "git_blob": hex, "sha256": hex, "md5": hex}; a file already at `path` that
            agrees is kept.
        attempts: how many times a broken transfer is taken up again before giving up.
        timeout: seconds without an answer.

    Raises FetchError that names address, path and expected hash.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url}: only http and https addresses are supported")
    expected = expected or {}
    if path.exists() and expected:
        try:
            _verify(path, expected, url)
            return path
        except WrongContentError:
            pass  # it stays until the right one replaces it
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    trouble: Exception | None = None
    for attempt in range(attempts):
        resumed = part.exists() and part.stat().st_size > 0
        try:
            _request(url, part, timeout)
            _verify(part, expected, url)
            os.replace(part, path)
            return path
        except (HTTPException, OSError) as error:
            trouble = error
            if attempt + 1 < attempts:
                time.sleep(min(2**attempt, 8) * 0.25)
        except WrongContentError as error:
            part.unlink()
            if not resumed:  # only a resumed file, which may mix two answers, deserves a fresh start
                raise
            trouble = error
    raise FetchError(
        f"cannot download {url} to {path}: {trouble}. Expected {expected or 'content unknown beforehand'}. "
        "Run the same command again to go on, or give an archive or folder already on disk as source."
    )


def _download_source(source: Source | Archive, store: Path, base_url: str | None, say: Say) -> Path:
    """Bring everything into `store`; returns the archive, or the folder of single files."""
    if isinstance(source, Archive):
        url = source.address(base_url)
        say(f"{source.name}: {url} (about {source.size / MIB:.0f} MiB) to {store}")
        return download(url, store / f"{source.folder}.tar", {"md5": source.md5})
    if source.as_archive:
        url = source.address(base_url=base_url)
        say(f"{source.name}: {url} (about {source.size / MIB:.0f} MiB) to {store}")
        archive = store / "archive.zip"
        if not zipfile.is_zipfile(archive):  # a whole one may wait here from a run that was stopped later
            download(url, archive)
        if not zipfile.is_zipfile(archive):
            archive.unlink()
            raise FetchError(f"{url}: the answer is not a whole zip archive; run the same command again")
        return archive
    files = source.read_manifest()["files"]
    for number, (path, expected) in enumerate(files.items(), start=1):
        if number == 1 or number % 10 == 0 or number == len(files):
            say(f"{source.name}: file {number} of {len(files)}, {path}")
        download(source.address(path, base_url), store / path, expected)
    return store


# --- from what is on disk to LViT's layout -------------------------------------------------------------


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, folder, format="zip")
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            raise FetchError(f"{archive}: neither a zip nor a tar archive")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(error, folder) from error
        raise FetchError(f"{archive}: cannot unpack: {error}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, shutil.ReadError) as error:
        raise FetchError(f"{archive}: damaged archive: {error}") from error


def _find_root(folder: Path, source: Source) -> tuple[Path, str]:
    """The folder inside `folder` that holds the data, and its layout: "lvit" or "sgseg"."""
    wanted = [alias.lower() for alias in DATASET_FOLDERS[source.name]]
    candidates = []
    for root, names, _ in os.walk(folder):
        lower = {entry.lower() for entry in names}
        path = Path(root)
        if "train_folder" in lower:
            candidates.append((path.name.lower() not in wanted, len(path.parts), path, "lvit"))
            names.clear()
        elif source.layout == "sgseg" and (path / "prompts" / "annotation.json").is_file():
            candidates.append((path.name.lower() not in wanted, len(path.parts), path, "sgseg"))
            names.clear()
    if not candidates:
        raise FetchError(
            f"{folder}: no data set inside; expected LViT's layout (Train_Folder/img, labelcol, *_text.xlsx; "
            "Val_Folder; Test_Folder) or SGSeg's (images/, prompts/annotation.json)"
        )
    _, _, path, layout = min(candidates)
    return path, layout


def _copy(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(origin, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(error, target) from error
        raise FetchError(f"cannot copy {origin} to {target}: {error}") from error


def _copy_listed(root: Path, stage: Path, files: dict[str, dict]) -> None:
    """Copy the manifest's files and verify each against its git blob id."""
    for path, expected in files.items():
        origin = root
        for part in PurePosixPath(path).parts:
            origin = find_entry(origin, part) or origin / part
        if not origin.is_file():
            raise FetchError(f"{root}: missing {path} (expected git blob {expected['git_blob']})")
        _verify(origin, expected, str(root))
        _copy(origin, stage / path)


def _copy_lvit(root: Path, stage: Path) -> None:
    """Copy the split folders of a data set that already has LViT's layout."""
    if not any(root.glob("*/*/mask_*")):
        raise FetchError(f"{root}: no mask_* files, as QaTa-COV19 has them; is this another data set?")
    for split in (*LVIT_SPLITS, "Train_Extra"):
        origin = find_entry(root, f"{split}_Folder")
        if origin is None:
            if split in LVIT_SPLITS:
                raise FetchError(f"{root}: missing folder {split}_Folder")
            continue
        for path in sorted(origin.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                _copy(path, stage / f"{split}_Folder" / path.relative_to(origin))


def _by_key(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by key; of names that differ in letter case only, the lower-case one."""
    if not folder.is_dir():
        raise FetchError(f"missing folder {folder}")
    return {match_key(path.name): path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}


def _write_text(rows: list[tuple[str, str]], path: Path) -> None:
    import pandas as pd

    pd.DataFrame(rows, columns=["Image", "Description"]).to_excel(path, index=False)


def _convert_sgseg(root: Path, stage: Path, manifest: dict) -> None:
    """Turn SGSeg's layout (images/<split>/{images,masks}, prompts/annotation.json) into LViT's; verify it."""
    table = root / "prompts" / "annotation.json"
    try:
        annotation = json.loads(table.read_text(encoding="utf-8"))
        rows = {split: [(row["image_path"], row["caption"]) for row in annotation[split]] for split in SGSEG_SPLITS}
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{table}: cannot read the captions: {error!r}") from error
    for split, expected in manifest["cases"].items():
        if len(rows[split]) != expected:
            raise FetchError(f"{table}: {len(rows[split])} captions in split {split!r}, expected {expected}")
    for split, expected in manifest["captions_sha256"].items():
        lines = "\n".join(sorted(f"{image}\t{caption}" for image, caption in rows[split]))
        if (found := hashlib.sha256(lines.encode()).hexdigest()) != expected:
            raise FetchError(f"{table}: SHA-256 of the captions of split {split!r} is {found}, expected {expected}")
    known = {path.lower(): expected for path, expected in manifest["files"].items()}
    for split, lvit_split in SGSEG_SPLITS.items():
        folder = stage / f"{lvit_split}_Folder"
        for kind, subfolder in (("images", "img"), ("masks", "labelcol")):
            pictures = _by_key(root / "images" / split / kind)
            for mask_name, _ in rows[split]:
                name = mask_name if kind == "masks" else mask_name.removeprefix("mask_")
                origin = pictures.get(match_key(mask_name))
                if origin is None:
                    raise FetchError(f"{root}: missing images/{split}/{kind}/{name}, which the captions name")
                _verify(origin, known.get(f"images/{split}/{kind}/{name}".lower(), {}), str(root))
                picture_size(origin)
                _copy(origin, folder / subfolder / name)
        _write_text(rows[split], folder / f"{lvit_split}_text.xlsx")


def _recover(target: Path) -> Path:
    """Clear what a killed run left beside `target`; returns where an old folder waits during a swap."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(target.with_name(f".{target.name}.partial"), ignore_errors=True)
    return old


def _swap(stage: Path, target: Path, old: Path) -> None:
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(stage, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _counts(folder: Path) -> dict[str, int]:
    """Read all splits (which checks names, captions, headers and sizes) and count the cases."""
    try:
        return {split: len(read_split(folder / f"{split}_Folder")) for split in LVIT_SPLITS}
    except (ValueError, OSError) as error:
        raise FetchError(f"{folder} is not whole: {error}") from error


def check(name: str, folder: Path) -> dict[str, int]:
    """Check a data set on disk and count the cases of its splits.

    MoNuSeg: every file against its git blob id. 2D: every case has image, mask and caption, headers open,
    sizes agree. 3D: every case has image and labels, headers open, shapes and places agree.
    Raises FetchError that says what is wrong.
    """
    if name in DECATHLON:
        return _count_volumes(name, folder)
    source = REGISTRY[name]
    if source.layout == "lvit":
        for path, expected in source.read_manifest()["files"].items():
            if not (folder / path).is_file():
                raise FetchError(f"{folder}: missing {path} (expected git blob {expected['git_blob']})")
            _verify(folder / path, expected, str(folder))
    return _counts(folder)


def _install(source: Source | Archive, origin: Path, stage: Path) -> dict[str, int]:
    """Fill `stage` from an archive or folder and verify it."""
    stage.mkdir(parents=True)
    folder = origin
    if origin.is_file():
        folder = stage / "unpacked"
        _unpack(origin, folder)
    if isinstance(source, Archive):
        return _install_decathlon(source, origin, folder, stage)
    root, layout = _find_root(folder, source)
    manifest = source.read_manifest()
    if layout == "sgseg":
        _convert_sgseg(root, stage, manifest)
    elif source.layout == "sgseg":
        _copy_lvit(root, stage)
    else:
        _copy_listed(root, stage, manifest["files"])
    shutil.rmtree(stage / "unpacked", ignore_errors=True)
    counts = _counts(stage)
    note = {
        "name": source.name,
        "repository": source.repository,
        "commit": source.commit,
        "verified_against_commit": layout == source.layout,
        "licence": source.licence,
        "citation": source.citation,
        "cases": counts,
    }
    (stage / "SOURCE.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return counts


def _count_volumes(name: str, folder: Path) -> dict[str, int]:
    """Read the headers of all cases and count those of each split."""
    from textdiff.data.volumes.layouts import SPLITS, load_volumes

    try:
        dataset = load_volumes(name, folder)
    except (ValueError, OSError) as error:
        raise FetchError(f"{folder} is not whole: {error}") from error
    return {split: len(getattr(dataset, split)) for split in SPLITS}


def _install_decathlon(source: Archive, origin: Path, folder: Path, stage: Path) -> dict[str, int]:
    """Fill `stage` with the task's folder, found in `folder`, and verify it."""
    roots = sorted(path.parent for path in folder.rglob("imagesTr") if (path.parent / "labelsTr").is_dir())
    if len(roots) != 1:
        raise FetchError(
            f"{origin}: expected one folder with imagesTr/ and labelsTr/, found {[str(root) for root in roots] or 'none'}"
        )
    for path in sorted(roots[0].rglob("*")):
        inside = path.relative_to(roots[0])
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            _move_or_copy(path, stage / inside, move=folder != origin)
    shutil.rmtree(stage / "unpacked", ignore_errors=True)
    counts = _count_volumes(source.name, stage)
    note = {
        "name": source.name,
        "address": source.address(),
        "verified_against_md5": origin.is_file() and _md5(origin) == source.md5,
        "licence": source.licence,
        "citation": source.citation,
        "cases": counts,
    }
    (stage / "SOURCE.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return counts


def _move_or_copy(origin: Path, target: Path, move: bool) -> None:
    if not move:
        return _copy(origin, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(origin, target)


def _by_hand(name: str, target: Path) -> str:
    task = TASKS[name]
    if task.layout == "phantoms":
        return f"{name!r} is drawn when it is loaded; there is nothing to fetch"
    return (
        f"{name!r} cannot be fetched by name: its publisher gives it out at {task.home} (licence: {task.licence}). "
        f"Download it there and unpack it to {target}"
    )


def fetch(
    name: str,
    source: str | Path | None = None,
    base_url: str | None = None,
    force: bool = False,
    say: Say = print,
) -> Path:
    """Bring a data set to `data_dir()` and return its folder; or weights, see `fetch_weights`.

    Args:
        name: "monuseg" or "qata" (the folder has LViT's layout); "hippocampus", "liver_tumour",
            "pancreas_tumour" or "colon_tumour" (the Decathlon's layout); or "openai_256".
        source: an archive (zip, tar) or folder already on disk instead of a download; LViT's layout, SGSeg's
            for QaTa, the Decathlon's. For weights, the file.
        base_url: stands in for the public host, for a mirror with the same paths.
        force: make it anew although it is there; without it a folder that is there and passes `check` is
            kept.
        say: called with lines about the progress.

    Raises ValueError for an unknown name; FetchError (address, path, expected hash) when data are missing,
    damaged or cannot be had. Whatever goes wrong, a folder that was there before stays as it was.
    """
    if name in WEIGHTS:
        return fetch_weights(name, source, base_url, force, say)
    target = data_dir() / DATASET_FOLDERS.get(name, ("",))[0]
    if name in TASKS and name not in DECATHLON:
        raise FetchError(_by_hand(name, target))
    if name not in REGISTRY and name not in DECATHLON:
        raise ValueError(f"{name!r} is unknown; `fetch` knows {', '.join([*REGISTRY, *WEIGHTS, *DECATHLON])}")
    entry = REGISTRY.get(name) or DECATHLON[name]
    old = _recover(target)
    if target.exists() and not force and source is None:
        try:
            say(f"{name}: already in {target}, checked: {check(name, target)}")
        except FetchError as error:
            raise FetchError(
                f"{error}. Use force (--force) to fetch it anew; the old folder stays until then."
            ) from error
        return target
    if target.exists() and not force:
        raise FetchError(f"{target} is already there; use force (--force) to replace it")
    if source is not None and not Path(source).expanduser().exists():
        raise FetchError(f"no such archive or folder: {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(target.parent).free) < 2 * entry.size:
        raise FetchError(f"{target.parent}: {free / MIB:.0f} MiB free, about {2 * entry.size / MIB:.0f} MiB needed")
    store = cache_dir() / "downloads" / entry.store
    origin = Path(source).expanduser() if source is not None else _download_source(entry, store, base_url, say)
    stage = target.with_name(f".{target.name}.partial")
    try:
        counts = _install(entry, origin, stage)
        _swap(stage, target, old)
    except DiskFullError:
        raise  # the download is good: the next run takes it up
    except FetchError:
        if source is None and not isinstance(entry, Archive):  # an archive's MD5 was right: it stays
            shutil.rmtree(store, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if source is None:
        shutil.rmtree(store, ignore_errors=True)
    say(f"{name}: in {target}, {counts}. Licence: {entry.licence}. Please cite: {entry.citation}")
    return target


# --- weights -------------------------------------------------------------------------------------------


def _check_weights(entry: Weights, path: Path, origin: str) -> str:
    """Read `path` as tensors only (no code of a pickle is run) and compare every name and shape with our UNet.

    Returns a line about what was verified. Raises WrongContentError that lists what does not fit.
    """
    import torch

    from textdiff.base.checkpoints import check_fit, read_checkpoint
    from textdiff.experiments.images import OPENAI_256
    from textdiff.models.unet import UNet

    with torch.device("meta"):
        unet = UNet(**OPENAI_256)
    try:
        state = read_checkpoint(path)
        check_fit(unet, state, source=origin)
    except ValueError as error:
        raise WrongContentError(f"{origin} -> {path}: not the weights of {entry.name}: {error}") from error
    count = sum(value.numel() for value in state.values())
    return f"{len(state)} tensors, {count:,} numbers, names and shapes as they must be (no checksum is published)"


def fetch_weights(
    name: str,
    source: str | Path | None = None,
    base_url: str | None = None,
    force: bool = False,
    say: Say = print,
) -> Path:
    """Bring published weights to `weights_dir()` and return the file. The arguments are those of `fetch`.

    No checksum of the file is known, so what is verified is that it holds tensors and nothing else, with the
    names and shapes of the network. The file appears under its name only when that is so; an older one stays
    until then. Raises FetchError.
    """
    entry = WEIGHTS[name]
    target = weights_dir() / PurePosixPath(entry.path).name
    if target.exists() and not force:
        if source is not None:
            raise FetchError(f"{target} is already there; use force (--force) to replace it")
        say(f"{name}: already in {target}, checked: {_check_weights(entry, target, 'on disk')}")
        return target
    if source is not None and not Path(source).expanduser().is_file():
        raise FetchError(f"no such file: {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived = target.with_name(f".{target.name}.unverified")  # a killed run may have left it, whole
    part = arrived.with_name(f"{arrived.name}.part")
    missing = entry.size - sum(path.stat().st_size for path in (arrived, part) if path.exists())
    if (free := shutil.disk_usage(target.parent).free) < missing:
        raise FetchError(f"{target.parent}: {free / MIB:.0f} MiB free, about {missing / MIB:.0f} MiB needed")
    origin = str(source) if source is not None else f"{(base_url or entry.host).rstrip('/')}/{entry.path}"
    if source is not None:
        _copy(Path(source).expanduser(), arrived)
    elif not arrived.exists():
        say(f"{name}: {origin} (about {entry.size / MIB:.0f} MiB) to {target.parent}")
        download(origin, arrived)
    try:
        verified = _check_weights(entry, arrived, origin)
    except WrongContentError:
        arrived.unlink()
        raise
    os.replace(arrived, target)
    say(f"{name}: in {target}, {verified}. Licence: {entry.licence}. Please cite: {entry.citation}")
    return target
