"""Captions in, tokens and an attention mask out: a frozen Hugging Face text encoder that remembers what it has read.

Any encoder will do, by hub id or by folder; the paper's is `emilyalsentzer/Bio_ClinicalBERT`. A small encoder
that needs no network ships with the package (`textdiff/assets/tiny_bert`) and gives the same with or without transformers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textdiff.base.checkpoints import building
from textdiff.base.paths import assets_dir, weights_dir
from textdiff.models.tiny_bert import load_tiny

logger = logging.getLogger(__name__)

OFFICIAL = "emilyalsentzer/Bio_ClinicalBERT"
TINY = "tiny"
HUB_SECONDS = 10.0  # how long the hub may take to answer
REMEMBERED = 4096  # captions held in memory; 64 tokens of 768 numbers are 0.2 MB

_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "vocab.json", "merges.txt", "*.model")
_HUB_FILES = ("config.json", "tokenizer*", "vocab*", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")  # the second is fetched only where the first is missing


class TextEncoder(nn.Module):
    """A frozen transformer that turns captions into tokens; it stays in evaluation mode whatever is trained around it.

    A caption's tokens do not depend on the other captions of the batch: each is encoded by itself and remembered.

    Args:
        backbone: a Hugging Face model whose output has `last_hidden_state` [B, L, D].
        tokenizer: its tokenizer.
        name: hub id, folder or "tiny"; what a saved TextDiff needs to find the encoder again.
        max_length: the most tokens of a caption, [CLS] and [SEP] included; longer captions are cut (with a warning).
        padding: "longest" pads to the longest caption of the batch; "max_length" always to `max_length`, as the authors'
            code does with 10 tokens; what the transformer says of the [PAD] tokens is then kept.

    Set the attribute ``allow_empty`` to take captions without words (the reading test needs them).

    Raises ValueError: `padding` is unknown, `max_length` is too small or beyond the encoder's positions, the tokenizer has
    more pieces than the encoder has embeddings, or fixed padding is asked of a tokenizer without a [PAD] token.
    """

    def __init__(
        self, backbone: Any, tokenizer: Any, *, name: str, max_length: int = 64, padding: str = "longest"
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone.float().requires_grad_(False).eval()
        self.tokenizer, self.name, self.max_length, self.padding = tokenizer, name, max_length, padding
        self.dim = int(backbone.config.hidden_size)
        self.allow_empty = self._warned = False
        self._memory: dict[str, tuple[Tensor, Tensor]] = {}
        self._check()

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path = TINY,
        max_length: int = 64,
        device: str | torch.device = "cpu",
        *,
        padding: str = "longest",
    ) -> TextEncoder:
        """Load an encoder: "tiny" or "" (shipped, no network), a folder, the name of one in
        TEXTDIFF_WEIGHTS, or a hub id (downloaded once).

        The weights are used in float32, however they are stored. The other arguments are those of the class.

        Raises FileNotFoundError: the folder, or a file it must hold, is missing; the message names it; OSError: the hub
        cannot be reached or has no such model, or a file is damaged; the message says which, and how to use a folder instead;
        ValueError: see the class; also where the weights of the file leave a part of the encoder unset.
        """
        name = str(name_or_folder).strip() or TINY
        backbone, tokenizer = _load(find_encoder(name))
        return cls(backbone, tokenizer, name=name, max_length=max_length, padding=padding).to(device)

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B captions to tokens [B, L, D] float32 and mask [B, L] bool.

        The mask is True where a token belongs to the caption ([CLS] and [SEP] included). With padding="longest" the
        rest of a row is zero.

        Raises TypeError: not a list of strings (a single string is refused: it would be read letter by letter); ValueError:
        no captions, or a caption without words.
        """
        self._check_captions(captions, self.allow_empty)
        rows = zip(*map(self._encode, captions), strict=True)
        device = next(self.backbone.parameters()).device
        tokens, mask = (nn.utils.rnn.pad_sequence(list(part), batch_first=True).to(device) for part in rows)
        return tokens, mask

    def words(self, caption: str) -> list[str]:
        """The strings of the tokens that `forward([caption])` returns, e.g. ["[CLS]", "upper", "left", "lung", "[SEP]"].

        Pieces of a broken-up word keep the tokenizer's own sign (BERT: "##").
        """
        self._check_captions([caption], True)
        return self.tokenizer.convert_ids_to_tokens(self._tokenise(caption)[0])

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: the encoder is frozen, dropout included."""
        return super().train(False)

    def _check(self) -> None:
        if self.padding not in ("longest", "max_length"):
            raise ValueError(f"padding is {self.padding!r}; it must be 'longest' or 'max_length'")
        special = self.tokenizer.num_special_tokens_to_add()
        config = self.backbone.config
        positions = min(self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 10**9)
        if not special < self.max_length <= positions:
            raise ValueError(
                f"max_length is {self.max_length}; the text encoder {self.name!r} takes {special + 1} to "
                f"{positions} tokens ({special} of them are special ones)"
            )
        if len(self.tokenizer) > config.vocab_size:
            raise ValueError(
                f"the tokenizer of {self.name!r} has {len(self.tokenizer)} pieces but its weights only "
                f"{config.vocab_size}: tokenizer and weights belong to different encoders"
            )
        if self.padding == "max_length" and self.tokenizer.pad_token is None:
            raise ValueError(f"the tokenizer of {self.name!r} has no [PAD] token; use padding='longest'")

    @staticmethod
    def _check_captions(captions: Sequence[str], allow_empty: bool) -> None:
        if isinstance(captions, str):
            raise TypeError(f"captions must be a list of strings, not one string; write [{captions!r}]")
        if not captions:
            raise ValueError("no captions: the list is empty")
        for i, caption in enumerate(captions):
            if not isinstance(caption, str):
                raise TypeError(f"caption {i} is a {type(caption).__name__}; captions must be strings")
            if not (allow_empty or caption.strip()):
                raise ValueError(f"caption {i} is empty; to encode captions without words set allow_empty = True")

    def _tokenise(self, caption: str) -> tuple[list[int], list[int]]:
        """Ids and attention mask of one caption."""
        how = {"max_length": self.max_length, "padding": "max_length" if self.padding == "max_length" else False}
        pieces = self.tokenizer(caption, truncation=True, return_attention_mask=True, **how)
        return list(pieces["input_ids"]), list(pieces["attention_mask"])

    def _encode(self, caption: str) -> tuple[Tensor, Tensor]:
        """Tokens [L, D] and mask [L] of one caption on the CPU: remembered, or made now."""
        if caption not in self._memory:
            while len(self._memory) >= REMEMBERED:
                del self._memory[next(iter(self._memory))]
            self._memory[caption] = self._run(caption)
        return self._memory[caption]

    def _run(self, caption: str) -> tuple[Tensor, Tensor]:
        self._warn_if_cut(caption)
        device = next(self.backbone.parameters()).device
        ids, mask = (torch.tensor([row], device=device) for row in self._tokenise(caption))
        # What is remembered must not depend on who asked first, so never in a caller's reduced precision.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            tokens = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        return tokens.float().cpu(), mask[0].bool().cpu()

    def remarks_on_length(self, caption: str) -> list[str]:
        """That not the whole of a caption is read, or nothing; where all are brought to one length, cutting is the rule.

        Who was told needs no log of it.
        """
        if self.padding == "max_length":
            return []
        needed = len(self.tokenizer.tokenize(caption)) + self.tokenizer.num_special_tokens_to_add()
        if needed <= self.max_length:
            return []
        self._warned = True
        return [f"the text has {needed} tokens, and the model reads the first {self.max_length} of them: shorten it"]

    def _warn_if_cut(self, caption: str) -> None:
        if not self._warned:
            for said in self.remarks_on_length(caption):
                logger.warning("%s (said once; others may be cut too): %r", said, caption)


def find_encoder(name: str) -> Path:
    """The folder that holds the encoder `name`: that one, one of that name in `weights_dir()`, or the hub's, downloaded if needed."""
    if name in ("", TINY):
        return assets_dir() / "tiny_bert"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if (weights_dir() / name / "config.json").is_file():
        return weights_dir() / name
    if folder.is_absolute() or name.startswith(("~", ".")) or "\\" in name or name.count("/") > 1 or folder.exists():
        raise FileNotFoundError(
            f"no text encoder folder at {folder}; give a folder, a hub id such as {OFFICIAL!r}, or 'tiny'"
        )
    return _hub_folder(name)


