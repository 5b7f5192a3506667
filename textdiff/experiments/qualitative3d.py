"""Several trained models on the same test volumes (notebook 27). In: its configuration. Out: models that are on this machine.

Weights of networks are not published with their records: beside the TextDiffSeg that ships stand those trained here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textdiff.experiments.grids import grid
from textdiff.experiments.pages import QualitativeVolumesConfig
from textdiff.experiments.run import trained_model
from textdiff.experiments.volumes import load_data, saved_model, segmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from textdiff.data.volumes.cases import VolumeDataset
    from textdiff.data.volumes.volume import Volume

SHIPPED = "TextDiffSeg"
MOST = 4  # models that are shown where none are named


def shown_models(
    config: QualitativeVolumesConfig,
) -> tuple[dict[str, Callable[[Volume, str], Volume]], str, VolumeDataset]:
    """``(volume, sentence) -> labels`` of every model that is shown, by label; which of them is TextDiffSeg; and the data.

    In full mode the rows of the comparison that were trained on this machine, at most :data:`MOST` or those that
    ``config.models`` names. Where no TextDiffSeg is among them, the one that ships for the data set comes first.

    Raises:
        ValueError: an unknown label, or a data set for which no model ships and none was trained here.
        FileNotFoundError: a model that ``config.models`` names was not trained here.
    """
    wanted = [label.strip() for label in config.models.split(";") if label.strip()]
    table = grid("comparison3d", config.dataset, [config.seed])
    rows = table.only(wanted).rows if wanted else table.rows if config.mode == "full" else ()
    found, own = {}, ""
    data: Any = None
    for row in rows:
        settings: Any = replace(table.configs(row)[0], device=config.device)
        data = data or load_data(settings)
        try:
            found[row.label] = segmenter(trained_model(settings, data), settings)
        except FileNotFoundError:
            if wanted:
                raise
        if row.label in found and not own and settings.model == "textdiffseg":
            own = row.label
        if len(found) == MOST and not wanted:
            break
    if own:
        return found, own, data
    model, settings, shipped = saved_model(config, config.entry.model)
    # Networks that were trained on other structures cannot stand beside it
    alike = found if data is not None and data.class_names == shipped.class_names else {}
    return {SHIPPED: segmenter(model, settings)} | alike, SHIPPED, shipped
