"""Data sets and weights: a name of the registry, or what is already on disk, in; a verified folder or file out.

Archives that GitHub makes are not stable byte for byte, so what is verified of images is the content: each listed file
against its git blob id (`data/manifests/`). Tasks of the Medical Segmentation Decathlon have the addresses and MD5 sums that
MONAI keeps; our own weights come from the release of this version, by SHA-256. A folder appears only when it is whole, and
one process at a time brings it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from textdiff.base.files import read_json, write_text
from textdiff.base.parsing import did_you_mean
from textdiff.base.paths import cache_dir, data_dir, weights_dir
from textdiff.data import load_dataset
from textdiff.data.archives import own_file, unpack
from textdiff.data.download import (
    MIB,
    DiskFullError,
    FetchError,
    WrongContentError,
    download,
    need_room,
    verify,
    writing,
)
from textdiff.data.entries import Backbone, DatasetEntry, Decathlon, GitHub, ShippedModel
from textdiff.data.images.lvit import find_entry
from textdiff.data.images.pictures import PICTURE_SUFFIXES
from textdiff.data.images.sgseg import convert
from textdiff.data.images.tables import TABLE_SUFFIXES
from textdiff.data.placing import locked, partial_of, remove, swap
from textdiff.data.registry import BACKBONES, DATASETS, MODELS, dataset
from textdiff.data.splits import MANIFESTS, SPLITS, manifest_split
from textdiff.data.volumes.layouts import load_volumes
from textdiff.data.volumes.listings import fold, listed_cases, read_description, resolved

Say = Callable[[str], None]
# Layout -> a folder by which it is known, and what it looks like
MARKS = {
    "lvit": ("train_folder", "LViT's layout: Train_Folder/img, labelcol, *_text.xlsx; Val_Folder; Test_Folder"),
    "sgseg": ("prompts", "SGSeg's layout: images/, prompts/annotation.json"),
    "msd": ("imagestr", "the Decathlon's layout: imagesTr/, labelsTr/"),
}
# Cases of each split that the published records were made with, where the published data set has more (of MoNuSeg they are all)
RECORDED = {
    "qata": {"train": 1500, "val": 300, "test": 1913},
    "hippocampus": {"train": 155, "val": 33, "test": 33},
}
# Layout -> suffixes of the files that are brought, and no others
WANTED: dict[str, tuple[str, ...]] = {
    "lvit": (*sorted(PICTURE_SUFFIXES), *sorted(TABLE_SUFFIXES)),
    "sgseg": (".png", ".json"),
    "msd": (".nii.gz", ".nii", ".json", ".txt", ".md"),
}


def fetch(
    name: str,
    source: str | Path | None = None,
    base_url: str | None = None,
    force: bool = False,
    say: Say = print,
    as_recorded: bool = False,
) -> Path:
    """Bring a data set to `data_dir()`, or weights to `weights_dir()`, and return its folder (openai_256: the file).

    Args:
        name: of a data set with a source in the registry, "openai_256", or our own weights (see `fetch_release`).
        source: what is already on disk, instead of a download: an archive (zip, tar) or folder in LViT's layout (monuseg),
            SGSeg's (qata) or the Decathlon's; the file (openai_256).
        base_url: stands in for the public host, for a mirror with the same paths.
        force: make it anew although it is there; without it a folder that is there and passes `check` is kept.
        say: called with lines about the progress.
        as_recorded: of a data set only the cases that the published records were made with, so that their draws and test
            cases come back; of monuseg they are all.

    Raises ValueError for an unknown name; FetchError (address, path, expected hash) when data are missing, damaged or
    cannot be had. Whatever goes wrong, a folder that was there before stays as it was.
    """
    if as_recorded and name in BACKBONES | MODELS:
        raise ValueError(f"{name!r} are weights: only data sets can be fetched as recorded")
    if name in BACKBONES and BACKBONES[name].address:
        return _fetch_checkpoint(BACKBONES[name], source, base_url, force, say)
    if name in BACKBONES or name in MODELS:
        return fetch_release(name, base_url, force, say)
    entry, from_where = _fetchable(name)
    if as_recorded and name not in (*RECORDED, "monuseg"):
        raise ValueError(f"no published record is of {name!r}; as recorded there are monuseg, {', '.join(RECORDED)}")
    as_recorded = as_recorded and name in RECORDED
    target = data_dir() / entry.folders[0]
    before = target.exists()  # what another process brings while this one waits is what was asked for
    with locked(target, say):
        remove(partial_of(target))
        if target.exists() and not force:
            return _kept(name, target, source if before else None, say, as_recorded)
        if source is not None and not Path(source).expanduser().exists():
            raise FetchError(f"no such archive or folder: {source}")
        need_room(target.parent, 2 * from_where.size)
        if source is not None:
            counts = _make(entry, from_where, Path(source).expanduser(), target, as_recorded)
        else:
            counts = _bring(entry, from_where, target, base_url, say, as_recorded)
    say(f"{name}: in {target}, {counts}. Licence: {entry.licence}. Please cite: {entry.citation}")
    return target


def _kept(name: str, target: Path, source: str | Path | None, say: Say, as_recorded: bool) -> Path:
    """What is there already, checked."""
    if source is not None:
        raise FetchError(f"{target} is already there; use force (--force) to replace it")
    try:
        counts = check(name, target)
    except FetchError as error:
        raise FetchError(f"{error}. Use force (--force) to fetch it anew; the old folder stays until then") from error
    recorded = counts == RECORDED.get(name)
    if as_recorded and not recorded:
        raise FetchError(
            f"{target} holds {counts}, and the published records are of {RECORDED[name]}: replace it by force (--force), or "
            "bring them to another folder (--root), which TEXTDIFF_DATA must then name"
        )
    part = " These are the cases of the published records alone; force (--force) brings all." if recorded else ""
    say(f"{name}: already in {target}, checked: {counts}.{'' if as_recorded else part}")
    return target


def _bring(
    entry: DatasetEntry, from_where: GitHub | Decathlon, target: Path, base_url: str | None, say: Say, as_recorded: bool
) -> dict[str, int]:
    """Download, and make `target` out of that; what is downloaded stays until then, unless it is wrong."""
    store = cache_dir() / "downloads" / entry.name
    with locked(store, say):
        origin = _download(entry.name, from_where, store, base_url, say)
        try:
            counts = _make(entry, from_where, origin, target, as_recorded)
        except DiskFullError:
            raise  # the download is good: the next run takes it up
        except FetchError:
            if isinstance(from_where, GitHub):  # an archive's MD5 was right: it stays
                remove(store)
            raise
        remove(store)
    return counts


def _make(
    entry: DatasetEntry, from_where: GitHub | Decathlon, origin: Path, target: Path, as_recorded: bool
) -> dict[str, int]:
    """Put a verified data set made out of an archive or folder in the place of `target`."""
    stage = partial_of(target)
    try:
        with writing(stage):
            counts = _install(entry, from_where, origin, stage, as_recorded)
        swap(stage, target)
    finally:
        remove(stage)
    return counts


def check(name: str, folder: Path) -> dict[str, int]:
    """Check a data set on disk and count the cases of its splits, and under "absent" those that the shipped split names.

    Raises FetchError where a file of the manifest is another one, a case lacks image, mask, caption or labels, a header
    does not open, or sizes or places do not agree.
    """
    source = dataset(name).source
    if isinstance(source, GitHub) and not source.as_archive:
        for _ in _verified(folder, source):
            pass
    return _counts(dataset(name), folder)


def _fetchable(name: str) -> tuple[DatasetEntry, GitHub | Decathlon]:
    """The entry and the source of a data set that can be fetched; an error that says what can be done about any other name."""
    try:
        entry = dataset(name)
    except ValueError:
        fetchable = [*(one.name for one in DATASETS.values() if one.source), *BACKBONES, *MODELS]
        near = did_you_mean(name, fetchable)
        raise ValueError(f"{name!r} is unknown{near}; `fetch` knows {', '.join(fetchable)}") from None
    if entry.synthetic:
        raise FetchError(f"{name!r} is drawn when it is loaded; there is nothing to fetch")
    if entry.source is None:
        raise FetchError(
            f"{name!r} cannot be fetched by name{f': its publisher gives it out at {entry.home}' if entry.home else ''} "
            f"(licence: {entry.licence}). Unpack it to {data_dir() / entry.folders[0]}"
        )
    return entry, entry.source


# --- transfer ------------------------------------------------------------------------------------------


def address(source: GitHub | Decathlon, path: str = "", base_url: str | None = None) -> str:
    """Address of the archive, or of one file of a repository; `base_url` stands in for the public host."""
    if isinstance(source, Decathlon):
        from monai.apps import DecathlonDataset

        public = DecathlonDataset.resource[source.folder]
        return f"{base_url.rstrip('/')}/{PurePosixPath(public).name}" if base_url else public
    if source.as_archive:
        host = base_url or "https://codeload.github.com"
        return f"{host.rstrip('/')}/{source.repository}/zip/{source.commit}"
    host = base_url or "https://raw.githubusercontent.com"
    return f"{host.rstrip('/')}/{source.repository}/{source.commit}/{source.folder}/{quote(path)}"


def _manifest(source: GitHub) -> dict[str, Any]:
    """What is in the commit: {"files": {path: {"size", "git_blob"}}, ...}."""
    return read_json(MANIFESTS / source.manifest)


def _most(size: int) -> int:
    """Bytes that something of about `size` bytes may have at most, packed or unpacked."""
    return 2 * size + 64 * MIB


def _md5(source: Decathlon) -> str:
    from monai.apps import DecathlonDataset

    return DecathlonDataset.md5[source.folder]


def _download(name: str, source: GitHub | Decathlon, store: Path, base_url: str | None, say: Say) -> Path:
    """Bring everything into `store`; returns the archive, or the folder of single files."""
    if isinstance(source, GitHub) and not source.as_archive:
        files = _manifest(source)["files"]
        for number, (path, expected) in enumerate(files.items(), start=1):
            if number == 1 or number % 10 == 0 or number == len(files):
                say(f"{name}: file {number} of {len(files)}, {path}")
            download(address(source, path, base_url), store / path, expected)
        return store
    url = address(source, base_url=base_url)
    say(f"{name}: {url} (about {source.size / MIB:.0f} MiB) to {store}")
    if isinstance(source, Decathlon):
        return download(url, store / f"{source.folder}.tar", {"md5": _md5(source)}, most=_most(source.size))
    archive = store / f"{source.commit}.zip"
    if not zipfile.is_zipfile(archive):  # a whole one may wait here from a run that was stopped later
        download(url, archive, most=_most(source.size))
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise FetchError(f"{url}: the answer is not a whole zip archive; run the same command again")
    return archive


# --- from what is on disk to a data set's folder -------------------------------------------------------


def _find_root(entry: DatasetEntry, source: GitHub | Decathlon, origin: Path, folder: Path) -> Path:
    """The folder below `folder` that holds the data set: best one of its name, else the least deep."""
    marker, layout = MARKS[source.layout]
    names = {name.lower() for name in entry.folders} | {PurePosixPath(source.folder).name.lower()}
    roots = [Path(root) for root, inside, _ in os.walk(folder) if marker in {name.lower() for name in inside}]
    if not roots:
        raise FetchError(f"{origin}: no data set inside; expected {layout}")
    return min(roots, key=lambda root: (root.name.lower() not in names, len(root.parts), root))


def _verified(root: Path, source: GitHub) -> Iterator[tuple[str, Path]]:
    """The manifest's files below `root`, whatever their letter case, each verified against its git blob id."""
    for path, expected in _manifest(source)["files"].items():
        file = root
        for part in PurePosixPath(path).parts:
            file = find_entry(file, part) or file / part
        if not file.is_file():
            raise FetchError(f"{root}: missing {path} (expected git blob {expected['git_blob']})")
        verify(file, expected, str(root))
        yield path, file


