"""Freed memory is kept by the process that asks for it, once, and nothing breaks where the C library is another."""

from __future__ import annotations

import ctypes

from textdiff.base import allocator


class Library:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> int:
        self.asked.append((name, value))
        return 1


def test_the_c_library_is_asked_once(monkeypatch):
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    allocator.keep_freed_memory.cache_clear()
    assert allocator.keep_freed_memory() and allocator.keep_freed_memory()
    assert [name for name, _ in library.asked] == [allocator.MMAP_THRESHOLD, allocator.TRIM_THRESHOLD]
    allocator.keep_freed_memory.cache_clear()


def test_another_c_library_is_left_alone(monkeypatch):
    def missing(name: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    allocator.keep_freed_memory.cache_clear()
    assert not allocator.keep_freed_memory()
    allocator.keep_freed_memory.cache_clear()
