import ctypes
import sys

import numpy as np
import pytest

from pixelcontrast.core import process_memory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="counted by the Linux kernel")
class TestOnLinux:
    def test_growth_is_that_of_what_was_touched_in_between(self):
        def work():
            np.ones(64 * MIB, dtype=np.uint8).sum()

        assert 60 < process_memory.peak_growth(work) < 80
        assert process_memory.peak_growth(lambda: None) < 4  # the earlier peak does not count

    def test_memory_the_c_library_kept_for_reuse_counts(self):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, largest_default = -3, 32 * MIB
        mallopt(mmap_threshold, 512 * MIB)  # large blocks come from the heap, which keeps them
        try:
            hole = np.ones(100 * MIB, dtype=np.uint8)
            above = [np.ones(4096, dtype=np.uint8) for _ in range(100)]  # noqa: F841 keeps the hole
            del hole
            grown = process_memory.peak_growth(lambda: np.ones(64 * MIB, dtype=np.uint8).sum())
        finally:
            mallopt(mmap_threshold, largest_default)
        assert 60 < grown < 80

    def test_what_is_kept_is_resident(self):
        before = process_memory.reset_peak()
        kept = np.ones(64 * MIB, dtype=np.uint8)
        assert process_memory.resident() - before > 60 * MIB
        assert process_memory.peak() >= before + kept.nbytes // 2


def test_elsewhere_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(process_memory, "_RESET", tmp_path / "no folder" / "none")
    assert process_memory.resident() is None
    assert process_memory.peak() is None
    assert process_memory.reset_peak() is None
    with pytest.raises(OSError, match="not known"):
        process_memory.peak_growth(lambda: None)