def _install(
    entry: DatasetEntry, source: GitHub | Decathlon, origin: Path, stage: Path, as_recorded: bool
) -> dict[str, int]:
    """Fill `stage` from an archive or folder and verify it; returns the number of cases of each split."""
    stage.mkdir(parents=True)
    unpacked, packed = stage / "unpacked", origin.is_file()
    if packed:
        if isinstance(source, Decathlon):
            _verify_archive(origin, source)
        unpack(origin, unpacked, WANTED[source.layout], _most(source.size))
    root = _find_root(entry, source, origin, unpacked if packed else origin)
    if isinstance(source, Decathlon):
        if not (root / "dataset.json").is_file():
            raise FetchError(f"{origin}: no dataset.json, so that nothing says which cases there must be")
        _bring_all(root, stage, WANTED[source.layout], move=packed)
        if as_recorded:
            _leave_recorded(entry, stage)
    elif source.layout == "sgseg":
        convert(root, stage, _manifest(source), as_recorded)
    else:
        for path, file in _verified(root, source):
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, stage / path)
    remove(unpacked)
    counts = _counts(entry, stage)
    if as_recorded and counts != RECORDED[entry.name]:
        raise FetchError(f"{origin}: {counts} of the cases of the published records, which are {RECORDED[entry.name]}")
    verified = packed or isinstance(source, GitHub)  # nobody publishes hashes of a Decathlon's single files
    note = {"name": entry.name, "address": address(source), "verified": verified, "licence": entry.licence}
    note |= {"citation": entry.citation, "cases": counts, "as_recorded": as_recorded}
    write_text(stage / "SOURCE.json", json.dumps(note, indent=2) + "\n")
    return counts


