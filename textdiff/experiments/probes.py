"""Linear probes of frozen features (notebooks 12 and 17): from a configuration features, labelled tensors and the probe's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textdiff.base.parsing import numbers
from textdiff.base.precision import resolve_device
from textdiff.data.splits import draw_labelled
from textdiff.experiments.config import limited, shown_name
from textdiff.experiments.images import load_data
from textdiff.models.store import RANDOM, REDRAWN, architecture_of

if TYPE_CHECKING:
    import pandas as pd

    from textdiff.data.cases import Case
    from textdiff.evaluation.probe import Labelled
    from textdiff.experiments.pages import BlocksConfig, FeaturesConfig
    from textdiff.models.features import DiffusionFeatures


def features_of(config: BlocksConfig | FeaturesConfig, backbone: str = "") -> DiffusionFeatures:
    """Frozen features on the configuration's device: its blocks and noise steps, of another ``backbone`` if one is named."""
    from textdiff.models.features import DiffusionFeatures
    from textdiff.models.store import load_backbone

    unet = load_backbone(backbone or config.backbone, config.seed).to(resolve_device(config.device))
    blocks = range(len(unet.output_blocks)) if config.blocks == "all" else numbers(config.blocks)
    return DiffusionFeatures(unet, blocks, numbers(config.noise_steps))


def labelled_tensors(config: BlocksConfig | FeaturesConfig, cases: Sequence[Case]) -> list[Labelled]:
    """Image ``[3, S, S]`` in [-1, 1], on the configuration's device, and mask ``[S, S]`` of each case; S is ``image_size``."""
    from textdiff.data.images.transforms import ImageSpec

    spec, device = ImageSpec(config.image_size), resolve_device(config.device)
    return [
        (spec.input(image).to(device), spec.target(mask))
        for image, mask in (case.pair(spec.num_classes) for case in cases)
    ]


def controls(config: BlocksConfig | FeaturesConfig) -> tuple[str, str]:
    """Names of the same network as initialised ("random:") and with all layers drawn at random ("redrawn:")."""
    return RANDOM + architecture_of(config.backbone), REDRAWN + architecture_of(config.backbone)


def probe_with_controls(config: BlocksConfig) -> pd.DataFrame:
    """Every block at every noise step, and the configuration's sets, of the backbone and of its two controls.

    The table of :func:`textdiff.evaluation.probe.probe` with the column ``backbone``
    (:func:`textdiff.experiments.config.shown_name`). Within a draw all networks see the same pixels; the test images are the same for all draws.
    """
    import pandas as pd

    from textdiff.evaluation.probe import parse_taps, probe, single_taps

    data = load_data(config)
    draws = [draw_labelled(data.train, config.n_labels, config.seed + draw) for draw in range(config.n_draws)]
    fitted = [labelled_tensors(config, cases) for cases in draws]
    n_test = len(limited(data.test, config.max_test))
    test = labelled_tensors(config, draw_labelled(data.test, n_test, config.seed))
    tables = []
    for backbone in (config.backbone, *controls(config)):
        features = features_of(config, backbone)
        taps = dict.fromkeys(single_taps(features.blocks, features.steps) + parse_taps(config.sets))
        table = probe(features, list(taps), fitted, test, config.pixels, config.seed, progress=True)
        tables.append(table.assign(backbone=shown_name(backbone)))
    return pd.concat(tables, ignore_index=True)


def gain_over_controls(table: pd.DataFrame, config: BlocksConfig) -> pd.DataFrame:
    """The backbone's Dice minus that of the better control, per tap and draw: columns of ``table`` without ``backbone``."""
    own, *others = map(shown_name, (config.backbone, *controls(config)))
    wide = table.pivot(index=["blocks", "noise_steps", "draw"], columns="backbone", values="dice")
    return (wide[own] - wide[others].max(axis=1)).rename("dice").reset_index()


def probe_metrics(table: pd.DataFrame) -> dict[str, float]:
    """What a record keeps: of every backbone its best single block and step, and the mean Dice of every set."""
    from textdiff.evaluation.probe import by_block_and_step

    metrics: dict[str, float] = {}
    for name, rows in table.groupby("backbone", sort=False):
        means = by_block_and_step(rows)
        block, step = means.stack().idxmax()
        metrics |= {f"probe/best {name}": means.max(axis=None)}
        metrics |= {f"probe/best block {name}": block, f"probe/best step {name}": step}
        for (blocks, steps), dice in rows.groupby(["blocks", "noise_steps"])["dice"]:
            if "," in f"{blocks}{steps}":
                metrics[f"probe/{blocks}@{steps} {name}"] = dice.mean()
    return metrics
