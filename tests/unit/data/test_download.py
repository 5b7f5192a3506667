"""Downloads from a local server that breaks off, refuses and remembers."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from local_server import Server

from textdiff.data import download as downloading
from textdiff.data.download import DiskFullError, FetchError, WrongContentError, digest, download

BODY = bytes(range(256)) * 400
GOOD = {
    "size": len(BODY),
    "git_blob": hashlib.sha1(b"blob 102400\0" + BODY).hexdigest(),
    "sha256": hashlib.sha256(BODY).hexdigest(),
    "md5": hashlib.md5(BODY).hexdigest(),
}


def test_git_blob_ids_are_gits(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert digest(tmp_path / "a", "git_blob") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_download_puts_the_whole_file_in_place(server, tmp_path):
    server.files["/a"] = BODY
    path = download(f"{server.url}/a", tmp_path / "deep" / "a", GOOD)
    assert path.read_bytes() == BODY and [p.name for p in path.parent.iterdir()] == ["a"]
    download(f"{server.url}/a", path, GOOD)
    assert len(server.asked) == 1  # a verified file is not asked for again


def test_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.files["/a"], server.cut = BODY, [1000, 2000]
    assert download(f"{server.url}/a", tmp_path / "a", GOOD).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-", "bytes=3000-"]


def test_a_later_call_goes_on_too_and_nothing_half_is_in_place(server, tmp_path):
    server.files["/a"], server.cut = BODY, [5000]
    with pytest.raises(FetchError, match=r"broke off after 5000 of 102400"):
        download(f"{server.url}/a", tmp_path / "a", GOOD, attempts=1)
    assert not (tmp_path / "a").exists() and (tmp_path / "a.part").stat().st_size == 5000
    download(f"{server.url}/a", tmp_path / "a", GOOD, attempts=1)
    assert server.asked[-1][1] == "bytes=5000-" and (tmp_path / "a").read_bytes() == BODY


def test_server_without_ranges_starts_over(tmp_path):
    server = Server(ranges=False)
    try:
        server.files["/a"], server.cut = BODY, [5000]
        assert download(f"{server.url}/a", tmp_path / "a", GOOD).read_bytes() == BODY
    finally:
        server.close()


def test_whole_part_from_a_killed_run_is_taken(server, tmp_path):
    server.files["/a"] = BODY
    (tmp_path / "a.part").write_bytes(BODY)
    assert download(f"{server.url}/a", tmp_path / "a", GOOD).read_bytes() == BODY


def test_foreign_beginning_is_thrown_away_and_fetched_anew(server, tmp_path):
    server.files["/a"] = BODY
    (tmp_path / "a.part").write_bytes(b"x" * 700)
    assert download(f"{server.url}/a", tmp_path / "a", GOOD).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == ["bytes=700-", None]


@pytest.mark.parametrize("kind", GOOD)
def test_wrong_content_names_address_path_and_hash_and_keeps_the_old(server, tmp_path, kind):
    server.files["/a"] = b"y" + BODY
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(WrongContentError) as error:
        download(f"{server.url}/a", tmp_path / "a", {kind: GOOD[kind]})
    for part in (f"{server.url}/a", str(tmp_path / "a"), f"expected {GOOD[kind]}"):
        assert part in str(error.value)
    assert (tmp_path / "a").read_bytes() == b"old" and not (tmp_path / "a.part").exists()


def test_a_check_refuses_the_whole_file_before_it_is_in_place(server, tmp_path):
    def refuse(path: Path) -> None:
        assert path.read_bytes() == BODY
        raise WrongContentError("not ours")

    server.files["/a"] = BODY
    with pytest.raises(WrongContentError, match="not ours"):
        download(f"{server.url}/a", tmp_path / "a", check=refuse)
    assert not list(tmp_path.iterdir())


def test_server_trouble_is_tried_again_but_not_a_missing_file(server, tmp_path):
    server.files["/a"], server.status = BODY, [503, 500]
    assert download(f"{server.url}/a", tmp_path / "a", GOOD).exists()
    server.asked.clear()
    with pytest.raises(FetchError, match=r"/b: HTTP 404"):
        download(f"{server.url}/b", tmp_path / "b")
    assert len(server.asked) == 1


def test_no_server_and_no_http(tmp_path):
    with pytest.raises(FetchError, match=r"cannot download http://127.0.0.1:1/x .*source"):
        download("http://127.0.0.1:1/x", tmp_path / "x", attempts=2)
    with pytest.raises(FetchError, match="only http"):
        download("file:///etc/hostname", tmp_path / "x")


def test_full_disk_is_said_and_what_came_is_kept(server, tmp_path, monkeypatch):
    server.files["/a"] = BODY

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading.os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"disk full while writing .*a\.part"):
        download(f"{server.url}/a", tmp_path / "a", GOOD)
    monkeypatch.undo()
    assert not (tmp_path / "a").exists() and (tmp_path / "a.part").exists()
    assert download(f"{server.url}/a", tmp_path / "a", GOOD).read_bytes() == BODY