def _verify_archive(archive: Path, source: Decathlon) -> None:
    try:
        verify(archive, {"md5": _md5(source)}, "on disk")
    except FetchError as error:
        raise FetchError(
            f"{error}: cut off, damaged, or packed by somebody else. If you trust it, unpack it and give the folder"
        ) from error


def _bring_all(root: Path, stage: Path, suffixes: tuple[str, ...], move: bool) -> None:
    """The files of `root` with these suffixes, but hidden ones: moved where they were unpacked, copied where they are
    somebody's.
    """
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.name.lower().endswith(suffixes) and not hidden and not path.is_dir():
            own_file(path, root)
            (stage / inside).parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, stage / inside) if move else shutil.copyfile(path, stage / inside)


def _leave_recorded(entry: DatasetEntry, stage: Path) -> None:
    """Of a Decathlon's volumes those of the shipped split alone, in its folders and in dataset.json; none without labels."""
    known = {fold(name) for name in manifest_split(entry.manifest)}
    try:
        listed = listed_cases(stage)
    except ValueError as error:
        raise FetchError(str(error)) from error
    about = read_description(stage)
    kept = [row for row, name in zip(about.get("training", []), listed, strict=True) if resolved(name, known)]
    about |= {"training": kept, "numTraining": len(kept), "test": [], "numTest": 0}
    write_text(stage / "dataset.json", json.dumps(about, indent=2) + "\n")
    remove(stage / "imagesTs")
    (stage / "split.json").unlink(missing_ok=True)  # the shipped split goes before it, and it may name what is left out
    for path in (*stage.glob("imagesTr/*"), *stage.glob("labelsTr/*")):
        if path.is_file() and not resolved(path.name, known):
            path.unlink()


