"""Test images beside what is marked in them (notebook 1b). In: a configuration. Out: rows for `figures.images.qualitative_grid`.

Nobody chooses the images: they are taken at even distances from the worst to the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textdiff.data.images.captions import other_sentences
from textdiff.experiments import images
from textdiff.experiments.run import trained_model

if TYPE_CHECKING:
    from textdiff.data.cases import Case, Dataset
    from textdiff.experiments.images import TextDiffConfig

Row = tuple[str, Any, Any, Mapping[str, Any]]  # label, image, truth, masks by name
SENTENCES = {"its own sentence": "", "another image's": "shuffled", "no sentence": "empty"}


def worst_to_best(cases: Sequence[Case], dice: Mapping[str, float], n_shown: int) -> dict[str, Case]:
    """``n_shown`` of the cases at even distances in the order of their Dice: "0 %" is the worst, "100 %" the best.

    dice: of every case, by name.
    """
    order = sorted(cases, key=lambda case: dice[case.name])
    shares = np.linspace(0, 1, min(n_shown, len(order)))
    return {f"{100 * share:.0f} %": order[round(share * (len(order) - 1))] for share in shares}


def under_sentences(model: Any, config: TextDiffConfig, data: Dataset, n_shown: int) -> list[Row]:
    """Test images in the order of the Dice with their own sentence, marked by one model under each of `SENTENCES`."""
    cases = images.test_cases(config, data)
    model.text.allow_empty = True
    table = images.score(model, config, data, cases, progress=False).set_index("case")
    texts = {case.name: {"": case.caption} for case in cases}
    for kind, captions in other_sentences(cases, config.seed).items():
        for case, caption in zip(cases, captions, strict=True):
            texts[case.name][kind] = caption
    rows: list[Row] = []
    for share, case in worst_to_best(cases, table["dice_native"], n_shown).items():
        words = {name: texts[case.name][kind] for name, kind in SENTENCES.items()}
        masks = {name: images.mask_of(model, config, data, case, text) for name, text in words.items()}
        rows.append((share, case.image(), case.mask(), masks))
    return rows


def of_models(configs: Mapping[str, TextDiffConfig], data: Dataset, n_shown: int) -> list[Row]:
    """Test images in the order of the first model's Dice, marked by the trained model of each configuration.

    Raises:
        FileNotFoundError: a run that was not made on this machine.
    """
    models = {name: trained_model(config, data) for name, config in configs.items()}
    first, config = next(iter(configs.items()))
    cases = images.test_cases(config, data)
    table = images.score(models[first], config, data, cases, progress=False).set_index("case")
    rows: list[Row] = []
    for share, case in worst_to_best(cases, table["dice_native"], n_shown).items():
        masks = {name: images.mask_of(model, configs[name], data, case, case.caption) for name, model in models.items()}
        rows.append((share, case.image(), case.mask(), masks))
    return rows
