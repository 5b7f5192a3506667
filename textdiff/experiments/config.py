"""What all configurations share: parameters in, every value in effect out, checked once.

A notebook parameter, a field of a configuration class and a keyword argument have the same name. Parameters are scalars;
"auto" means "from the preset of mode, data set and protocol". :meth:`Config.from_params` resolves all of them, so that a
recorded configuration says everything and means the same in later versions. Lists travel as "6,8,12,16". The classes stand
in :mod:`~textdiff.experiments.images`, :mod:`~textdiff.experiments.volumes`, :mod:`~textdiff.experiments.pretraining` and
:mod:`~textdiff.experiments.pages`.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from textdiff.base.parsing import did_you_mean, numbers
from textdiff.base.precision import resolve_device
from textdiff.data import registry
from textdiff.data.splits import draw_labelled
from textdiff.experiments.places import kept_run

if TYPE_CHECKING:
    from textdiff.training.fit import Optimisation

# The default of a field that a preset fills in. After `from_params` no field but `device` and `workers` holds it.
AUTO: Any = "auto"
AT_RUN_TIME = ("device", "workers")
# What says where a run is made and written, not what comes out
NOT_HASHED = (*AT_RUN_TIME, "out_dir")

Mode = Literal["demo", "full"]
Switch = Literal["on", "off"]


@dataclass(frozen=True)
class Within:
    """Bounds of a number: at least ``least``, at most ``most``, more than ``above``. nan lies in no bounds."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def check(self, name: str, value: Any) -> None:
        if not (self.least <= value <= self.most and self.above < value < math.inf):
            finite = "" if math.isfinite(value) else "a finite number, "
            raise ValueError(f"{name}={value!r}: {finite}{self}")

    def __str__(self) -> str:
        low = f"above {self.above:g}" if self.above > -math.inf else f"at least {self.least:g}"
        return low if self.most == math.inf else f"{low}, at most {self.most:g}"


@dataclass(frozen=True)
class Listed:
    """A list of numbers that travels as text: bounds of each, how many, or one of ``words`` in its place."""

    bounds: Within = Within(least=0)
    kind: type = int
    words: tuple[str, ...] = ()
    count: int = 0
    multiple: int = 1
    once: bool = False

    def check(self, name: str, value: str) -> None:
        if value in self.words:
            return
        try:
            values = numbers(value, self.kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if not values or (self.count and len(values) != self.count):
            raise ValueError(f"{name}={value!r}: give {self.count or 'some'} numbers with commas between them")
        if self.once and len(set(values)) != len(values):
            raise ValueError(f"{name}={value!r}: each number once")
        for one in values:
            self.bounds.check(name, one)
            if self.multiple > 1 and one % self.multiple:
                raise ValueError(f"{name}={value!r}: multiples of {self.multiple} only")


@dataclass(frozen=True)
class NotEmpty:
    """A name must be there."""

    def check(self, name: str, value: str) -> None:
        if not value.strip():
            raise ValueError(f"{name}={value!r}: give a name")


@dataclass(frozen=True)
class DataSet:
    """The name of a data set in the registry, of "images" or "volumes"."""

    kind: registry.Kind

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(registry.names(self.kind))

    def check(self, name: str, value: str) -> None:
        if value not in self.names:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(self.names)}")


Count = Annotated[int, Within(least=1)]
Limit = Annotated[int | Literal["all"], Within(least=1)]
Seed = Annotated[int, Within(least=0)]
Share = Annotated[float, Within(least=0, most=1)]
Weight = Annotated[float, Within(least=0)]
Rate = Annotated[float, Within(above=0)]
Name = Annotated[str, NotEmpty()]
NOISE_STEP = Within(least=0, most=999)
NoiseSteps = Annotated[str, Listed(NOISE_STEP, once=True)]
SamplingSteps = Annotated[int, Within(least=1, most=1000)]
ImageSet = Annotated[str, DataSet("images")]
VolumeSet = Annotated[str, DataSet("volumes")]


