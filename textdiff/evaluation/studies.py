"""What is asked of one trained TextDiffSeg. In: the model and labelled volumes. Out: tables, one row per volume and question.

Three questions: how it is sampled (notebook 25), which sentence it is given (notebook 26), and where it looks at the words.
Nothing is trained here, and nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.patches import place_channels
from textdiff.data.volumes.prompts import KINDS, named_structures, prompt, prompts_for, swap_structures
from textdiff.data.volumes.requests import read_request
from textdiff.data.volumes.volume import Volume, widest_planes
from textdiff.evaluation.calibration import Reliability
from textdiff.evaluation.volumes import Segment, column, score_volumes
from textdiff.models.diffusion import Sampler, Sampling
from textdiff.models.inference import Prediction, segment_volume
from textdiff.models.textdiffseg import TextDiffSeg

LONG = 100  # sampling steps; more are measured on fewer volumes
SAMPLED = ("case", "dice", "seconds", "uncertainty", "ece", "error_auroc", "error_auprc", "error_share")
ALL = "all"  # what is asked for where a sentence names every structure

Way = tuple[Sampler, int, int]  # sampler, sampling steps, samples
Labels = Callable[[Volume, str], Volume]  # what a sentence asks for, marked
Look = tuple[np.ndarray, np.ndarray, str, list[str], np.ndarray]


def sampling_study(
    model: TextDiffSeg, cases: Sequence[VolumeCase], ways: Iterable[Way], max_long: int, seed: int = 0
) -> tuple[pd.DataFrame, dict[Way, pd.DataFrame]]:
    """Every case segmented in every way, all structures asked for at once.

    Ways with more than `LONG` steps see the first `max_long` cases only. Returns a table with one row per case and way (the
    columns of `SAMPLED`, `sampler`, `sampling_steps`, `samples`), and for every way the table of `calibration.Reliability`.
    """
    tables, reliability = [], {}
    for way in dict.fromkeys(ways):
        sampler, steps, samples = way
        some, gathered = cases[: max_long if steps > LONG else None], Reliability()
        segment = partial(_segment, model, way, seed, uncertainty=True, probabilities=True)
        prompts = prompts_for(some, model.class_names)
        table = _scored(segment, model, some, prompts=prompts, reliability=gathered)
        tables.append(table[list(SAMPLED)].assign(sampler=sampler, sampling_steps=steps, samples=samples))
        reliability[way] = gathered.table()
    return pd.concat(tables, ignore_index=True), reliability


def prompt_study(
    model: TextDiffSeg,
    cases: Sequence[VolumeCase],
    kinds: Sequence[str] = KINDS,
    sampling_steps: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Every case asked for all structures at once and for each alone, in every kind of sentence.

    "report" sentences are made from the true labels and leak them. Returns one row per case, kind, question and structure:
    `case`, `prompt`, `kind`, `asked` (a structure, or `ALL`), `structure` (the scored one), `dice` (0..1), `actual_ml`, `predicted_ml`.
    """
    names, parts = list(model.class_names[1:]), []
    segment = partial(_segment, model, ("ddim", sampling_steps, 1), seed)
    questions = {ALL: names} | ({name: [name] for name in names} if len(names) > 1 else {})
    for kind in kinds:
        for asked, named in questions.items():
            table = _scored(segment, model, cases, prompts=prompts_for(cases, model.class_names, kind, named))
            for name in names:
                scores = {score: table[f"{score}_{column(name)}"] for score in ("dice", "actual_ml", "predicted_ml")}
                parts.append(table[["case", "prompt"]].assign(kind=kind, asked=asked, structure=name, **scores))
    return pd.concat(parts, ignore_index=True)


def _segment(model: TextDiffSeg, way: Way, seed: int, image: Volume, text: str, **more: bool) -> Volume | Prediction:
    """The labels, or with `more` asked for (uncertainty, probabilities) all of the prediction."""
    sampler, sampling_steps, samples = way
    sampling = Sampling(sampling_steps, sampler, samples, seed)
    found = segment_volume(model, image, text, sampling, progress=False, **more)
    return found if more else found.labels


