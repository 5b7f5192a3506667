"""A file that could not be written is refused before the work; what is written is as private as what it was made of."""

from __future__ import annotations

import os
import re
import stat
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiff.base import outputs
from textdiff.base.files import write_atomically, write_text
from textdiff.base.outputs import as_private_as, check_output

LONGEST = 255  # bytes of a name on the file systems that people have


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in.nii.gz").write_text("image")
    Path("old.nii.gz").write_text("old")
    Path("symbolic.nii.gz").symlink_to("in.nii.gz")
    Path("hard.nii.gz").hardlink_to("in.nii.gz")
    Path("dangling.nii.gz").symlink_to("nowhere.nii.gz")
    Path("folder.nii.gz").mkdir()
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("nowhere/o.nii.gz", "no folder nowhere for --out"),
        ("in.nii.gz/o.nii.gz", "no folder in.nii.gz"),
        ("folder.nii.gz", "is a folder"),
        pytest.param(
            "in.nii.gz",
            "would replace in.nii.gz itself",
            marks=pytest.mark.takes("Output files", "a name that would replace the input", "refused"),
        ),
        ("./folder.nii.gz/../in.nii.gz", "would replace in.nii.gz itself"),
        ("symbolic.nii.gz", "would replace in.nii.gz itself"),
        ("hard.nii.gz", "would replace in.nii.gz itself"),
        pytest.param(
            "old.nii.gz",
            "replace it with --force",
            marks=pytest.mark.takes("Output files", "a file that exists, without --force", "refused"),
        ),
        ("dangling.nii.gz", "replace it with --force"),
        pytest.param(
            "a" * 300 + ".nii.gz",
            "too long",
            marks=pytest.mark.takes("Output files", "a name that is too long", "refused"),
        ),
        pytest.param(
            "/proc/o.nii.gz",
            "no file can be written to /proc",
            marks=pytest.mark.takes("Output files", "a folder that takes no files", "refused"),
        ),
    ],
)
def test_what_could_not_be_written_is_refused(folder, out, said):
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("this system has no /proc")
    before = files(folder)
    with pytest.raises((OSError, ValueError), match=re.escape(said)):
        check_output(Path(out), "--out", inputs=[Path("in.nii.gz")])
    assert files(folder) == before


def test_force_replaces_a_file_but_never_the_input(folder):
    check_output(Path("old.nii.gz"), "--out", inputs=[Path("in.nii.gz")], force=True)
    with pytest.raises(ValueError, match="itself"):
        check_output(Path("hard.nii.gz"), "--out", inputs=[Path("in.nii.gz")], force=True)


@pytest.mark.takes("Output files", "a disk without room", "refused")
def test_a_disk_without_room_is_said(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda place: usage(10, 8, 2_000_000))
    check_output(Path("o.nii.gz"), "--out", room=1_000_000)
    with pytest.raises(OSError, match=r"needs about 3.0 MB, and its disk has 2.0 MB left"):
        check_output(Path("o.nii.gz"), "--out", room=3_000_000)


@given(letter=st.sampled_from("aé肝"), left=st.integers(0, 3))
def test_every_name_that_the_system_takes_can_be_written(tmp_path_factory, letter, left):
    size = len(letter.encode())
    name = letter * ((LONGEST - 4 - left) // size) + ".png"
    out = tmp_path_factory.mktemp("long") / name
    check_output(out, "--out")
    write_text(out, "labels")
    assert out.read_text() == "labels" and [path.name for path in out.parent.iterdir()] == [name]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.takes("Output files", "a private image: its mask is as private", "taken")
@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX systems")
@given(umask=st.sampled_from((0o000, 0o022, 0o027, 0o077)), given=st.sampled_from((0o600, 0o640, 0o644, 0o444, 0o666)))
def test_a_file_is_as_open_as_the_umask_and_its_source_allow(tmp_path_factory, umask, given):
    folder = tmp_path_factory.mktemp("modes")
    source, slices = folder / "in.png", folder / "slices"
    slices.mkdir()
    for path in (source, slices / "1.dcm", slices / "2.dcm"):
        path.touch()
    os.chmod(source, given)
    os.chmod(slices / "2.dcm", given)
    before = os.umask(umask)
    try:
        write_text(folder / "plain.txt", "")
        for name, made_of in (("mask.png", source), ("mask.nii.gz", slices)):
            with as_private_as(made_of):
                write_atomically(folder / name, lambda temporary: temporary.write_text("labels"))
        assert os.umask(umask) == umask  # as it was
    finally:
        os.umask(before)
    assert mode(folder / "plain.txt") == 0o666 & ~umask
    assert mode(folder / "mask.png") == (given | 0o200) & 0o666 & ~umask, "its owner writes it"
    assert mode(folder / "mask.nii.gz") & ~((given | 0o200) & ~umask) == 0
