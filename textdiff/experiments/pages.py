"""The small configurations of single notebooks: those that show, ask or compare rather than train."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from textdiff.data import registry
from textdiff.experiments.config import (
    AUTO,
    NOISE_STEP,
    Config,
    Count,
    ImageSet,
    Limit,
    Listed,
    NoiseSteps,
    SamplingSteps,
    VolumeSet,
    Within,
    check_backbone_fits,
    check_backbone_known,
)

Side = Annotated[int, Within(least=8)]
Blocks = Annotated[str, Listed(words=("all",))]


@dataclass(frozen=True)
class DataConfig(Config):
    """Notebook 10: the data and its sentences."""

    experiment: ClassVar[str] = "data"
    notebook: ClassVar[str] = "10_data_and_sentences"
    reads_data: ClassVar[bool] = True

    n_shown: Count = 4
    n_labels: Count = AUTO

    def _resolve(self) -> DataConfig:
        return self._fill({"n_labels": self.entry.n_labels})


def _backbone(config: Any) -> Any:
    """The configuration with the data set's own backbone where none is named, its image size, and all blocks."""
    from textdiff.models.store import architecture_of

    config = config._fill({"backbone": config.entry.backbone})
    about = registry.backbones().get(architecture_of(config.backbone))
    return config._fill({"image_size": about.image_size if about else 256, "blocks": "all"})._with_weights()


@dataclass(frozen=True)
class FeaturesConfig(Config):
    """Notebook 12: what the frozen features see, block by step. ``n_images``: half to fit a probe, half to measure it."""

    experiment: ClassVar[str] = "features"
    notebook: ClassVar[str] = "12_what_features_see"
    reads_data: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = {"steps": "noise_steps"}
    derived: ClassVar[Mapping[str, str]] = {"backbone_weights": "backbone"}

    backbone: str = AUTO
    blocks: Blocks = AUTO
    noise_steps: NoiseSteps = "0,50,150,250,500,900"
    image_size: Side = AUTO
    n_images: Annotated[int, Within(least=2)] = AUTO
    pixels: Count = 4000
    backbone_weights: str = AUTO

    def _resolve(self) -> FeaturesConfig:
        return _backbone(self._fill({"n_images": 6 if self.mode == "demo" else 12}))

    def _check(self) -> None:
        from textdiff.models.store import BLIND

        if self.backbone.startswith(BLIND):
            raise ValueError(
                f"backbone={self.backbone!r}: there is nothing to see on maps of zeros; leave {BLIND!r} away"
            )
        check_backbone_fits(self.backbone, self.image_size, self.blocks)

    def _check_here(self) -> None:
        super()._check_here()
        check_backbone_known(self.backbone)


@dataclass(frozen=True)
class PredictConfig(Config):
    """Notebook 14: your own image and sentence. ``model_folder``: a saved TextDiff; "" for the one that ships for the data set.

    ``image``: a file, with ``text``, the sentence about it; "" for an image of the data set.
    """

    experiment: ClassVar[str] = "predict"
    notebook: ClassVar[str] = "14_your_own_image"
    derived: ClassVar[Mapping[str, str]] = {"model_weights": "model_folder"}
    files: ClassVar[tuple[str, ...]] = ("image",)

    dataset: ImageSet = "chest_phantoms"
    model_folder: str = ""
    image: str = ""
    text: str = ""
    model_weights: str = AUTO

    def _resolve(self) -> PredictConfig:
        return self._with_weights()

    def check_inputs(self) -> None:
        super().check_inputs()
        if not (self.image or self.entry.synthetic):
            self.entry.folder()

    def _check_here(self) -> None:
        super()._check_here()
        _must_exist("image", self.image)
        if self.image and not self.text:
            raise ValueError(f"image={self.image!r}: give the sentence about it too, text='...'")


def _must_exist(name: str, path: str) -> None:
    if path and not Path(path).expanduser().exists():
        raise ValueError(f"{name}={path!r}: there is no such file")


@dataclass(frozen=True)
class TableConfig(Config):
    """Notebooks 15, 16, 18 and 19: tables of the runs of a grid (:mod:`textdiff.experiments.grids`), drawn from their records.

    ``n_seeds``: draws of the labelled images; "auto" for the grid's own number.
    """

    experiment: ClassVar[str] = "table"
    notebook: ClassVar[str] = "15_comparison"

    dataset: ImageSet = "chest_phantoms"
    n_seeds: Count = AUTO

    def _resolve(self) -> TableConfig:
        return self._fill({"n_seeds": self.entry.draws})