@dataclass(frozen=True)
class Parameter:
    """One field of a configuration class, as its annotation says it.

    kind: the type of its values. words: texts that may stand in place of a number ("auto", "all"). choices: all values that
    are possible, if they are few. checks: objects with ``check(name, value)``.
    """

    name: str
    default: Any
    kind: type
    words: tuple[str, ...]
    choices: tuple[str, ...]
    checks: tuple[Any, ...]

    def read(self, text: str) -> Any:
        """The value that a text of the command line stands for. Raises ValueError that names parameter, text and type."""
        if text in self.words or self.kind is str:
            return text
        try:
            return {"true": True, "false": False}[text.lower()] if self.kind is bool else self.kind(text)
        except (KeyError, ValueError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[self.kind]
            instead = "".join(f" or {word!r}" for word in self.words)
            raise ValueError(
                f"parameter {self.name} must be {wanted}{instead}, not {text!r} (default: {self.default})"
            ) from None

    def typed(self, value: Any) -> Any:
        """``value`` in the field's type: papermill hands a whole number to a float field, and "6" as 6 to a text field."""
        if isinstance(value, str) and value in self.words:
            return value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and (self.kind is str or (self.kind is float and isinstance(value, int))):
            return self.kind(value)
        if type(value) is not self.kind:
            instead = "".join(f" or {word!r}" for word in self.words)
            raise TypeError(
                f"{self.name}={value!r} is {type(value).__name__}, but must be {self.kind.__name__}{instead}"
            )
        return value

    def check(self, value: Any) -> None:
        """Raises ValueError where the value is not possible."""
        if isinstance(value, str) and value in self.words:
            return
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}={value!r}: choose one of {', '.join(self.choices)}")
        for one in self.checks:
            one.check(self.name, value)


def parameters_of(cls: type[Config]) -> dict[str, Parameter]:
    """The fields of a configuration class by name."""
    if cls not in _PARAMETERS:
        hints = typing.get_type_hints(cls, include_extras=True)
        _PARAMETERS[cls] = {one.name: _parameter(one.name, one.default, hints[one.name]) for one in fields(cls)}
    return _PARAMETERS[cls]


_PARAMETERS: dict[type, dict[str, Parameter]] = {}


def _parameter(name: str, default: Any, hint: Any) -> Parameter:
    checks: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *found = typing.get_args(hint)
        checks = tuple(found)
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [option for option in options if isinstance(option, type)]
    literal = tuple(word for option in options for word in typing.get_args(option))
    words = (("auto",) if default == AUTO else ()) + (literal if kinds else ())
    return Parameter(name, default, kinds[0] if kinds else str, words, () if kinds else literal, checks)


Self = TypeVar("Self", bound="Config")