def _hub_folder(name: str) -> Path:
    """The hub's copy of `name` on disk. A whole copy already there is used without asking the network."""
    from huggingface_hub import HfApi, snapshot_download

    missing: list[str] = []
    for here in (True, False):
        try:
            if not here:
                # The download itself waits long for a network that swallows what it is sent; this question does not.
                HfApi().model_info(name, timeout=HUB_SECONDS)
            for weights in _WEIGHTS:
                wanted = [*_HUB_FILES, "*.model", weights]
                folder = snapshot_download(name, allow_patterns=wanted, local_files_only=here, etag_timeout=HUB_SECONDS)
                missing = _missing_files(Path(folder))
                if not missing:
                    return Path(folder)
        except Exception as error:  # the hub client's versions raise different families of network errors
            if not here:
                raise _hub_error(name, error) from error
    raise FileNotFoundError(f"the hub model {name!r} is no text encoder: it lacks {' and '.join(missing)}")


def _hub_error(name: str, error: Exception) -> OSError:
    from huggingface_hub.utils import HFValidationError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HFValidationError):
        reason = "neither a folder on this disk nor a possible hub id"
    elif status in (401, 403, 404):
        reason = "the hub has no such model, or it is private or asks for an agreement first (set HF_TOKEN)"
    else:
        reason = "it is not on this disk and the Hugging Face hub could not be reached"
    said = str(error).partition("\n")[0]
    return OSError(
        f"text encoder {name!r}: {reason}. Without a network, copy the model's folder (config.json, "
        "vocabulary, weights) to this machine and give its path instead of the hub id, or use 'tiny', the "
        f"small encoder that ships with the package. The hub client said: {type(error).__name__}: {said}"
    )


