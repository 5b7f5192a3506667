from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.entries import DatasetEntry
from textdiff.data.registry import DATASETS
from textdiff.data.splits import SPLITS, hashed_split
from textdiff.data.volumes import layouts
from textdiff.data.volumes.cases import VolumeCase

case_names = st.lists(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), min_size=1, unique=True)


def split_of(entry: DatasetEntry, names: list[str], folder) -> dict[str, str]:
    cases = [VolumeCase(name, image_path=folder / name) for name in names]
    data = layouts.divided(cases, folder, entry, [])
    return {case.name: split for split in SPLITS for case in getattr(data, split)}


@settings(max_examples=60)
@given(names=case_names, data=st.data())
def test_a_case_that_comes_or_goes_moves_no_other(tmp_path_factory, names, data):
    folder = tmp_path_factory.getbasetemp()
    shipped = data.draw(
        st.lists(st.sampled_from(["hippocampus_001", "hippocampus_020", "hippocampus_014"]), unique=True)
    )
    for entry in (DATASETS["hippocampus"], DATASETS["amos"]):
        whole = split_of(entry, names + shipped, folder)
        some = data.draw(st.lists(st.sampled_from(names + shipped), unique=True))
        assert split_of(entry, some, folder) == {name: whole[name] for name in some}


def test_about_70_15_15_percent_are_for_training_validation_and_test():
    drawn = [hashed_split(f"case_{number}") for number in range(4000)]
    shares = [drawn.count(split) / 4000 for split in SPLITS]
    assert all(abs(share - wanted) < 0.02 for share, wanted in zip(shares, (0.7, 0.15, 0.15), strict=True))
