"""The examples beside the shipped models: models, their records and the real data come in, weights/<model>/example/ goes out.

    python tools/make_examples.py       # needs QaTa-COV19, MoNuSeg and the MSD's hippocampi (book/data.md), and half a minute

Also the book's pictures of them, as the command writes them. Nobody chooses a case: it is the middle one by Dice in the model's record.
Run it again when a model is replaced: a test compares what lies there with the records, and with the data where they are.
"""

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from textdiff.data import load_dataset, registry
from textdiff.data.images.captions import swap_left_right
from textdiff.data.images.masks import write_mask
from textdiff.data.volumes.layouts import load_volumes
from textdiff.data.volumes.prompts import prompt
from textdiff.data.volumes.volume import write_image, write_labels
from textdiff.examples import ABOUT, OVERLAY, Example, example_folder, show_example
from textdiff.figures.volumes import cut_out
from textdiff.report import explore

STATIC = Path(__file__).resolve().parents[1] / "book/_static"
IN_THE_BOOK = ("qata_small", "hippocampus_small")
TISSUE = 256  # pixels: nuclei are lost in fewer
FEWER_STEPS = "predict draws in 2 steps, the record in 5"


def film(folder: Path) -> dict[str, Any]:
    """The film of the example of qata_small as a thumbnail; what is to be told of it."""
    case = explore.median_of("qata_small", load_dataset("qata").test)
    explore.small_film(case).save(folder / "image.png", optimize=True)
    write_mask((explore.soft_mask(case.mask()) >= 0).astype(np.uint8), folder / "truth.png")
    side = explore.SIDE
    return {
        "sentence": case.caption,
        "other_sentence": swap_left_right(case.caption),
        "change": f"made grey and brought to {side} x {side} pixels",
        "differs": "of the whole film at 256 pixels; this is a thumbnail",
    }


def tissue(folder: Path) -> dict[str, Any]:
    """The slide of the example of monuseg_small at the pixels that the model sees; what is to be told of it."""
    case = explore.median_of("monuseg_small", load_dataset("monuseg").test)
    picture = Image.fromarray(case.image()).resize((TISSUE, TISSUE), Image.Resampling.BOX)
    picture.save(folder / "image.png", optimize=True)
    write_mask((explore.soft_mask(case.mask(), TISSUE) >= 0).astype(np.uint8), folder / "truth.png")
    return {
        "sentence": case.caption,
        "other_sentence": "The nuclei density in the lower left is high.",
        "change": f"brought to {TISSUE} x {TISSUE} pixels",
        "differs": "of the whole image; this is a thumbnail",
    }


def solid(folder: Path) -> dict[str, Any]:
    """The volume of the example of hippocampus_small, cut and in 8 bits; what is to be told of it."""
    data = load_volumes("hippocampus")
    image, truth = explore.median_of("hippocampus_small", data.test).pair()
    box = explore.box_around(truth.array)
    low, high = float(image.array.min()), np.percentile(image.array, 99.9)
    grey = np.clip((image.array - low) / (high - low), 0, 1) * 255
    write_image(folder / "image.nii.gz", cut_out(replace(image, array=grey.round().astype(np.uint8)), box))
    write_labels(folder / "truth.nii.gz", cut_out(truth, box))
    return {
        **_asked(data.class_names),
        "change": f"cut to {explore.MARGIN} voxels around what is marked, grey values brought to 8 bits",
        "differs": f"of the whole volume; this one is cut, and {FEWER_STEPS}",
    }


def drawn_film(case: str) -> dict[str, Any]:
    """What is to be told of a phantom of a film."""
    seed, number = _numbers(case)
    sentence = str(explore.record_table("chest_phantoms_small").set_index("case").loc[case, "caption"])
    return {
        "sentence": sentence,
        "other_sentence": swap_left_right(sentence),
        "drawn": (seed, number),
        "change": "nothing: it is drawn anew each time",
        "differs": "at the model's 64 pixels; here at the film's own size",
    }


def drawn_solid(case: str) -> dict[str, Any]:
    """What is to be told of a phantom of a volume."""
    structures = ("liver", "left kidney", "right kidney")
    told = {"drawn": _numbers(case), "change": "nothing: it is drawn anew each time", "differs": FEWER_STEPS}
    return _asked(("background", *structures)) | told


def _asked(class_names: tuple[str, ...]) -> dict[str, Any]:
    structures = class_names[1:]
    return {
        "structures": structures,
        "sentence": prompt("class", list(structures)),
        "other_sentence": prompt("class", list(structures[-1:])),
    }


def _numbers(case: str) -> tuple[int, int]:
    """Seed and number in the name of a phantom."""
    found = re.fullmatch(r"\w+-(\d+)-(\d+)", case)
    assert found, case
    return int(found[1]), int(found[2])


def example(model: str, folder: Path) -> Example:
    """Make the example of a model: its files go into ``folder``."""
    dataset, case = registry.dataset(registry.model(model).dataset), explore.median_case(model)
    table = explore.record_table(model).set_index("case")
    own = {"qata_small": film, "monuseg_small": tissue, "hippocampus_small": solid}.get(model)
    drawn = {"chest_phantoms_small": drawn_film, "abdomen_small": drawn_solid}
    told: dict[str, Any] = {
        "model": model,
        "dataset": dataset.name,
        "case": case,
        "structures": dataset.class_names[1:],
        "rule": f"the middle one of {len(table)} test cases by Dice in the record",
        "record": explore.RECORDS[model],
        "dice": round(float(table.loc[case, "dice"]), 4),
        "source": f"{dataset.home or 'this package'}; {dataset.citation}" if dataset.citation else "this package",
        "licence": dataset.licence,
    }
    return Example(**told | (own(folder) if own else drawn[model](case)))


def main() -> None:
    """Make all anew, each beside the old one before it takes its place."""
    for model in registry.MODELS:
        target = example_folder(model)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as place:
            folder = Path(place) / "example"
            folder.mkdir()
            told = {key: value for key, value in asdict(example(model, folder)).items() if value != ()}
            (folder / ABOUT).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(folder, target)
        for file in sorted(target.iterdir()):
            print(f"{model}/{file.name}: {file.stat().st_size / 1000:.1f} kB")
    for model in IN_THE_BOOK:
        with tempfile.TemporaryDirectory() as place:
            show_example(model, Path(place) / "example", device="cpu")
            picture = Image.open(Path(place) / "example" / OVERLAY)
            picture.load()
            shutil.copyfile(Path(place) / "example" / OVERLAY, STATIC / f"example_{model}.png")
            print(f"book/_static/example_{model}.png: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