@dataclass(frozen=True)
class Config:
    """What all configurations share.

    ``workers``: processes that prepare batches; "auto" is none on a processor and a few beside a GPU. The result is the same.
    """

    experiment: ClassVar[str] = ""
    notebook: ClassVar[str] = ""
    renamed: ClassVar[Mapping[str, str]] = {}  # names of earlier versions
    derived: ClassVar[Mapping[str, str]] = {}  # field: the field whose weights it stands for
    of_runs: ClassVar[tuple[str, ...]] = ()  # fields that may name a run of this machine, whose weights are meant
    files: ClassVar[tuple[str, ...]] = ()  # fields that name a file or folder of the user's own
    # Fields that came later, with the value that records of before stand for; with it they do not enter the run's id
    added: ClassVar[Mapping[str, Any]] = {}
    reads_data: ClassVar[bool] = False  # whether the notebook reads the data set's files

    mode: Mode = "demo"
    dataset: ImageSet = "nuclei_phantoms"
    seed: Seed = 0
    device: str = AUTO
    workers: Annotated[int, Within(least=0)] = AUTO
    out_dir: str = ""

    @classmethod
    def from_params(cls: type[Self], **params: Any) -> Self:
        """The configuration that notebook parameters stand for, with every preset filled in.

        Raises:
            ValueError: an unknown name (the new one, or the nearest, is named), or a value that is not possible, on this
                machine or anywhere.
            TypeError: a value of another type than the field's.
        """
        config = cls.resolved(**params)
        config._check_here()
        return config

    @classmethod
    def resolved(cls: type[Self], **params: Any) -> Self:
        """As :meth:`from_params`, without asking whether this machine has the device and the files that are named."""
        known = parameters_of(cls)
        for name, value in params.items():
            if name not in known:
                raise ValueError(unknown_parameter(cls, name))
            params[name] = known[name].typed(value)
            known[name].check(params[name])
        config = cls(**params)._resolve()
        for name, parameter in known.items():
            value = getattr(config, name)
            if value == AUTO and name not in AT_RUN_TIME:
                raise ValueError(f"{name}='auto': there is no preset for dataset={config.dataset!r}, give a value")
            parameter.check(value)
        config._check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Every parameter by name."""
        return asdict(self)

    def to_record(self) -> dict[str, Any]:
        """What config.json holds: the experiment, and every parameter without what belongs to one machine."""
        values = {name: value for name, value in self.to_dict().items() if name != "out_dir"}
        values |= {name: portable(values[name]) for name in (*self.derived, *self.files)}
        values |= {source: shown_name(values[source]) for source in self.derived.values()}
        return {"experiment": self.experiment, **values}

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of what determines the result: every parameter but where it runs and is written."""
        unsaid = self.added.items()
        values = {k: v for k, v in self.to_record().items() if k not in NOT_HASHED and (k, v) not in unsaid}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """Folder name of the record: a readable part and the hash."""
        return f"{self._slug()}-{self.hash}"

    @property
    def entry(self) -> registry.DatasetEntry:
        """The registry's entry of the data set."""
        return registry.dataset(self.dataset)

    def _slug(self) -> str:
        return f"{self.dataset}-s{self.seed}-{self.mode}"

    def check_inputs(self) -> None:
        """Look for the data set, models and encoders that a run reads, before any work; what can be fetched is.

        Raises FileNotFoundError, OSError or ValueError that says what is missing and how to get it.
        """
        self.inputs()

    def inputs(self) -> dict[str, Path]:
        """Where what a run reads is on this machine, by the field that names it; raises as :meth:`check_inputs`."""
        found: dict[str, Path] = {}
        if self.reads_data and not self.entry.synthetic:
            found["dataset"] = self.entry.folder()
        for source in self.derived.values():
            name = getattr(self, source)
            name = model_name(self, name) if source == "model_folder" else name
            if name not in ("", "none") and not self._kept(source, name):
                if place := self._find(source, name):
                    found[source] = place
        return found

    def _kept(self, source: str, name: str) -> Path | None:
        """Where the weights of a run are that the field ``source`` names; None where it names something else."""
        return kept_run(name) if source in self.of_runs else None

    def _find(self, source: str, name: str) -> Path | None:
        """Where what the field ``source`` names is; None for a network whose weights are drawn. Raises where it is not to be had."""
        from textdiff.models.store import find_backbone, find_model
        from textdiff.models.text import find_encoder

        if source == "backbone":
            return find_backbone(name)
        if source == "text_encoder":
            return find_encoder(name)
        return find_model(name, "TextDiff" if self.entry.kind == "images" else "TextDiffSeg")

    def _check(self) -> None:
        """Rules between fields."""

    def _check_here(self) -> None:
        """Whether this machine has what is named."""
        if self.device != AUTO:
            resolve_device(self.device)

    def _resolve(self: Self) -> Self:
        return self

    def _of_entry(self) -> dict[str, Any]:
        """What the data set's entry changes of the presets of this mode.

        Raises ValueError for a parameter that is unknown, of another type, not possible, or that no preset fills in.
        """
        known, found = parameters_of(type(self)), {}
        for name, value in self.entry.runs.get(self.mode, {}).items():
            where = f"data set {self.dataset!r}, runs, {self.mode!r}"
            if name not in known:
                raise ValueError(f"{where}: {unknown_parameter(type(self), name)}")
            if known[name].default != AUTO:
                raise ValueError(
                    f"{where}: {name} is {known[name].default!r} in every run that does not say otherwise; "
                    "under 'grid' it can be set for all runs of tables"
                )
            try:
                found[name] = known[name].typed(value)
                known[name].check(found[name])
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where}: {error}") from None
        return found

    def _fill(self: Self, preset: Mapping[str, Any]) -> Self:
        """Replaces the fields left at "auto" by the preset's values."""
        return replace(self, **{name: value for name, value in preset.items() if getattr(self, name) == AUTO})

    def _with_weights(self: Self) -> Self:
        """Fills in what stands for the weights behind the names: two folders of one name are two runs."""
        from textdiff.models.store import weights_identity

        found = {}
        for name, source in self.derived.items():
            value = getattr(self, source)
            if getattr(self, name) == AUTO:
                kept = self._kept(source, value)
                found[name] = "none" if value in ("", "none") else weights_identity(str(kept or value))
        return self._fill(found)