def _scored(segment: Segment, model: TextDiffSeg, cases: Sequence[VolumeCase], **more: Any) -> pd.DataFrame:
    return score_volumes(segment, cases, class_names=model.class_names, surfaces=False, progress=False, **more)


def by_question(answers: pd.DataFrame, statistic: str = "mean") -> dict[str, pd.DataFrame]:
    """`prompt_study` by kind of sentence: Dice (0..1) by what was asked for (rows) and the structure (columns), over volumes.

    Volumes that lack a structure are left out of its column: an empty mask there is no sign of reading. `statistic`: "mean" or "std".
    """
    names = list(dict.fromkeys(answers["structure"]))
    present = answers[answers["actual_ml"] > 0]
    tables = {}
    for kind, rows in present.groupby("kind", sort=False):
        dice = rows.groupby(["asked", "structure"], sort=False)["dice"].agg(statistic).unstack()
        asked = list(dict.fromkeys(answers["asked"]))
        tables[kind] = dice.reindex(index=asked, columns=names).rename_axis(index="asked for", columns="structure")
    return tables


def prompt_metrics(answers: pd.DataFrame) -> dict[str, float]:
    """The means of `by_question` as flat metrics of a record: "<kind>/dice_<structure>_asked_for_<question>", and `test/n`."""
    return {"test/n": answers["case"].nunique()} | {
        f"{kind}/dice_{column(name)}_asked_for_{column(asked)}": float(dice)
        for kind, table in by_question(answers).items()
        for (asked, name), dice in table.stack().items()
    }


def answers_to(
    segment: Labels, image: Volume, truth: Volume, texts: Sequence[str], class_names: Sequence[str]
) -> pd.DataFrame:
    """What is marked in one volume under sentences of any kind: one row per sentence, and a last one with the truth.

    `sentence`, `understood by rules` (`read_request`), `warned` (that it names nothing known), `<structure> (ml)`.
    """
    names, rows = list(class_names[1:]), []
    for text in texts:
        found, read = segment(image, text), read_request(text, names)
        named, warned = ", ".join(read.asked) or "nothing", "" if read.understood else "yes"
        rows.append([text, named, warned, *_amounts(found, names)])
    rows.append(["(the truth)", "", "", *_amounts(truth, names)])
    columns = ["sentence", "understood by rules", "warned", *(f"{name} (ml)" for name in names)]
    return pd.DataFrame(rows, columns=columns)


def _amounts(labels: Volume, names: Sequence[str]) -> list[float]:
    """Volume of every structure, ml."""
    return (np.bincount(labels.array.ravel(), minlength=len(names) + 1)[1:] * labels.voxel_ml).round(1).tolist()


def asked_only(labels: Volume, class_names: Sequence[str], asked: Sequence[str]) -> Volume:
    """The label map without the structures that were not asked for."""
    kept = [class_names.index(name) for name in asked]
    return replace(labels, array=np.where(np.isin(labels.array, kept), labels.array, 0))


def share_asked(labels: Volume, class_names: Sequence[str], asked: Sequence[str]) -> float:
    """The share of the marked voxels that were asked for; nan where nothing is marked."""
    marked = (labels.array > 0).sum()
    return float((asked_only(labels, class_names, asked).array > 0).sum() / marked) if marked else float("nan")


def each_asked(segment: Labels, case: VolumeCase, class_names: Sequence[str]) -> dict[str, Volume]:
    """What is marked in one volume when all structures are asked for (`ALL`), and when each is asked for alone, by its name."""
    names, image = list(class_names[1:]), case.image()
    questions = {ALL: names} | {name: [name] for name in names}
    return {asked: segment(image, prompt("class", named)) for asked, named in questions.items()}