def _counts(entry: DatasetEntry, folder: Path) -> dict[str, int]:
    """Read all cases' headers and sentences and count the cases."""
    try:
        data = load_dataset(entry.name, folder) if entry.kind == "images" else load_volumes(entry.name, folder)
    except (ValueError, OSError) as error:
        raise FetchError(f"{folder} is not whole: {error}") from error
    counts = {split: len(getattr(data, split)) for split in SPLITS}
    absent = len(getattr(data, "absent", ()))
    return counts | ({"absent": absent} if absent else {})


# --- weights -------------------------------------------------------------------------------------------


def release_url() -> str:
    """Where the files of this version's release are: TEXTDIFF_RELEASE, else below the repository of the package's metadata.

    Raises FetchError where neither is known.
    """
    if own := os.environ.get("TEXTDIFF_RELEASE", "").strip():
        return own.rstrip("/")
    try:
        package = metadata.metadata("textdiff")
        urls = dict(line.split(", ", 1) for line in package.get_all("Project-URL") or ())
        return f"{urls['Repository'].rstrip('/')}/releases/download/v{package['Version']}"
    except (metadata.PackageNotFoundError, KeyError) as error:
        raise FetchError(
            "the installed package does not say where its releases are; set TEXTDIFF_RELEASE to the address of the files"
        ) from error


