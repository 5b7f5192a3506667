"""What `textdiff example` does: the name of a model that ships in; its prediction on the example beside it, a picture and words out.

An example is `weights/<model>/example/`, made by `tools/make_examples.py`: a small picture or volume with its truth, and
`example.json`. Phantoms are not stored: they are drawn when asked for. What is predicted is what `textdiff predict` writes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from textdiff.base import paths
from textdiff.base.files import read_json
from textdiff.base.outputs import check_new_folder
from textdiff.data import registry
from textdiff.predicting import Pictures, Solids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT, OVERLAY = "example.json", "overlay.png"
TASKS = {task.kind: task for task in (Pictures, Solids)}


@dataclass(frozen=True)
class Example:
    """What `example.json` says.

    dataset, case: of which data set, and its name there. structures: the model's classes without the background. sentence,
    other_sentence: of the case, and one worth trying beside it. record, dice: the published record of the model, and the
    mean Dice of the case in it. differs: why another Dice is found here. source, licence, change: of the data, and what
    was done to the case. drawn: seed and number of a phantom; empty where image and truth are stored.
    """

    model: str
    dataset: str
    case: str
    structures: tuple[str, ...]
    sentence: str
    other_sentence: str
    rule: str
    record: str
    dice: float
    differs: str
    source: str
    licence: str
    change: str
    drawn: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """TextDiff or TextDiffSeg."""
        return registry.model(self.model).kind

    def names(self, *parts: str) -> list[str]:
        """File names of these parts, such as "image"."""
        return [part + TASKS[self.kind].suffix for part in parts]


def example_folder(model: str) -> Path:
    """Where the example of a model lies, if it has one."""
    return paths.shipped("weights") / model / "example"


def read_example(model: str) -> Example:
    """The example that comes with a model.

    Raises ValueError: no model of this name ships; FileNotFoundError: it has no example; both say which have one.
    """
    registry.model(model)
    file = example_folder(model) / ABOUT
    if not file.is_file():
        having = [name for name in registry.MODELS if (example_folder(name) / ABOUT).is_file()]
        raise FileNotFoundError(f"no example comes with {model}; one comes with {', '.join(having) or 'no model here'}")
    told = read_json(file)
    try:
        return Example(**told | {key: tuple(told[key]) for key in ("structures", "drawn") if key in told})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file} is not the example of this version: {error}; install the package again") from error


def show_example(model: str, out: Path, *, device: str = "auto", force: bool = False) -> None:
    """Predict the example of a model into the folder ``out``, draw it, and say what came out and how to do it by hand.

    Files: ``image``, ``truth`` and ``labels`` (.png, or .nii.gz of a volume), ``overlay.png``, ``example.json``. The folder
    appears when all are there; with ``force``, one that is there gets them, and its other files stay.

    Raises what :func:`read_example` raises; FileExistsError: the folder is there and not forced; OSError: it cannot be written.
    """
    example = read_example(model)
    check_new_folder(out, "--out", force=force)
    there = out.is_dir()
    with tempfile.TemporaryDirectory(prefix=".textdiff-", dir=out if there else out.parent) as place:
        work = Path(place) / "example"
        work.mkdir()
        image, truth, labels = (work / name for name in example.names("image", "truth", "labels"))
        _bring(example, image, truth)
        _predict(example, image, labels, device)
        shutil.copyfile(example_folder(model) / ABOUT, work / ABOUT)
        dice, figure = _compared(example, image, truth, labels)
        _save(figure, work / OVERLAY)
        if there:
            for file in sorted(work.iterdir()):
                os.replace(file, out / file.name)
        else:
            os.replace(work, out)
    typer.echo("\n".join(_said(example, out, dice)))


def _bring(example: Example, image: Path, truth: Path) -> None:
    """The case as files: copied, or drawn."""
    if not example.drawn:
        for file in (image, truth):
            shutil.copyfile(example_folder(example.model) / file.name, file)
        return
    seed, number = example.drawn
    if example.kind == "TextDiff":
        from PIL import Image

        from textdiff.data.images import phantoms
        from textdiff.data.images.masks import write_mask
        from textdiff.experiments.images import PHANTOM_SIDE

        film = getattr(phantoms, example.dataset)(1, seed, size=PHANTOM_SIDE, start=number)[0]
        Image.fromarray(film.image()).save(image)
        write_mask(film.mask(), truth)
        return
    from textdiff.data.volumes import phantoms as solids
    from textdiff.data.volumes.volume import write_image, write_labels

    numbers = registry.dataset(example.dataset).only(example.structures).labels
    drawn = getattr(solids, example.dataset)(1, seed, start=number)[0]
    grey, marked = replace(drawn, values=numbers).pair()
    write_image(image, grey)
    write_labels(truth, marked)


def _predict(example: Example, image: Path, labels: Path, device: str) -> None:
    from textdiff.predicting import Pictures, Solids, predict_one

    # What progress would say is of a file that is not yet at its place
    quiet = Solids(example.model, device, options={"progress": False})
    task = Pictures(example.model, device) if example.kind == "TextDiff" else quiet
    predict_one(task, image, example.sentence, labels)


def _compared(example: Example, image: Path, truth: Path, labels: Path) -> tuple[dict[str, float], Figure]:
    """Dice of every structure, and the figure of outlines."""
    from textdiff.figures import style

    style.style()
    if example.kind == "TextDiff":
        from textdiff.data.cases import read_picture
        from textdiff.data.images.masks import read_mask
        from textdiff.figures.images import qualitative_grid

        found, true = read_mask(labels), read_mask(truth)
        dice = _dice(example, found, true)
        figure = qualitative_grid([("", read_picture(image, "RGB"), true, {"prediction": found})])
        figure.set_size_inches(9, 3.9)  # one row has room
        figure.suptitle(style.wrapped(example.sentence, 96), fontsize="medium")
        what = " and ".join(example.structures)
        alt = f"A picture, the outline of {what} in it, and the model's outline over that. Sentence: {example.sentence} Dice {100 * _mean(dice):.1f}."
        return dice, style.described(figure, alt)
    from textdiff.data.volumes.volume import read_image, read_labels
    from textdiff.figures.volumes import slices

    marked, known = read_labels(labels), read_labels(truth)
    dice = _dice(example, marked.array, known.array)
    title = f"{example.sentence}: Dice {100 * _mean(dice):.1f}"
    about: dict[str, Any] = {"class_names": ("background", *example.structures), "title": title}
    about["window"] = registry.dataset(example.dataset).window
    return dice, slices(read_image(image), marked, known, **about)


def _dice(example: Example, found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    from textdiff.evaluation.metrics import case_scores

    return {
        name: float(case_scores(found == label, true == label)["dice"])
        for label, name in enumerate(example.structures, start=1)
    }


def _mean(dice: dict[str, float]) -> float:
    return sum(dice.values()) / len(dice)


def _save(figure: Figure, file: Path) -> None:
    """The figure with its alt text inside, and without the writing library's name: the same figure gives the same bytes."""
    from textdiff.figures.style import description

    words: dict[str, Any] = {"Software": None, "Description": description(figure)["alt"]}
    figure.savefig(file, dpi=150, bbox_inches="tight", metadata=words)


def _said(example: Example, out: Path, dice: dict[str, float]) -> list[str]:
    """What is printed, line by line."""
    each = f" ({', '.join(f'{name} {value:.3f}' for name, value in dice.items())})" if len(dice) > 1 else ""
    (image,) = example.names("image")
    again = f"textdiff predict --model {example.model} {TASKS[example.kind].option} {shlex.quote(str(out / image))}"
    by_hand, other = (shlex.quote(str(out / name)) for name in example.names("by_hand", "other"))
    return [
        f"{example.case} of {registry.dataset(example.dataset).title}",
        f"  chosen:   {example.rule}",
        f"  changed:  {example.change}",
        f"  source:   {example.source}",
        f"  licence:  {example.licence}",
        f'sentence:   "{example.sentence}"',
        f"Dice:       {_mean(dice):.3f}{each}; in the record {example.dice:.3f} ({example.differs})",
        f"picture:    {out / OVERLAY}",
        f"files:      {', '.join(example.names('image', 'truth', 'labels'))} in {out}",
        "",
        "The same by hand, and with another sentence:",
        f'  {again} --text "{example.sentence}" --out {by_hand}',
        f'  {again} --text "{example.other_sentence}" --out {other}',
    ]
