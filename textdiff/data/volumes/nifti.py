"""NIfTI files, Analyze's pairs and FreeSurfer's volumes in, a `Volume` out; and the way back to NIfTI.

Nothing of a file is used before all of it was read: the checksum of a compressed one stands at its end. Where a header gives
two grids (its sform; its qform and voxel sizes) they must agree, or the caller says which is true.
"""

from __future__ import annotations

import gzip
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from textdiff.base.checkpoints import write_atomically
from textdiff.base.limits import most_bytes, need_bytes
from textdiff.data.volumes.grids import (
    SHIFT,
    HeaderGrid,
    Volume,
    check_size,
    distance,
    in_mm,
    invertible,
    volume_shape,
)

Trust = Literal["", "sform", "qform"]
NIFTI_SUFFIXES = (".nii", ".nii.gz")
GZIP = b"\x1f\x8b"
PIECE = 2**20  # bytes unpacked at once
LONGEST_MAT = 100_000  # bytes of the file with an affine that may lie beside an Analyze pair
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by the code of the unit; 0, not said, is taken for mm
CODES = range(6)  # 0: there is no such grid
GRID_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


# --- bytes ---------------------------------------------------------------------------------------------


def read_bytes(path: Path, most: int) -> bytes | bytearray | np.ndarray:
    """All bytes of a file, undone of gzip (whatever its name says), of which at most one more than `most` is read.

    Raises ValueError that names it when it is damaged.
    """
    if _packed(path):
        with open(path, "rb") as file:
            return unpacked(file, path, most)
    return np.memmap(path, mode="r") if path.stat().st_size else b""


def unpacked(file: IO[bytes], path: Path, most: int) -> bytearray:
    """What was compressed by gzip, all its parts, each against its checksum and length; no more than one byte beyond `most`.

    Raises ValueError that names the file.
    """
    content = bytearray()
    with _damage_named(path), gzip.GzipFile(fileobj=file) as packed:
        while len(content) <= most and (part := packed.read(min(PIECE, most + 1 - len(content)))):
            content += part
    return content


def _beginning(path: Path, size: int = 540) -> bytes:
    """The first bytes of a file, undone of gzip."""
    with _damage_named(path), gzip.open(path) if _packed(path) else open(path, "rb") as file:
        return file.read(size)


def _packed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: its gzip data is truncated or damaged ({error})") from error


# --- headers -------------------------------------------------------------------------------------------


def _partners(path: Path) -> tuple[Path, Path]:
    """The file with the header and that with the voxels: x.hdr and x.img for either, else twice the same file."""
    packed = ".gz" if path.name.lower().endswith(".gz") else ""
    name = path.name[: len(path.name) - len(packed)]
    stem, suffix = name[:-4], name[-4:]
    if suffix.lower() not in (".hdr", ".img"):
        return path, path
    names = ("HDR", "IMG") if suffix.isupper() else ("hdr", "img")
    header, voxels = (path.with_name(f"{stem}.{kind}{path.name[len(name) :]}") for kind in names)
    for file, what in ((header, "header"), (voxels, "voxels")):
        if not file.is_file():
            raise FileNotFoundError(f"{path}: its {what} should lie beside it in {file.name}, which is not there")
    return header, voxels


