"""Archives made to write elsewhere, to be read as what they are not, or to fill the disk: refused, or what is bad stays inside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from textdiff.data.archives import MOST_MEMBERS, own_file, plain_name, unpack
from textdiff.data.download import FetchError

GOOD = {"Task/dataset.json": b"{}", "Task/imagesTr/a.nii.gz": b"image", "Task/labelsTr/a.nii.gz": b"label"}
WANTED = (".nii.gz", ".json")
MOST = 1 << 20
PACKINGS = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
EVIL = b"evil"


def in_zip(files, **options) -> bytes:
    with (file := io.BytesIO()), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as packed:
        for name, content in files:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo("x")
            if isinstance(name, str):
                info.filename = name  # as it is, whatever the constructor would make of it
            packed.writestr(info, content, zipfile.ZIP_DEFLATED)
        packed.close()
        return file.getvalue()


def in_tar(files, form=tarfile.PAX_FORMAT) -> bytes:
    with (file := io.BytesIO()), tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.close()
        return file.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_of(name: str, form: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (form | 0o644) << 16
    return info


# Names that lead elsewhere, or that some system takes for something else, all with a wanted suffix: refused
LEADING = {
    "up": "../evil.json",
    "up twice": "Task/../../evil.json",
    "up from deep": "Task/imagesTr/../../../evil.json",
    "up with dots": "./.././evil.json",
    "absolute": "/tmp/evil.json",
    "absolute twice": "//tmp/evil.json",
    "drive": "C:/evil.json",
    "drive without root": "C:evil.json",
    "backslashes": "Task\\..\\evil.json",
    "share": "\\\\server\\share\\evil.json",
    "stream": "Task/evil.json:stream.json",
    "line": "Task/evil\n.json",
    "return": "Task/evil\r.json",
    "bell": "Task/\x07evil.json",
    "terminal": "Task/\x1b[2Jevil.json",
    "turned round": "Task/\u202enosj.json",
    "invisible": "Task/ev\u200bil.json",
    "space before": "Task/ evil.json",
    "space after a folder": "Task /evil.json",
    "long name": "Task/" + "n" * 300 + ".json",
    "deep": "d/" * 100 + "evil.json",
    "star": "Task/*.json",
    "quote": 'Task/"evil".json',
    "pipe": "Task/|evil.json",
    "percent nothing": "Task/?.json",
}
# Names that are not wanted: they stay in the archive, and the rest is unpacked
STAYING = {
    "python": "Task/sitecustomize.py",
    "python elsewhere": "../../sitecustomize.py",
    "path file": "Task/evil.pth",
    "shell": "Task/run.sh",
    "library": "Task/evil.so",
    "hidden": "Task/.bashrc.json",
    "hidden folder": "Task/.git/config.json",
    "of macOS": "__MACOSX/Task/imagesTr/a.nii.gz",
    "of macOS too": "Task/imagesTr/._a.nii.gz",
    "pickle": "Task/evil.pkl",
    "backslashes": "..\\evil.json",
    "two suffixes": "Task/evil.json.py",
}


def link_cases():
    for what, kind, link in (
        ("symbolic link out", tarfile.SYMTYPE, "../../../../etc/hostname"),
        ("absolute symbolic link", tarfile.SYMTYPE, "/etc/hostname"),
        ("symbolic link inside", tarfile.SYMTYPE, "a.nii.gz"),
        ("hard link out", tarfile.LNKTYPE, "../../etc/hostname"),
        ("hard link inside", tarfile.LNKTYPE, "Task/imagesTr/a.nii.gz"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("character device", tarfile.CHRTYPE, ""),
        ("block device", tarfile.BLKTYPE, ""),
        ("sparse file", tarfile.GNUTYPE_SPARSE, ""),
        ("unknown type", b"Z", ""),
    ):
        for packing in ("tar", "tar.gz"):
            pack = PACKINGS[packing]
            yield (
                f"{what}, {packing}",
                pack(in_tar([*GOOD.items(), (special("Task/imagesTr/b.nii.gz", kind, link), b"")])),
            )
    for form in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        name = zip_of("Task/imagesTr/b.nii.gz", form)
        yield f"form {form:o}, zip", in_zip([*GOOD.items(), (name, b"/etc/hostname")])


def named(names):
    for what, name in names.items():
        yield f"{what}, zip", in_zip([*GOOD.items(), (name, EVIL)])
        for packing in ("tar", "tar.gz"):
            yield f"{what}, {packing}", PACKINGS[packing](in_tar([*GOOD.items(), (name, EVIL)]))
        if "\x1b" not in name and len(name) < 90:
            yield f"{what}, old tar", in_tar([*GOOD.items(), (name, EVIL)], tarfile.GNU_FORMAT)


def bombs():
    zeros = bytes(4 << 20)
    for packing, pack in PACKINGS.items():
        yield f"one large member, {packing}", pack(in_tar([("big.json", zeros)]))
        yield f"a large member that stays, {packing}", pack(in_tar([*GOOD.items(), ("big.py", zeros)]))
        yield f"many members, {packing}", pack(in_tar([(f"{k}.json", bytes(1 << 16)) for k in range(40)]))
    yield "one large member, zip", in_zip([("big.json", zeros)])
    yield "many members, zip", in_zip([(f"{k}.json", bytes(1 << 16)) for k in range(40)])
    head = special("x", tarfile.XHDTYPE)
    head.size = 3 << 30
    yield "a header of gigabytes, tar.gz", gzip.compress(head.tobuf() + zeros)
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        head = special("x", kind)
        head.size = 1 << 20
        yield f"a long header of type {kind!r}", gzip.compress(in_tar(GOOD.items())[:-10240] + head.tobuf() + zeros)
    one = special("x", tarfile.GNUTYPE_LONGNAME)
    one.size = 5
    yield "headers of headers", (one.tobuf() + b"name\0".ljust(512, b"\0")) * 3000
    yield "negative size", in_tar([(negative("Task/b.json"), b"")])
    lying = bytearray(in_zip([("big.json", zeros)]))
    place = lying.rindex(b"PK\1\2")
    lying[place + 24 : place + 28] = (1000).to_bytes(4, "little")
    yield "a zip that announces little", bytes(lying)
    lying[place + 24 : place + 28] = (900_000).to_bytes(4, "little")
    yield "a zip that announces less than there is", bytes(lying)


def negative(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.pax_headers = {"size": "-512"}
    return info


def damages():
    whole = in_tar(GOOD.items())
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        heads = [info.offset for info in tar][1:] + [tar.offset]
    for place in heads:
        for packing in ("tar", "tar.gz"):
            yield f"cut at the header at {place}, {packing}", PACKINGS[packing](whole[:place])
        yield f"cut in the header at {place}", whole[: place + 100]
        yield f"cut before {place}", whole[: place - 100]
        yield f"a flipped bit in the header at {place}", whole[: place + 3] + b"\xff" + whole[place + 4 :]
    packed = in_zip([(name, content * 50) for name, content in GOOD.items()])
    yield "zip: a flipped bit in content", packed[:48] + bytes([packed[48] ^ 1]) + packed[49:]
    yield "zip: cut", packed[:-40]
    yield "zip: entries over each other", overlapping(packed)
    yield "gzip: cut", gzip.compress(whole)[:-30]
    yield "two different files of one name, tar", in_tar([*GOOD.items(), ("Task/dataset.json", b"other")])
    yield "two different files but for case, tar", in_tar([*GOOD.items(), ("task/DATASET.json", b"other")])
    yield "two different files but for case, zip", in_zip([*GOOD.items(), ("Task/imagesTR/A.nii.gz", b"other")])
    yield "two different files but for Unicode's form", in_zip([("\u00e4.json", b"1"), ("a\u0308.json", b"2")])
    yield (
        "a file in a folder's place",
        in_tar([("Task/imagesTr/b.nii.gz", b"1"), ("Task/imagesTr/b.nii.gz/c.json", b"2")]),
    )
    yield "secret", encrypted(packed)
    yield "another way of packing", packed.replace(b"\x08\x00" + packed[10:12], b"\x63\x00" + packed[10:12])
    yield "text", b"no archive"
    yield "nothing", b""
    yield "only a tail", packed[-22:]


def encrypted(packed: bytes) -> bytes:
    """The same zip whose first entry says that it is encrypted."""
    first, central = packed.index(b"PK\3\4"), packed.index(b"PK\1\2")
    changed = bytearray(packed)
    changed[first + 6] |= 1
    changed[central + 8] |= 1
    return bytes(changed)


def overlapping(packed: bytes) -> bytes:
    """The same zip whose last entry begins where the first does."""
    changed = bytearray(packed)
    place = packed.rindex(b"PK\1\2")
    changed[place + 42 : place + 46] = bytes(4)
    return bytes(changed)


REFUSED = dict(item for kind in (named(LEADING), link_cases(), bombs(), damages()) for item in kind)
LEFT = dict(named(STAYING))


@pytest.fixture
def place(tmp_path):
    """Where to unpack, deep enough for a path that leads up to be seen."""
    return tmp_path / "a" / "b" / "c" / "stage"


def below(folder: Path) -> dict[str, bytes]:
    """Every file below, none of them a link or a device."""
    found = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    assert all(stat.S_ISREG(path.lstat().st_mode) and not path.lstat().st_mode & 0o111 for path in found)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def packed_at(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "packed").write_bytes(content)
    return tmp_path / "packed"


def test_there_are_many_archives():
    assert len(REFUSED) + len(LEFT) >= 112


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_written_elsewhere(tmp_path, place, name):
    with pytest.raises(FetchError, match="packed") as error:
        unpack(packed_at(tmp_path, REFUSED[name]), place, WANTED, MOST)
    assert str(error.value).isprintable() and len(str(error.value)) < 1500
    inside = below(place)
    assert sum(map(len, inside.values())) <= MOST
    assert {path for path in below(tmp_path) if "/stage/" not in path} == {"packed"}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_wanted_stays_in_the_archive(tmp_path, place, name):
    unpack(packed_at(tmp_path, LEFT[name]), place, WANTED, MOST)
    assert below(place) == GOOD
    assert len(below(tmp_path)) == len(GOOD) + 1


@pytest.mark.parametrize("packing", [*PACKINGS, "zip"])
def test_what_is_good_is_unpacked(tmp_path, place, packing):
    names = ["./Task/sub folder/x y.json", "Task/\u00fc.JSON", "Task/a..b.json"]
    files = [*GOOD.items(), *((name, b"1") for name in names)]
    content = in_zip(files) if packing == "zip" else PACKINGS[packing](in_tar(files))
    unpack(packed_at(tmp_path, content), place, WANTED, MOST)
    assert len(below(place)) == 6 and below(place)["Task/sub folder/x y.json"] == b"1"


def test_twins_with_the_same_bytes_are_one_file(tmp_path, place):
    unpack(packed_at(tmp_path, in_zip([("a/sub-S1.json", b"1"), ("a/sub-s1.json", b"1")])), place, WANTED, MOST)
    assert below(place) == {"a/sub-S1.json": b"1"}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path, place):
    inner = in_zip([("inner.json", b"1")])
    unpack(packed_at(tmp_path, in_tar([("table.json", inner)])), place, WANTED, MOST)
    assert below(place) == {"table.json": inner}


@pytest.mark.parametrize("packing", ["zip", "tar"])
def test_more_members_than_any_data_set_has_are_refused(tmp_path, place, packing, monkeypatch):
    monkeypatch.setattr("textdiff.data.archives.MOST_MEMBERS", 50)
    files = [(f"{k}.txt", b"") for k in range(60)]
    content = in_zip(files) if packing == "zip" else in_tar(files)
    with pytest.raises(FetchError, match="at member 51"):
        unpack(packed_at(tmp_path, content), place, WANTED, MOST)
    assert MOST_MEMBERS < 1_000_000


def test_the_list_of_a_zip_is_counted_before_it_is_read(tmp_path, place, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.00001")
    with pytest.raises(FetchError, match="the list of its members would take"):
        unpack(packed_at(tmp_path, in_zip([(f"{k}.txt", b"") for k in range(60)])), place, WANTED, MOST)


@pytest.mark.parametrize("packing", ["zip", "tar", "tar.gz"])
def test_any_damage_is_an_error_or_changes_nothing_outside(tmp_path, place, packing):
    """Bytes changed, cut out and put in at random; the seed is the packing's name."""
    draw = random.Random(packing)
    whole = in_zip(GOOD.items()) if packing == "zip" else PACKINGS[packing](in_tar(GOOD.items()))
    for number in range(150):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(min(len(content), 4000))
            content[at : at + draw.choice([0, 1, 1, 8])] = draw.randbytes(draw.choice([0, 1, 1, 8]))
        stage = place / str(number)
        try:
            unpack(packed_at(tmp_path, bytes(content)), stage, WANTED, MOST)
        except FetchError:
            pass
        assert sum(map(len, below(stage).values())) <= MOST
    assert {path for path in below(tmp_path) if "/stage/" not in path} == {"packed"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b.png", "/a.png", "a.py", "a.png\0", 5, None, ["a.png"], "\ud800.png"]
)
def test_a_name_from_outside_is_a_name(name):
    with pytest.raises(FetchError, match="table: .*is not the plain name of a file that ends in .png"):
        plain_name(name, (".png",), "table")


def test_links_are_followed_inside_only(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(b"1")
    (tmp_path / "private.png").write_bytes(b"2")
    (root / "sub" / "inside.png").symlink_to(root / "a.png")
    (root / "sub" / "outside.png").symlink_to("../../private.png")
    (root / "nothing.png").symlink_to("absent")
    assert own_file(root / "sub" / "inside.png", root)
    (tmp_path / "other").symlink_to(root)
    assert own_file(tmp_path / "other" / "a.png", tmp_path / "other")
    with pytest.raises(FetchError, match="outside.png is a link that leads out"):
        own_file(root / "sub" / "outside.png", root)
    with pytest.raises(FetchError, match="nothing.png is no regular file"):
        own_file(root / "nothing.png", root)
