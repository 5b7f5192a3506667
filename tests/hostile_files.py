"""Files of every kind that is read, damaged at random: a seed in, what each reader made of them out.

    python tests/hostile_files.py SEED COUNT [KIND ...]

prints one line of JSON: how many files were read, how many refused, and every fault: an error that is not for people or does not
name the file, more than SECONDS of processor time, more than GIGABYTES of memory. A crash ends the process. The file that was
read last lies in the folder LAST, if that is set in the environment.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS, GIGABYTES = 10, 2
DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (12, 17), dtype=np.uint8)
ARRAY = DRAW.integers(0, 3000, (7, 6, 5)).astype(np.int16)
Maker = Callable[[Path], Path]
Reader = Callable[[Path], object]


# --- healthy files ---------------------------------------------------------------------------------------


def picture(name: str, **options: Any) -> Maker:
    def make(folder: Path) -> Path:
        from PIL import Image

        colours = np.dstack([GREY, GREY.T.reshape(GREY.shape), 255 - GREY])
        Image.fromarray(GREY % 3 if "mask" in name else colours).save(folder / name, **options)
        return folder / name

    return make


def volume(name: str) -> Maker:
    def make(folder: Path) -> Path:
        import nibabel

        if name.endswith((".nrrd", ".mha")):
            import SimpleITK as sitk

            sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(folder / name), useCompression=True)
        else:
            (nibabel.MGHImage if "mgz" in name else nibabel.Nifti1Image)(ARRAY, np.eye(4)).to_filename(folder / name)
        return folder / name

    return make


def slices(syntax: str = "") -> Maker:
    def make(folder: Path) -> Path:
        import pydicom
        from dicom_files import rising, save_series

        def change(_: int, made: Any) -> None:
            if syntax:
                made.compress(getattr(pydicom.uid, syntax))

        save_series(folder / "series", ARRAY, rising(5), change=change)
        return (
            folder / "series" / "001_5.dcm"
            if (folder / "series" / "001_5.dcm").exists()
            else next((folder / "series").iterdir())
        )

    return make


def labels_of_dicom(folder: Path) -> Path:
    from dicom_files import rising, save_series

    from textdiff.data.volumes.dicom_seg import write_dicom_seg
    from textdiff.data.volumes.volume import Volume, read_image

    image = read_image(save_series(folder / "series", ARRAY, rising(5)))
    labels = Volume((ARRAY % 3).astype(np.uint8), image.affine, "labels")
    write_dicom_seg(folder / "seg.dcm", labels, ("background", "liver", "spleen"), folder / "series")
    return folder / "seg.dcm"


def outlines(folder: Path) -> Path:
    from dicom_files import rising, save_outlines, save_series

    save_series(folder / "series", ARRAY, rising(5))
    square = np.array([[-9.0, 21, 8], [-7, 21, 8], [-7, 23, 8], [-9, 23, 8]])
    return save_outlines(folder / "rt.dcm", {"liver": [square]})


def table(name: str) -> Maker:
    def make(folder: Path) -> Path:
        import pandas as pd

        frame = pd.DataFrame({"Image": ["a.png", "b.png"], "Description": ["one, two", "three"]})
        frame.to_excel(folder / name, index=False) if name.endswith("xlsx") else frame.to_csv(
            folder / name, index=False
        )
        return folder / name

    return make


def text(name: str, content: object) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder / name

    return make


SMALL = {
    **{"image_size": 32, "in_channels": 3, "model_channels": 32, "out_channels": 3, "num_res_blocks": 1},
    **{"attention_resolutions": [1], "channel_mult": [1], "num_head_channels": 32},
}


def network(name: str) -> Maker:
    def make(folder: Path) -> Path:
        from textdiff import UNet

        UNet(**SMALL).save_pretrained(folder)
        return folder / name

    return make


def model(folder: Path) -> Path:
    from textdiff.base.paths import shipped

    shutil.copytree(shipped("weights") / "hippocampus_small", folder, dirs_exist_ok=True)
    return folder / "config.json"


def state(folder: Path) -> Path:
    import torch

    torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}, folder / "a.pt")
    return folder / "a.pt"


def slots(folder: Path) -> Path:
    import torch

    from textdiff.base.slots import SlotFile, layout_of

    maps = [torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.float16)]
    file = SlotFile.create(folder / "maps", layout_of(maps))
    for key in ("0" * 31 + "1", "0" * 31 + "2"):
        file.append(key, maps)
    return folder / "maps"


# --- readers ---------------------------------------------------------------------------------------------


def read_slots(path: Path) -> None:
    import torch

    from textdiff.base.slots import SlotFile

    file = SlotFile(path)
    file.scan()
    if sum(dtype.itemsize * int(np.prod(shape, dtype=float)) for dtype, shape in file.layout) > 10**6:
        return  # the cache reads into memory of its own layout alone
    for key in list(file.slots):
        try:
            file.read(key, [torch.empty(shape, dtype=dtype) for dtype, shape in file.layout])
        except KeyError:  # a damaged slot, which is computed anew
            continue


def kinds() -> dict[str, tuple[Maker, Reader]]:
    """Name -> (who writes a healthy file into a folder, who reads it)."""
    from textdiff import TextDiffSeg, UNet
    from textdiff.base.checkpoints import read_checkpoint
    from textdiff.data.images.masks import read_mask
    from textdiff.data.images.pictures import read_picture
    from textdiff.data.images.tables import read_table
    from textdiff.data.volumes.dicom_labels import read_dicom_labels
    from textdiff.data.volumes.listings import label_names, listed_cases, read_split
    from textdiff.data.volumes.volume import read_image, read_labels

    def columns(path: Path) -> object:
        return list(read_table(path, ("Image", "Description")))

    def described(path: Path) -> object:
        return label_names(path.parent), listed_cases(path.parent)

    def in_series(path: Path) -> object:
        return read_dicom_labels(path, path.parent / "series")

    def of_folder(path: Path) -> object:
        return read_image(path.parent)

    about = {"labels": {"0": "background", "1": "liver"}, "training": [{"image": "./a.nii.gz", "label": "./b.nii.gz"}]}
    return {
        "png": (picture("a.png"), read_picture),
        "jpeg": (picture("a.jpg", quality=90), read_picture),
        "tiff": (picture("a.tif", compression="tiff_adobe_deflate"), read_picture),
        "tiff lzw": (picture("a.tif", compression="tiff_lzw"), read_picture),
        "gif": (picture("a.gif"), read_picture),
        "webp": (picture("a.webp"), read_picture),
        "bmp": (picture("a.bmp"), read_picture),
        "ppm": (picture("a.ppm"), read_picture),
        "mask": (picture("mask.png"), read_mask),
        "nifti": (volume("a.nii"), read_image),
        "nifti.gz": (volume("a.nii.gz"), read_labels),
        "mgz": (volume("a.mgz"), read_image),
        "nrrd": (volume("a.nrrd"), read_image),
        "mha": (volume("a.mha"), read_image),
        "dicom": (slices(), of_folder),
        "dicom rle": (slices("RLELossless"), of_folder),
        "dicom jpeg-ls": (slices("JPEGLSLossless"), of_folder),
        "seg": (labels_of_dicom, in_series),
        "rtstruct": (outlines, in_series),
        "xlsx": (table("a.xlsx"), columns),
        "csv": (table("a.csv"), columns),
        "dataset.json": (text("dataset.json", about), described),
        "split.json": (text("split.json", {"train": ["a", "b"], "test": ["c"]}), lambda path: read_split(path.parent)),
        "meta.csv": (text("meta.csv", "image_id;split\na;train\nb;test\n"), lambda path: read_split(path.parent)),
        "safetensors": (network("model.safetensors"), read_checkpoint),
        "config.json": (network("config.json"), lambda path: UNet.from_pretrained(path.parent)),
        "model": (model, lambda path: TextDiffSeg.from_pretrained(path.parent)),
        "pt": (state, read_checkpoint),
        "slots": (slots, read_slots),
    }


# --- damage ----------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"-1",
    b"1e9",
    b"99999999999",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"NaN",
    b"true",
    b"\0",
    b"\xff",
    b"/dev/zero",
    b"../x",
)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes after one to four changes; half of the times of what a zip or gzip file holds, packed again."""
    if draw.random() < 0.5 and content[:2] in (b"PK", b"\x1f\x8b"):
        try:
            return _inside(content, draw)
        except (zipfile.BadZipFile, OSError, EOFError):
            pass
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        _change(changed, draw)
    return bytes(changed)


