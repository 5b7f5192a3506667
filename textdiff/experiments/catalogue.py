"""All configuration classes by the name of their experiment, and the way back from a record to its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textdiff.experiments import pages
from textdiff.experiments.config import Config, parameters_of
from textdiff.experiments.images import TextDiffConfig
from textdiff.experiments.pretraining import PretrainConfig
from textdiff.experiments.volumes import TextDiffSegConfig

CONFIGS: dict[str, type[Config]] = {
    cls.__name__: cls
    for cls in (
        pages.DataConfig,
        PretrainConfig,
        pages.FeaturesConfig,
        TextDiffConfig,
        TextDiffSegConfig,
        pages.PredictConfig,
        pages.TableConfig,
        pages.BlocksConfig,
        pages.ReadingConfig,
        pages.QualitativeConfig,
        pages.VolumeTableConfig,
        pages.SamplingConfig,
        pages.PromptsConfig,
        pages.RequestsConfig,
        pages.QualitativeVolumesConfig,
        pages.VolumeDataConfig,
        pages.LabelLatentConfig,
        pages.VolumePredictConfig,
        pages.CostConfig,
        pages.TransferConfig,
    )
}
BY_EXPERIMENT = {cls.experiment: cls for cls in CONFIGS.values()}


def config_from_record(record: Mapping[str, Any]) -> Config:
    """The configuration that a record's config.json describes.

    Raises:
        ValueError: an experiment that is not known, or other fields or values than its class has (the record is stale).
    """
    cls = BY_EXPERIMENT.get(record.get("experiment", ""))
    if cls is None:
        raise ValueError(f"experiment={record.get('experiment')!r}: there are {', '.join(BY_EXPERIMENT)}")
    values = {name: value for name, value in {**cls.added, **record}.items() if name != "experiment"}
    missing = [name for name in parameters_of(cls) if name not in values and name != "out_dir"]
    if missing:
        raise ValueError(f"the record lacks {', '.join(missing)}: another version made it")
    try:
        return cls.resolved(**values)
    except (TypeError, FileNotFoundError) as error:
        raise ValueError(str(error)) from error