def _parsed(beginning: bytes, path: Path) -> Any:
    """nibabel's header, as it stands in the file: nothing is mended. ValueError, naming the file, for one that cannot be."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.spm2analyze import Spm2AnalyzeHeader
    from nibabel.wrapstruct import WrapStructError

    sizes = {int.from_bytes(beginning[:4], order) for order in ("little", "big")}
    kinds = {b"n+1\0": nibabel.Nifti1Header, b"ni1\0": nibabel.nifti1.Nifti1PairHeader, b"": Spm2AnalyzeHeader}
    if 540 in sizes:
        kinds = {b"n+2\0": nibabel.Nifti2Header, b"ni2\0": nibabel.nifti2.Nifti2PairHeader}
        magic = beginning[4:8]
    else:
        magic = beginning[344:348] if beginning[344:346] in (b"n+", b"ni") else b""
    split = path.name.lower().removesuffix(".gz").endswith(".hdr")
    if not sizes & {348, 540} or magic not in kinds or split != (magic in (b"ni1\0", b"ni2\0", b"")):
        raise ValueError(f"cannot read {path}: not a NIfTI file, or its header is damaged")
    try:
        header: Any = kinds[magic](beginning[: 540 if 540 in sizes else 348], check=False)
        _check_entries(header)
    except (ValueError, KeyError, OverflowError, HeaderDataError, WrapStructError) as error:
        raise ValueError(f"cannot read {path}: its header is damaged ({error})") from error
    return header


def _check_entries(header: Any) -> None:
    """ValueError for entries of a header that cannot be, or do not fit each other."""
    dimensions = header["dim"]
    count = int(dimensions[0])
    if not 1 <= count <= 7 or (dimensions[1 : count + 1] < 1).any():
        raise ValueError(f"dimensions {dimensions.tolist()}")
    stored = header.get_data_dtype()
    if stored.itemsize and int(header["bitpix"]) != 8 * stored.itemsize:
        raise ValueError(f"{int(header['bitpix'])} bits for voxels of type {stored}")
    lowest = header.single_vox_offset if getattr(header, "is_single", False) else 0
    if int(header["vox_offset"]) < lowest:
        raise ValueError(f"voxels from byte {int(header['vox_offset'])} on, inside the header")
    header.get_slope_inter()
    if "scl_slope" in header.keys() and np.isinf(header["scl_slope"]):
        raise ValueError("voxels scaled by infinity")
    for name in ("qform_code", "sform_code"):
        if name in header.keys() and int(header[name]) not in CODES:
            raise ValueError(f"{name} {int(header[name])}")


def _opened(path: Path) -> tuple[Any, Path]:
    """The checked header, and the file with the voxels."""
    header_file, voxels = _partners(path)
    return _parsed(_beginning(header_file), header_file), voxels


# --- which grid ----------------------------------------------------------------------------------------


def _affine(header: Any, shape: tuple[int, int, int], path: Path, trust: Trust) -> np.ndarray:
    """The grid in millimetres; ValueError, showing both, where the header gives two and `trust` does not choose."""
    code = int(header["xyzt_units"]) & 7
    if code not in MILLIMETRES:
        raise ValueError(f"cannot read {path}: its header is damaged (unit {code})")
    unit = MILLIMETRES[code]
    if not header["qform_code"] and not header["sform_code"]:
        return _without_codes(header, unit, path)
    sform, (qform, name, slack) = _from_sform(header, unit), _from_qform(header, unit)
    if sform is None:
        if qform is None:
            raise ValueError(f"{path}: {name} makes no grid")
        return qform
    if qform is not None and invertible(sform) and _agree(sform, qform, shape, slack):
        return sform if trust != "qform" else qform
    found = {"sform": sform if invertible(sform) else None, "qform": qform}
    if trust and (chosen := found[trust]) is not None:
        return chosen
    told = f"sform (code {header['sform_code']}): {_told(found['sform'])}; {name}: {_told(qform)}"
    if not any(grid is not None for grid in found.values()):
        raise ValueError(f"{path}: no matrix of its header is finite and invertible: {told}")
    raise ValueError(
        f"{path}: its header contradicts itself. {told}. Say which is true, "
        'trust="sform" or trust="qform" (--trust sform, --trust qform), or correct the file'
    )


def _from_sform(header: Any, unit: float) -> np.ndarray | None:
    """Its affine, invertible or not; None when its code says that there is none."""
    if not header["sform_code"]:
        return None
    affine = np.eye(4)
    affine[:3] = [header[name] for name in ("srow_x", "srow_y", "srow_z")]
    affine[:3] *= unit
    return affine


def _from_qform(header: Any, unit: float) -> tuple[np.ndarray | None, str, float]:
    """Affine of the qform, None if it makes no grid; what it is; and the angle, radians, that its rounding leaves open.

    Without a qform, what other programs then take: the axes of the sform with the voxel sizes (pixdim).
    """
    from nibabel.quaternions import fillpositive, quat2mat

    handed, *spacing = (float(number) for number in header["pixdim"][:4])
    affine, sform = np.eye(4), _from_sform(header, unit)
    rounding = 3 * float(np.finfo(header["quatern_b"].dtype).eps)
    usable = all(0 < step < np.inf for step in spacing)
    if not header["qform_code"]:
        name = f"voxel sizes (pixdim {in_mm(spacing)}, qform code 0)"
        if not usable or sform is None or not invertible(sform):
            return None, name, 0.0
        affine[:3, :3] = sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0) * spacing * unit
        affine[:3, 3] = sform[:3, 3]
        return affine, name, 0.0
    name = f"qform (code {header['qform_code']}, pixdim {in_mm((handed, *spacing))})"
    vector = np.array([header[f"quatern_{letter}"] for letter in "bcd"], dtype=np.float64)
    length = float(np.linalg.norm(vector))  # at most 1, but for rounding
    affine[:3, 3] = np.array([header[f"qoffset_{letter}"] for letter in "xyz"], dtype=np.float64) * unit
    if not usable or handed not in (-1, 0, 1) or not length < 1 + 1e-6 or not np.isfinite(affine).all():
        return None, name, 0.0
    turn = quat2mat(fillpositive(vector / max(1.0, length), rounding))
    affine[:3, :3] = turn * spacing * (1, 1, -1 if handed < 0 else 1) * unit
    rest = max(0.0, 1 - length**2)
    return affine, name, 2 * float(np.sqrt(rest + rounding) - np.sqrt(rest))


def _agree(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, int, int], slack: float) -> bool:
    """Whether two grids lie within a tenth of a voxel, turns of less than `slack` radians aside."""
    steps = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform)]
    axes = sform[:3, :3] / steps[0]
    if np.abs(axes - qform[:3, :3] / steps[1]).max() <= slack:
        qform = qform.copy()
        qform[:3, :3] = axes * steps[1]
    return distance(sform, qform, shape) <= SHIFT * np.min(steps)


def _told(affine: np.ndarray | None) -> str:
    """A grid in words."""
    import nibabel

    if affine is None:
        return "makes no grid"
    axes = "".join(nibabel.aff2axcodes(affine))
    origin = ", ".join(f"{x:.4g}" for x in affine[:3, 3])
    return f"voxels of {in_mm(np.linalg.norm(affine[:3, :3], axis=0))} mm, axes {axes}, the first at ({origin}) mm"


def _without_codes(header: Any, unit: float, path: Path) -> np.ndarray:
    """Voxel sizes alone, centred; with the word that sides are not known."""
    if not all(0 < step < np.inf for step in header["pixdim"][1:4]):
        raise ValueError(f"{path}: its header says neither how the volume lies nor how large its voxels are")
    warnings.warn(
        f"{path}: the header does not say how the volume lies in the patient (qform and sform codes are 0); "
        "left and right may be exchanged",
        stacklevel=7,
    )
    return np.diag([unit, unit, unit, 1]) @ header.get_base_affine()


def _warn_of_shear(volume: Volume) -> None:
    steps = volume.affine[:3, :3] / volume.spacing
    cosine = np.abs(np.triu(steps.T @ steps, 1)).max()
    if cosine > np.sin(np.radians(1)):
        angle = 90 - np.degrees(np.arcsin(min(1.0, cosine)))
        warnings.warn(
            f"{volume.name}: its axes meet at {angle:.1f} degrees, not at right angles. Places and sizes are counted so, but "
            "what the model sees is sheared, and ITK's viewers refuse such a file",
            stacklevel=6,
        )


# --- reading -------------------------------------------------------------------------------------------


def read_nifti(path: Path, dtype: type | None, trust: Trust = "") -> Volume:
    """Read a NIfTI file or pair, or an Analyze pair; `dtype` None keeps the stored type unless the header asks for scaling.

    Raises as `textdiff.data.volumes.volume.read_image` does.
    """
    header, voxels = _opened(path)
    shape = volume_shape(header.get_data_shape(), path)
    if "sform_code" not in header.keys():
        return _read_analyze(path, header, voxels, shape, dtype)
    affine = _affine(header, shape, path, trust)
    fields = {name: np.array(header[name]) for name in GRID_FIELDS}
    fields |= {"pixdim": np.array(header["pixdim"][:4]), "xyzt_units": np.array(int(header["xyzt_units"]) & 7)}
    volume = Volume(_voxels(header, voxels, shape, dtype), affine, str(path), HeaderGrid(fields, affine))
    _warn_of_shear(volume)
    check_size(volume)
    return volume


def _voxels(header: Any, path: Path, shape: tuple[int, int, int], dtype: type | None) -> np.ndarray:
    """The array, scaled as the header says."""
    from nibabel.volumeutils import apply_read_scaling

    stored = header.get_data_dtype()
    if stored.kind not in "iuf":
        kind = header._data_type_codes.label[int(header["datatype"])]
        raise ValueError(f"{path}: voxels are {kind}, expected plain numbers (grey values or labels)")
    offset, size = int(header["vox_offset"]), prod(shape) * stored.itemsize
    kept = size if dtype is None or _packed(path) else 0  # else it stays on the disk
    need_bytes(kept + (prod(shape) * np.dtype(dtype).itemsize if dtype else 0), path, f"{in_mm(shape)} voxels")
    needed = offset + size
    content = read_bytes(path, needed)
    if len(content) != needed:
        fault = "truncated" if len(content) < needed else "damaged, or its header is that of another file"
        held = f"more than {needed}" if _packed(path) and len(content) > needed else len(content)
        raise ValueError(
            f"cannot read {path}: {fault}: it holds {held} bytes where its header asks for {needed} ({in_mm(shape)} voxels of "
            f"type {stored.name})"
        )
    array = np.ndarray(shape, stored, content, offset, order="F")
    slope, inter = header.get_slope_inter()
    if dtype is None:
        return array if slope is None else apply_read_scaling(array, np.float64(slope), np.float64(inter or 0))
    scaled: np.ndarray = np.empty(shape, dtype, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is said
        for z in range(shape[2]):  # slice by slice: scaling goes by way of float64
            plane = array[:, :, z]
            scaled[:, :, z] = (
                plane if slope is None else apply_read_scaling(plane, np.float64(slope), np.float64(inter or 0))
            )
    return scaled


def _read_analyze(path: Path, header: Any, voxels: Path, shape: tuple[int, int, int], dtype: type | None) -> Volume:
    """An Analyze pair lies as SPM takes it: by the .mat file beside it, else centred and with the left side guessed."""
    import nibabel

    if (mat := path.with_suffix(".mat")).is_file() and mat.stat().st_size > LONGEST_MAT:
        raise ValueError(
            f"{mat}: {mat.stat().st_size} bytes are more than the affine that lies beside an Analyze pair has"
        )
    try:
        with quiet():
            image: Any = nibabel.load(voxels)
    except Exception as error:  # whatever stands in a .mat file
        raise ValueError(f"cannot read {path}: its header, or the .mat file beside it, is damaged") from error
    affine = image.affine
    if not np.array_equal(affine, header.get_best_affine()):  # a .mat file
        return Volume(_voxels(header, voxels, shape, dtype), affine, str(path))
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not all(0 < step < np.inf for step in spacing):
        raise ValueError(f"{path}: its header does not say how large the voxels are")
    warnings.warn(
        f"{path}: an Analyze file does not say how the volume lies in the patient; left and right may be exchanged",
        stacklevel=6,
    )
    plain = {"pixdim": np.array([1, *spacing], np.float32), "qform_code": np.array(0), "sform_code": np.array(0)}
    fields = HeaderGrid(plain, affine) if np.array_equal(affine, header.get_base_affine()) else None
    return Volume(_voxels(header, voxels, shape, dtype), affine, str(path), fields)


@contextmanager
def quiet() -> Iterator[None]:
    """What nibabel, or a library under it, would write about a file's header stays unwritten."""
    logger = logging.getLogger("nibabel.global")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_mgh(path: Path, dtype: type | None) -> Volume:
    """Read FreeSurfer's .mgz or .mgh; `dtype` None keeps the stored type. Raises as `read_nifti` does."""
    import nibabel

    content = bytes(read_bytes(path, most_bytes()))
    need_bytes(len(content), path, "its content")
    try:
        with quiet():
            image = nibabel.MGHImage.from_bytes(content)
            array, affine = np.asanyarray(image.dataobj), image.affine
    except Exception as error:  # nibabel meets damage with errors of many kinds
        raise ValueError(f"cannot read {path}: not FreeSurfer's format, truncated, or damaged") from error
    if content[28:30] == b"\0\0":  # goodRASFlag, which nibabel mends
        raise ValueError(f"{path}: its header says neither how the volume lies nor how large its voxels are")
    array = array.reshape(volume_shape(array.shape, path))
    volume = Volume(array if dtype is None else array.astype(dtype), affine, str(path))
    check_size(volume)
    return volume