def _inside(content: bytes, draw: random.Random) -> bytes:
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(damaged(gzip.decompress(content), draw), 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, damaged(old.read(name), draw) if name == chosen else old.read(name))
    return buffer.getvalue()


def _change(content: bytearray, draw: random.Random) -> None:
    # headers stand at the beginning: half of the changes are there
    size = max(1, len(content))
    place = draw.randrange(min(size, 400) if draw.random() < 0.5 else size)
    how = draw.randrange(7)
    if how == 0 and content:
        content[place] ^= 1 << draw.randrange(8)
    elif how == 1:
        number, order = draw.choice(EXTREMES), draw.choice("<>")
        packed = struct.pack(f"{order}Q", number)
        width = draw.choice((1, 2, 4, 8))
        content[place : place + width] = packed[:width] if order == "<" else packed[-width:]
    elif how == 2:
        del content[place:]
    elif how == 3:
        del content[place : place + draw.randint(1, 16)]
    elif how == 4:
        content[place:place] = content[place : place + draw.randint(1, 64)]
    elif how == 5:
        content[place : place + draw.randint(0, 4)] = draw.choice(WORDS)
    else:
        content[place:place] = draw.randbytes(draw.randint(1, 16))


# --- what comes of it ------------------------------------------------------------------------------------