def two_sentences(text: str, truth: Volume | None, class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A sentence and another that asks for something else, each with the structures that it names.

    `text`: the first; "" for the name of the largest structure of the truth (of all where there is none). In the second, the first
    structure that it names is exchanged for the largest one that it does not name, where that is possible.
    """
    known = class_names[1:]
    amounts = dict.fromkeys(known, 0.0) if truth is None else dict(zip(known, _amounts(truth, known), strict=True))
    largest = sorted(known, key=lambda name: -amounts[name])
    text = text or prompt("class", known if truth is None else largest[:1])
    named = named_structures(text, known)
    others = [name for name in largest if name not in named]
    other = swap_structures(text, named[0], others[0]) if named and others else prompt("class", known)
    return {one: named_structures(one, known) for one in (text, other)}


def worst_middle_best(
    segment: Segment, cases: Sequence[VolumeCase], class_names: Sequence[str]
) -> dict[str, tuple[VolumeCase, float]]:
    """ "worst", "middle" and "best": the case by its Dice (0..1), all structures asked for at once, and that Dice."""
    prompts = prompts_for(cases, class_names)
    table = score_volumes(segment, cases, prompts=prompts, class_names=class_names, surfaces=False, progress=False)
    order = table["dice"].sort_values(kind="stable").index
    places = {"worst": order[0], "middle": order[len(order) // 2], "best": order[-1]}
    return {name: (cases[place], float(table["dice"][place])) for name, place in places.items()}


def look(model: TextDiffSeg, image: Volume, labels: Volume, text: str) -> Look:
    """Which word is looked at where, in the axial slice in which the structures, each counted alike, are widest.

    Of a volume larger than the model's window, the window around the structures is taken. Returns a row of
    `figures.images.words_over_images`, all `hung`: the slice (uint8 [H, W, 3]), its true labels [H, W], the sentence, its words'
    pieces, and their attention, float32 [L, H/4, W/4] in 0..1. Raises ValueError for a model that does not read, and for a volume that is too thin for it.
    """
    if model.text is None:
        raise ValueError("this model does not read: it has no attention to words")
    grid, marks = model.preprocessing.image(image), model.preprocessing.labels(labels)
    box = _window(grid.shape, marks.array, model)
    grey, truth = grid.array[box], marks.array[box]
    level = widest_planes(truth)[2]
    images = torch.cat([torch.from_numpy(grey)[None], place_channels(grid.shape)[(slice(None), *box)]])
    words = model.text.words(text)
    maps = model.attention(images[None].to(model.device), [text])[0, : len(words)].float().cpu().numpy()
    shown = grey[..., level]
    shown = 255 * (shown - shown.min()) / max(float(np.ptp(shown)), 1e-6)
    picture = np.repeat(hung(shown.astype(np.uint8))[..., None], 3, axis=-1)
    return picture, hung(truth[..., level]), text, words, hung(maps[..., level * maps.shape[-1] // grey.shape[-1]])


def looks(model: TextDiffSeg, image: Volume, labels: Volume, texts: Sequence[str]) -> list[Look]:
    """`look` for several sentences."""
    return [look(model, image, labels, text) for text in texts]


def _window(shape: Sequence[int], marks: np.ndarray, model: TextDiffSeg) -> tuple[slice, ...]:
    """A box of sides that the model takes, no larger than its window, around the middle of what is marked."""
    found = np.argwhere(marks > 0)
    middle = found.mean(axis=0) if len(found) else np.array(shape) / 2
    sides = np.minimum(model.preprocessing.patch, np.array(shape) // model.divisor * model.divisor)
    if not sides.all():
        raise ValueError(f"a grid of {tuple(shape)} voxels: each side must have at least {model.divisor}")
    starts = np.clip(np.round(middle - sides / 2), 0, shape - sides).astype(int)
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def hung(array: np.ndarray) -> np.ndarray:
    """An axial slice [..., X, Y] of RAS axes as radiologists hang it: front up, the patient's right on the left."""
    return np.ascontiguousarray(np.flip(np.swapaxes(array, -1, -2), (-1, -2)))