@dataclass(frozen=True)
class BlocksConfig(Config):
    """Notebook 17: every decoder block at every noise step, and sets of them, by a linear probe.

    ``sets``: blocks and steps together, such as "1,4,7@50,150,250;1,4,7@50"; "auto" for the backbone's own blocks at the
    paper's three steps and at each of them alone.
    """

    experiment: ClassVar[str] = "blocks_steps"
    notebook: ClassVar[str] = "17_blocks_and_steps"
    reads_data: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = {"steps": "noise_steps"}
    derived: ClassVar[Mapping[str, str]] = {"backbone_weights": "backbone"}

    backbone: str = AUTO
    blocks: Blocks = AUTO
    noise_steps: NoiseSteps = AUTO
    sets: str = AUTO
    image_size: Side = AUTO
    n_labels: Count = AUTO
    n_draws: Count = AUTO
    max_test: Limit = AUTO
    pixels: Count = 20_000
    backbone_weights: str = AUTO

    def _slug(self) -> str:
        backbone = Path(self.to_record()["backbone"]).name  # a folder may be given
        return f"{self.dataset}-{backbone}-n{self.n_labels}-s{self.seed}"

    def _resolve(self) -> BlocksConfig:
        from textdiff.models.store import architecture_of

        demo, config = self.mode == "demo", _backbone(self)
        about = registry.backbones().get(architecture_of(config.backbone))
        taps = about.blocks_for(config.dataset) if about else ""
        paper = ("50,150,250", "50", "150", "250")
        return config._fill(
            {
                "noise_steps": "50,150,250,500" if demo else "0,25,50,100,150,200,250,350,500,700,900",
                "sets": ";".join(f"{taps}@{steps}" for steps in paper) if taps else "",
                "n_labels": 5,
                "n_draws": 1 if demo else 3,
                "max_test": 6 if demo else 100,
            }
        )

    def _check(self) -> None:
        from textdiff.models.store import DRAWN, architecture_of

        if self.backbone.startswith(DRAWN):
            raise ValueError(
                f"backbone={self.backbone!r}: give {architecture_of(self.backbone)!r}; with it, its two controls without "
                "training (random:, redrawn:) are measured"
            )
        check_backbone_fits(self.backbone, self.image_size, self.blocks)
        _check_sets(self.sets, self.backbone)

    def _check_here(self) -> None:
        super()._check_here()
        check_backbone_known(self.backbone)


def _check_sets(sets: str, backbone: str) -> None:
    """Raises ValueError for sets that cannot be read, and steps or blocks (of a backbone that is here) that there are not."""
    from textdiff.evaluation.probe import parse_taps
    from textdiff.models.store import decoder_blocks

    blocks = decoder_blocks(backbone)
    for tap in parse_taps(sets):
        for block in tap.blocks:
            Within(least=0, most=math.inf if blocks is None else blocks - 1).check(f"sets={sets!r}: block", block)
        for step in tap.noise_steps:
            NOISE_STEP.check(f"sets={sets!r}: step", step)


@dataclass(frozen=True)
class ReadingConfig(TableConfig):
    """Notebook 1a: does the model read? ``model_folder``: a saved TextDiff to look into; "" for the one that ships."""

    experiment: ClassVar[str] = "reading"
    notebook: ClassVar[str] = "1a_reading_test"
    reads_data: ClassVar[bool] = True
    derived: ClassVar[Mapping[str, str]] = {"model_weights": "model_folder"}

    model_folder: str = ""
    model_weights: str = AUTO

    def _resolve(self) -> ReadingConfig:
        config: Any = super()._resolve()
        return config._with_weights()


OWN, PHANTOMS, SHIFTS = "own", "phantoms", "shifts"  # sources of pictures beside data sets by name