class TooLong(BaseException):
    """More processor time than a file may take."""


def _stop(*_: object) -> None:
    raise TooLong


def watch() -> None:
    """From now on `outcome` ends what takes too long."""
    signal.signal(signal.SIGPROF, _stop)


def outcome(read: Reader, path: Path, folder: Path) -> str:
    """ "read", "refused", or what was wrong."""
    from textdiff.messages import FOR_PEOPLE

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read(path)
    except FOR_PEOPLE as error:
        named = str(folder) in f"{error} {getattr(error, 'filename', '')}"
        return "refused" if named else f"does not name the file: {error!r}"
    except TooLong:
        return f"more than {SECONDS} s"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is a fault
        return f"not for people: {error!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def virtual_bytes() -> int:
    """Address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak_gigabytes() -> float:
    """The most memory that this process has held. getrusage would count what its parent held when it started this one."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def main(seed: int, count: int, chosen: list[str]) -> dict[str, Any]:
    """``count`` damaged files of each kind; the drawn changes depend on seed, kind and number alone."""
    warnings.simplefilter("ignore")
    watch()
    known, counts, faults = kinds(), Counter[str](), []
    with tempfile.TemporaryDirectory() as place:
        made = {}
        for kind in chosen or known:
            folder = Path(place, kind.replace(" ", "_"))
            folder.mkdir()
            make, read = known[kind]
            made[kind] = path = make(folder)
            if (came := outcome(read, path, folder)) != "read":
                faults.append(f"{kind}, healthy: {came}")
        room = virtual_bytes() + int(GIGABYTES * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        for kind, path in made.items():
            content, folder = path.read_bytes(), Path(place, kind.replace(" ", "_"))
            for number in range(count):
                path.write_bytes(damaged(content, random.Random(f"{seed} {kind} {number}")))
                if last := os.environ.get("LAST"):
                    shutil.copy(path, Path(last, f"{kind}-{number}".replace(" ", "_")))
                came = outcome(known[kind][1], path, folder)
                counts[came if came in ("read", "refused") else "fault"] += 1
                if came not in ("read", "refused"):
                    faults.append(f"{kind}, seed {seed}, number {number}: {came[:300]}")
    peak = peak_gigabytes()
    told = {"read": counts["read"], "refused": counts["refused"]}
    return {"seed": seed, "files": sum(counts.values()), **told, "faults": faults, "peak_gb": round(peak, 2)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