def unknown_parameter(cls: type[Config], name: str) -> str:
    """What to say of a parameter that a configuration class does not have."""
    if name in cls.renamed:
        return f"parameter {name!r} is called {cls.renamed[name]!r} now"
    own = [one for one in parameters_of(cls) if one not in cls.derived]
    return f"unknown parameter {name!r}{did_you_mean(name, own)}; {cls.__name__} has: {', '.join(own)}"


def model_name(config: Config, folder: str) -> str:
    """``folder`` (which may be a known name too), or where it is "" the model that ships for the data set.

    Raises ValueError where none does.
    """
    if not (folder or config.entry.model):
        number = 13 if config.entry.kind == "images" else 22
        raise ValueError(
            f"no model ships for {config.dataset!r}: train one (textdiff run {number} -p mode full -p dataset "
            f"{config.dataset}) and give its folder as model_folder"
        )
    return folder or config.entry.model


def check_backbone_fits(backbone: str, side: int, blocks: str) -> None:
    """Raises ValueError where a backbone, if it is here, has not all ``blocks`` or cannot halve pictures of ``side`` pixels."""
    from textdiff.models.store import decoder_blocks, side_divisor

    known = decoder_blocks(backbone)
    if known is not None and blocks != "all" and any(block >= known for block in numbers(blocks)):
        raise ValueError(f"blocks={blocks!r}: {backbone} has decoder blocks 0 to {known - 1}")
    divisor = side_divisor(backbone) or 1
    if side % divisor:
        near = max(divisor, round(side / divisor) * divisor)
        raise ValueError(
            f"image_size={side}: {backbone} takes multiples of {divisor}, because it halves pictures; the nearest is {near}"
        )


def check_backbone_known(backbone: str) -> None:
    """Raises ValueError for a backbone that is neither a known name nor a folder here."""
    from textdiff.models.store import architecture_of, decoder_blocks

    name = architecture_of(backbone)
    if name not in registry.backbones() and decoder_blocks(name) is None:
        known = ", ".join(registry.backbones())
        raise ValueError(f"backbone={backbone!r}: neither a folder with config.json here, nor one of {known}")


def optimisation(config: Any, **others: Any) -> Optimisation:
    """How a configuration trains: the fields that it shares with :class:`~textdiff.training.fit.Optimisation`, and ``others``."""
    from textdiff.training.fit import Optimisation

    shared = [field.name for field in fields(Optimisation) if hasattr(config, field.name)]
    return Optimisation(**{name: getattr(config, name) for name in shared} | others)


def limited(cases: Sequence[Any], limit: int | str) -> list[Any]:
    """The first ``limit`` cases; "all" of them."""
    return list(cases) if limit == "all" else list(cases)[: int(limit)]


def labelled_cases(config: Any, data: Any) -> list[Any]:
    """The labelled training cases of a run: a draw of ``n_labels`` by the seed, or all."""
    return list(data.train) if config.n_labels == "all" else draw_labelled(data.train, config.n_labels, config.seed)


def validation_cases(config: Any, data: Any) -> list[Any]:
    """The validation cases of a run, at most ``max_val``."""
    return limited(data.val, config.max_val)


def test_cases(config: Any, data: Any) -> list[Any]:
    """The test cases of a run, at most ``max_test``."""
    return limited(data.test, config.max_test)


def portable(path: str) -> str:
    """A path without what belongs to one machine: of an absolute one its last part."""
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(path).is_absolute() or path.startswith("~"):
            return flavour(path).name
    return path


def shown_name(name: str) -> str:
    """The name of weights in tables and records: of a folder its last part; a prefix that says how they are drawn stays."""
    from textdiff.models.store import architecture_of

    folder = architecture_of(name)
    here = Path(folder).expanduser()
    return name.removesuffix(folder) + (here.resolve().name if folder and here.is_dir() else portable(folder))