@dataclass(frozen=True)
class TransferConfig(Config):
    """Notebook 31: a trained TextDiff asked about pictures of other sources, and whether its own doubt tells the failures.

    ``dataset``: of its training. ``model_folder``: a saved TextDiff; "" for the one that ships for the data set.
    ``sources``: with commas between them: "own" test images, "phantoms" (the synthetic set of the same kind), "shifts" (the own
    ones changed as another hospital's would be), and names of data sets. ``max_test``: the first so many cases of each.
    """

    experiment: ClassVar[str] = "transfer"
    notebook: ClassVar[str] = "31_transfer"
    reads_data: ClassVar[bool] = True
    derived: ClassVar[Mapping[str, str]] = {"model_weights": "model_folder"}

    dataset: ImageSet = "chest_phantoms"
    model_folder: str = ""
    sources: str = AUTO
    max_test: Limit = AUTO
    model_weights: str = AUTO

    @property
    def listed(self) -> list[str]:
        """The sources one by one."""
        return [one.strip() for one in self.sources.split(",")]

    @property
    def phantoms(self) -> str:
        """Name of the synthetic set of the same kind, "" where there is none."""
        return next((name for name in _synthetic() if self._like(name)), "")

    def _like(self, name: str) -> bool:
        return registry.dataset(name).class_names == self.entry.class_names

    def _resolve(self) -> TransferConfig:
        from textdiff.models.store import weights_identity

        others = [name for name in _synthetic() if not self._like(name)]
        if not self.entry.synthetic:  # of a synthetic set the other kind is shown, since its own is "own" already
            others = [PHANTOMS] if self.phantoms else []
        preset = {"sources": ",".join([OWN, *others, SHIFTS]), "max_test": 16 if self.mode == "demo" else 200}
        if not self.model_folder and self.entry.model:  # the record tells the weights of the model that ships
            preset["model_weights"] = weights_identity(self.entry.model)
        return self._fill(preset)._with_weights()

    def _check(self) -> None:
        sets = registry.names("images")
        for name in self.listed:
            if name not in (OWN, PHANTOMS, SHIFTS, *sets):
                raise ValueError(
                    f"sources={self.sources!r}: {name!r} is none of own, phantoms, shifts, {', '.join(sets)}"
                )
        names = [self.phantoms if name == PHANTOMS else self.dataset if name == OWN else name for name in self.listed]
        if "" in names:
            raise ValueError(f"sources={self.sources!r}: there is no synthetic set of the kind of {self.dataset!r}")
        if len(set(names)) < len(names):
            raise ValueError(f"sources={self.sources!r}: each once; own is {self.dataset}, phantoms {self.phantoms}")
        for name in set(names) - {SHIFTS}:
            if len(registry.dataset(name).class_names) != len(self.entry.class_names):
                raise ValueError(f"sources={self.sources!r}: {name} has not as many classes as {self.dataset}")
        if self.entry.sided:
            raise ValueError(
                f"dataset={self.dataset!r}: a mirror image exchanges its classes, so the two answers cannot agree"
            )

    def check_inputs(self) -> None:
        super().check_inputs()
        for name in set(self.listed) & set(registry.names("images")):
            if not registry.dataset(name).synthetic:
                registry.dataset(name).folder()


def _synthetic() -> list[str]:
    return [name for name in registry.names("images") if registry.dataset(name).synthetic]


@dataclass(frozen=True)
class QualitativeConfig(Config):
    """Notebook 1b: test images from the worst to the best, side by side for several models."""

    experiment: ClassVar[str] = "qualitative"
    notebook: ClassVar[str] = "1b_qualitative"

    dataset: ImageSet = "chest_phantoms"
    n_shown: Count = 6


@dataclass(frozen=True)
class VolumeTableConfig(Config):
    """Notebooks 23 and 24: tables of the runs of 3D grids (:mod:`textdiff.experiments.grids`), drawn from their records.

    ``n_seeds``: draws of the labelled volumes; "auto" for the grid's own number.
    ``base``: label of the row that the others are compared with; "" for the notebook's own choice.
    """

    experiment: ClassVar[str] = "table3d"
    notebook: ClassVar[str] = "23_comparison3d"

    dataset: VolumeSet = "abdomen_phantoms"
    n_seeds: Count = AUTO
    base: str = ""

    def _resolve(self) -> VolumeTableConfig:
        return self._fill({"n_seeds": self.entry.draws})


@dataclass(frozen=True)
class ShippedModelConfig(Config):
    """What notebooks share that ask something of one trained TextDiffSeg.

    ``model_folder``: where it was saved; "auto" for the one that ships for the data set.
    """

    derived: ClassVar[Mapping[str, str]] = {"model_weights": "model_folder"}
    reads_data: ClassVar[bool] = True

    dataset: VolumeSet = "abdomen_phantoms"
    model_folder: str = AUTO
    model_weights: str = AUTO

    def _resolve(self) -> Any:
        return self._fill({"model_folder": self.entry.model, **self._preset(self.mode == "demo")})._with_weights()

    def _preset(self, demo: bool) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class SamplingConfig(ShippedModelConfig):
    """Notebook 25: one trained TextDiffSeg under several numbers of denoising steps, both samplers, and several samples.

    ``sampling_steps``: numbers of denoising steps; more than 100 are measured on ``max_long`` test volumes, others on
    ``max_test``. ``samples``, ``uncertainty_steps``: how often a volume is drawn for its uncertainty, and in how many steps.
    """

    experiment: ClassVar[str] = "sampling3d"
    notebook: ClassVar[str] = "25_steps_and_uncertainty"
    renamed: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps", "sample_steps": "uncertainty_steps"}

    sampling_steps: Annotated[str, Listed(Within(least=1, most=1000))] = AUTO
    samples: Annotated[int, Within(least=2)] = AUTO
    uncertainty_steps: SamplingSteps = 5
    max_test: Limit = AUTO
    max_long: Count = AUTO

    def _preset(self, demo: bool) -> dict[str, Any]:
        if demo:
            return {"sampling_steps": "1,2,5,10,50", "samples": 4, "max_test": 3, "max_long": 1}
        return {"sampling_steps": "1,2,5,10,50,1000", "samples": 8, "max_test": "all", "max_long": 4}