def _missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a text encoder, in words."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        missing.append("a vocabulary (vocab.txt or tokenizer.json)")
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        missing.append("weights (model.safetensors or pytorch_model.bin)")
    return missing


def _load(folder: Path) -> tuple[nn.Module, Any]:
    """The encoder and the tokenizer of a folder, without network and without running code found in it."""
    if missing := _missing_files(folder):
        raise FileNotFoundError(f"{folder} is not a text encoder: it lacks {' and '.join(missing)}")
    if folder == find_encoder(TINY):
        with torch.random.fork_rng(devices=[]):
            return load_tiny(folder)
    from transformers import AutoModel, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": False}
    weights = sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern))
    try:
        # Parts absent from the file (an unused pooler, say) are drawn at random; the caller's random numbers
        # must not depend on that.
        with _quiet(), torch.random.fork_rng(devices=[]), building(folder / "config.json", weights):
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # damaged files raise whatever the format's reader raises
        raise OSError(f"the text encoder in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    unset = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if unset or report.get("mismatched_keys"):
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: "
            f"{len(unset)} tensors unset ({', '.join(unset[:3])}...), "
            f"{len(report['mismatched_keys'])} of another shape"
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return getattr(model, "text_model", model), tokenizer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' loading reports: what matters of them is checked by `_load`."""
    from transformers.utils import logging as hf_logging

    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()