def nifti_place(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a NIfTI file, in its own order, from its header alone. Errors name the file."""
    header, _ = _opened(path)
    shape = volume_shape(header.get_data_shape(), path)
    return shape, _affine(header, shape, path, "")


# --- writing -------------------------------------------------------------------------------------------


def write_nifti(path: Path, volume: Volume) -> None:
    """Write the array as it is to .nii.gz or .nii, whole or not at all, with the header's own words on the grid if it has any.

    Raises ValueError for another suffix.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ValueError(f"{path}: volumes are written as .nii.gz or .nii")
    image = _image(volume)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            if path.suffix.lower() != ".gz":
                image.to_stream(file)
                return
            # Fractions hardly shrink, however long one tries. No time and no name inside: same voxels, same bytes
            level = 1 if volume.array.dtype.kind == "f" else 6
            with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)

    write_atomically(path, write)


def _image(volume: Volume) -> Any:
    import nibabel

    said = volume.header
    if said is not None and np.array_equal(said.affine, volume.affine):
        precise = said.fields["pixdim"].dtype.itemsize == 8
        kind: Any = nibabel.Nifti2Image if precise else nibabel.Nifti1Image
        header = kind.header_class()
        header.set_data_dtype(volume.array.dtype)
        header.set_data_shape(volume.shape)
        for name, value in said.fields.items():
            header[name].flat[: value.size] = value
        return kind(volume.array, None, header)
    image = nibabel.Nifti1Image(volume.array, volume.affine)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    if not _agree(volume.affine, image.get_qform(), volume.shape, 0.001):  # sheared, which no quaternion can say
        image.set_qform(None, code=0)
        image.header["pixdim"][1:4] = volume.spacing
    image.header.set_xyzt_units("mm")
    return image