RELEASED_FILES = {"config.json": "config_sha256", "model.safetensors": "sha256"}  # and the entry's field with the hash


def released() -> dict[str, Backbone | ShippedModel]:
    """By name, backbones and models of our own that a release holds: those that no part of the package brings."""
    weights: list[Backbone | ShippedModel] = [*BACKBONES.values(), *MODELS.values()]
    return {one.name: one for one in weights if one.sha256 and not one.packaged}


def fetch_release(name: str, base_url: str | None = None, force: bool = False, say: Say = print) -> Path:
    """Bring one of our own backbones or models from the release to `weights_dir()` and return its folder.

    The files are `<base_url or release_url()>/<name>.config.json` and `.../<name>.model.safetensors`, verified by SHA-256.
    The folder appears only when it is whole; a transfer that breaks off goes on in the next call. `force` replaces a
    folder that is there and is another one. Raises ValueError for a name that no release has; FetchError.
    """
    known = released()
    if name not in known:
        raise ValueError(f"no release has weights {name!r}; it has {', '.join(known)}")
    entry = known[name]
    files = {file: getattr(entry, field) for file, field in RELEASED_FILES.items()}
    target = weights_dir() / name
    with locked(target, say):
        if target.exists() and not force:
            for file, sha256 in files.items():
                if not (target / file).is_file():
                    raise FetchError(f"{target}: no {file}; use force (--force) to replace the folder")
                verify(target / file, {"sha256": sha256}, f"use force (--force) to replace {target}")
            return target
        base = (base_url or release_url()).rstrip("/")
        say(f"{name}: {base} (about {entry.size / MIB:.0f} MiB) to {target}")
        need_room(target.parent, entry.size)
        for file, sha256 in files.items():
            most = entry.size + MIB
            download(f"{base}/{name}.{file}", partial_of(target) / file, {"sha256": sha256}, most=most)
        swap(partial_of(target), target)
    return target


def _fetch_checkpoint(entry: Backbone, source: str | Path | None, base_url: str | None, force: bool, say: Say) -> Path:
    """Bring a checkpoint that its publisher gives out as one file; see `fetch`."""
    public = urlsplit(entry.address)
    target = weights_dir() / PurePosixPath(public.path).name
    with locked(target, say):
        if target.exists() and not force:
            if source is not None:
                raise FetchError(f"{target} is already there; use force (--force) to replace it")
            _check_weights(entry, target, "on disk")
            say(f"{entry.name}: already in {target}, checked: SHA-256 {entry.address_sha256[:16]}...")
            return target
        if source is not None:
            _copy_checkpoint(entry, Path(source).expanduser(), target)
        else:
            url = f"{base_url.rstrip('/')}{public.path}" if base_url else entry.address
            part = target.with_name(f"{target.name}.part")
            need_room(target.parent, entry.size - (part.stat().st_size if part.exists() else 0))
            say(f"{entry.name}: {url} (about {entry.size / MIB:.0f} MiB) to {target.parent}")
            download(url, target, check=lambda arrived: _check_weights(entry, arrived, url), most=_most(entry.size))
    say(
        f"{entry.name}: in {target}, SHA-256 {entry.address_sha256[:16]}... as it must be. Licence: {entry.licence}. "
        f"Please cite: {entry.citation}"
    )
    return target


def _copy_checkpoint(entry: Backbone, origin: Path, target: Path) -> None:
    if not origin.is_file():
        raise FetchError(f"no such file: {origin}")
    _check_weights(entry, origin, "on disk")
    need_room(target.parent, origin.stat().st_size)
    stage = partial_of(target)
    remove(stage)
    try:
        with writing(target):
            shutil.copyfile(origin, stage)
        _check_weights(entry, stage, str(origin))
        os.replace(stage, target)
    finally:
        remove(stage)


def _check_weights(entry: Backbone, path: Path, origin: str) -> None:
    """Raises WrongContentError unless `path` has the bytes that are known; nothing in it is read as weights before that."""
    try:
        verify(path, {"sha256": entry.address_sha256}, origin)
    except WrongContentError as error:
        raise WrongContentError(f"{error}: not the weights of {entry.name}, or a damaged copy") from error