@dataclass(frozen=True)
class PromptsConfig(ShippedModelConfig):
    """Notebook 26: one trained TextDiffSeg under many sentences.

    ``texts``: sentences of your own to try on one volume, with ";" between them.
    """

    experiment: ClassVar[str] = "prompts3d"
    notebook: ClassVar[str] = "26_prompts"

    max_test: Limit = AUTO
    texts: str = ""

    def _preset(self, demo: bool) -> dict[str, Any]:
        return {"max_test": 3 if demo else "all"}


@dataclass(frozen=True)
class RequestsConfig(ShippedModelConfig):
    """Notebook 29: sixty requests as people write them, to one trained TextDiffSeg.

    ``sampling_steps``: denoising steps.
    """

    experiment: ClassVar[str] = "requests3d"
    notebook: ClassVar[str] = "29_requests"

    sampling_steps: SamplingSteps = 5
    max_test: Limit = AUTO

    def _preset(self, demo: bool) -> dict[str, Any]:
        return {"max_test": 1 if demo else 5}


@dataclass(frozen=True)
class QualitativeVolumesConfig(Config):
    """Notebook 27: the best, the middle and the worst test volume, side by side for several models.

    ``models``: labels of rows of the comparison, with ";" between them; "" for all that were trained on this machine.
    ``margin``: mm shown around the structures.
    """

    experiment: ClassVar[str] = "qualitative3d"
    notebook: ClassVar[str] = "27_qualitative3d"

    dataset: VolumeSet = "abdomen_phantoms"
    models: str = ""
    margin: Annotated[float, Within(least=0)] = 15.0


@dataclass(frozen=True)
class VolumeDataConfig(Config):
    """Notebook 20: volumes, their place in the patient, and the kinds of sentences. ``n_cases``: training cases that are read."""

    experiment: ClassVar[str] = "volume_data"
    notebook: ClassVar[str] = "20_volumes_and_sentences"
    reads_data: ClassVar[bool] = True

    dataset: VolumeSet = "abdomen_phantoms"
    n_cases: Count = AUTO

    def _resolve(self) -> VolumeDataConfig:
        return self._fill({"n_cases": 12 if self.mode == "demo" else 40})


@dataclass(frozen=True)
class LabelLatentConfig(ShippedModelConfig):
    """Notebook 21: what the label latent holds, and what noise leaves of it.

    ``noise_steps``: how far the latent is noised, 0 to 999.
    """

    experiment: ClassVar[str] = "label_latent"
    notebook: ClassVar[str] = "21_label_latent"
    renamed: ClassVar[Mapping[str, str]] = {"timesteps": "noise_steps"}

    n_volumes: Count = AUTO
    noise_steps: NoiseSteps = "100,200,300,400,500,600,750,900,999"

    def _preset(self, demo: bool) -> dict[str, Any]:
        return {"n_volumes": 4 if demo else 16}


@dataclass(frozen=True)
class VolumePredictConfig(ShippedModelConfig):
    """Notebook 28: your own volume and sentence. Without a volume, one is drawn (full mode: the first test case).

    ``volume``: a NIfTI file, or a folder with the slices of one DICOM series.
    """

    experiment: ClassVar[str] = "predict_volume"
    notebook: ClassVar[str] = "28_your_own_volume"
    renamed: ClassVar[Mapping[str, str]] = {"steps": "sampling_steps"}
    files: ClassVar[tuple[str, ...]] = ("volume",)

    volume: str = ""
    text: str = ""
    sampling_steps: SamplingSteps = 5
    samples: Count = 5

    def _check_here(self) -> None:
        super()._check_here()
        _must_exist("volume", self.volume)


@dataclass(frozen=True)
class CostConfig(Config):
    """Notebook 30: what it costs, as `make bench` has measured it (`benchmarks/`); its record's table has one row a number.

    ``machine``: the processor or graphics card that was measured; "" for any. ``threads``: of the processor.
    ``extent``: "quick" takes minutes on two cores, "whole" is everything. ``backbones``: the small ones, with commas between them.
    """

    experiment: ClassVar[str] = "cost"
    notebook: ClassVar[str] = "30_cost"

    machine: str = ""
    threads: Count = 1
    extent: Literal["quick", "whole"] = "quick"
    backbones: str = "he_32,chest_32"

    def _slug(self) -> str:
        machine = re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-")
        return f"{machine or 'any'}-t{self.threads}-{self.extent if self.mode == 'full' else self.mode}"
