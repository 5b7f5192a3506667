"""The authors' computation, restated plainly: what every ratio here is measured against. Same weights in, same numbers out.

As in chunmeifeng/TextDiff @ cd7e79f and openai/guided-diffusion @ 22e0df8: the whole UNet to its end once for each noise step,
one image at a time, in contiguous memory; softmax attention written out as matrix products; every scale attended at its
full size, brought to 256 pixels and joined to one map of 3072 channels; features and tokens computed anew for every image of
every epoch. The precision is a choice: the authors run the UNet's blocks in half precision on their GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.diffusion import STEPS
from textdiff.models.text import TextEncoder

State = Mapping[str, Tensor]


class ReferenceUNet:
    """guided-diffusion's UNet (one that resamples in its residual blocks) as a function of its checkpoint.

    The tensors of ``state`` are used, not copied.

    ``config``: the constructor's arguments of :class:`textdiff.models.unet.UNet`, without class labels. ``torso``: the dtype of
    the blocks' convolutions (float16 as guided-diffusion's ``use_fp16``); other than that of ``state``, they are copied.
    """

    def __init__(self, config: Mapping[str, Any], state: State, torso: torch.dtype = torch.float32) -> None:
        self.config, self.torso = config, torso
        self.state = {key: value.to(torso) if _of_torso(key, state) else value for key, value in state.items()}
        self.inputs, self.outputs = (
            [self._layers(f"{kind}_blocks", k) for k in range(_count(state, kind))] for kind in ("input", "output")
        )
        self.middle = self._layers("middle_block")

    def __call__(self, x: Tensor, timesteps: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """``x [B, 3, H, W]``, ``timesteps [B]`` -> the predicted noise, and the outputs of the decoder blocks ``taps``."""
        half = self.config["model_channels"] // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        angles = timesteps[:, None].float() * frequencies[None]
        emb = self._linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=-1))
        emb = self._linear("time_embed.2", F.silu(emb))
        h, skips, found = x.to(self.torso), [], {}
        for block in self.inputs:
            h = self._block(block, h, emb)
            skips.append(h)
        h = self._block(self.middle, h, emb)
        for k, block in enumerate(self.outputs):
            h = self._block(block, torch.cat([h, skips.pop()], dim=1), emb)
            if k in taps:  # what a hook on the block would keep
                found[k] = h.float()
        h = h.to(x.dtype)
        return self._conv("out.2", F.silu(self._norm("out.0", h)), 3), [found[k] for k in taps]

    def _layers(self, kind: str, k: int | None = None) -> list[tuple[str, str]]:
        """Names of the layers of one block, with what they do: "attention", "convolution", "residual", or a residual "up", "down"."""
        name = kind if k is None else f"{kind}.{k}"
        found: list[tuple[str, str]] = []
        while any(key.startswith(f"{name}.{len(found)}.") for key in self.state):
            layer = f"{name}.{len(found)}"
            telling = {"attention": "qkv.weight", "residual": "in_layers.0.weight"}
            does = next((what for what, key in telling.items() if f"{layer}.{key}" in self.state), "convolution")
            found.append((layer, does))
        levels, per_level = len(self.config["channel_mult"]), self.config["num_res_blocks"] + 1
        if kind == "input_blocks" and k and k % per_level == 0:
            found[-1] = (found[-1][0], "down")
        if kind == "output_blocks" and k is not None and (k + 1) % per_level == 0 and k + 1 < levels * per_level:
            found[-1] = (found[-1][0], "up")
        return found

    def _block(self, layers: Sequence[tuple[str, str]], h: Tensor, emb: Tensor) -> Tensor:
        for name, does in layers:
            if does == "convolution":
                h = self._conv(name, h, 3)
            else:
                h = self._attention(name, h) if does == "attention" else self._residual(name, h, emb, does)
        return h

    def _residual(self, name: str, x: Tensor, emb: Tensor, change: str) -> Tensor:
        h = F.silu(self._norm(f"{name}.in_layers.0", x))
        h, x = _resampled(h, change), _resampled(x, change)
        h = self._conv(f"{name}.in_layers.2", h, 3)
        told = self._linear(f"{name}.emb_layers.1", F.silu(emb)).to(h.dtype)[:, :, None, None]
        if self.config["use_scale_shift_norm"]:
            scale, shift = told.chunk(2, dim=1)
            h = self._norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = self._norm(f"{name}.out_layers.0", h + told)
        h = self._conv(f"{name}.out_layers.3", F.silu(h), 3)
        return h + (
            self._conv(f"{name}.skip_connection", x, 1) if f"{name}.skip_connection.weight" in self.state else x
        )

    def _attention(self, name: str, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, -1)
        per_head = self.config["num_head_channels"]
        heads = self.config.get("num_heads", 1) if per_head == -1 else channels // per_head
        qkv = F.conv1d(
            self._norm(f"{name}.norm", flat), self.state[f"{name}.qkv.weight"], self.state[f"{name}.qkv.bias"]
        )
        q, k, v = qkv.reshape(batch * heads, 3 * channels // heads, -1).split(channels // heads, dim=1)
        scale = 1 / math.sqrt(math.sqrt(channels / heads))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale).float().softmax(dim=-1).to(q.dtype)
        read = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, channels, -1)
        out = F.conv1d(read, self.state[f"{name}.proj_out.weight"], self.state[f"{name}.proj_out.bias"])
        return (flat + out).reshape(batch, channels, height, width)

    def _norm(self, name: str, h: Tensor) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.group_norm(h.float(), 32, weight.float(), bias.float()).to(h.dtype)

    def _conv(self, name: str, h: Tensor, kernel: int) -> Tensor:
        return F.conv2d(h, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=kernel // 2)

    def _linear(self, name: str, h: Tensor) -> Tensor:
        return F.linear(h, self.state[f"{name}.weight"], self.state[f"{name}.bias"])


def _count(state: State, kind: str) -> int:
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith(f"{kind}_blocks."))


def _of_torso(key: str, state: State) -> bool:
    """Convolutions of the blocks, weights and biases; not the linear layers of the embedding nor the norms."""
    weight = state[key.rsplit(".", 1)[0] + ".weight"]
    return key.startswith(("input_blocks.", "middle_block.", "output_blocks.")) and weight.ndim > 2


def _resampled(h: Tensor, change: str) -> Tensor:
    if change == "up":
        return F.interpolate(h, scale_factor=2, mode="nearest")
    return F.avg_pool2d(h, 2) if change == "down" else h


def reference_features(unet: ReferenceUNet, image: Tensor, blocks: Sequence[int], steps: Sequence[int]) -> list[Tensor]:
    """Maps ``[1, C_k * len(steps), h_k, w_k]`` of one image ``[1, 3, H, W]``: the whole UNet for each step, one after the other."""
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, dim=0)
    noise = torch.randn(1, *image.shape[1:], generator=torch.Generator().manual_seed(40)).to(image.device)
    found: list[list[Tensor]] = []
    with torch.no_grad():
        for step in steps:
            noised = float(abar[step].sqrt()) * image + float((1 - abar[step]).sqrt()) * noise
            found.append(unet(noised, torch.tensor([step], device=image.device), blocks)[1])
    return [torch.cat([one[k] for one in found], dim=1) for k in range(len(blocks))]


# --- the head ----------------------------------------------------------------------------------------------


class ReferenceAttention(nn.Module):
    """Every pixel asks the tokens, step by step: queries, keys and values in full, their products, the softmax, the output."""

    def __init__(self, dim: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_k = nn.Linear(text_dim, heads * head_dim, bias=False)
        self.to_v = nn.Linear(text_dim, heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim), nn.LayerNorm(dim))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = (self._apart(part) for part in (self.to_q(x), self.to_k(tokens), self.to_v(tokens)))
        weight = torch.softmax(torch.bmm(q, k.transpose(1, 2)) * q.shape[-1] ** -0.5, dim=-1)
        read = torch.bmm(weight, v)
        return self.to_out(read.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2))

    def _apart(self, x: Tensor) -> Tensor:
        """``[B, N, heads * d]`` -> ``[B * heads, N, d]``, copied."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()


class ReferenceBlock(nn.Module):
    """Two attentions and a linear layer, with the names of the authors' checkpoint."""

    def __init__(self, dim: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.attn1 = ReferenceAttention(dim, text_dim, heads, head_dim)
        self.ff = nn.ModuleDict({"net": nn.Sequential(nn.GELU(), nn.Dropout(0.0), nn.Linear(dim, dim))})
        self.attn2 = ReferenceAttention(dim, text_dim, heads, head_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = self.attn1(self.norm1(x), tokens) + x
        x = self.attn2(self.norm2(x), tokens) + x
        return self.ff["net"](self.norm3(x)) + x


class ReferenceHead(nn.Module):
    """The authors' pixel classifier; its state dict is what ``TextDiffHead.load_official`` takes.

    ``channels``: of the four maps; the first scale has a 1x1 convolution of its own, the later ones share one, and a map of
    ``dim`` channels needs none. Sizes other than the authors' are for tests.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_dim: int = 768,
        dim: int = 768,
        hidden: tuple[int, int] = (128, 32),
        heads: int = 8,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        self.dim, (wide, narrow) = dim, hidden
        self.decodes = nn.Sequential(
            *(nn.Conv2d(dim * len(channels), wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()),
            nn.Conv2d(narrow, 2, 3, padding=1),
        )
        self.cross1 = ReferenceBlock(dim, text_dim, heads, head_dim)
        later = {width for width in channels[1:] if width != dim}
        self.down1 = nn.Conv2d(channels[0], dim, 1)
        self.down2 = nn.Conv2d(later.pop(), dim, 1) if later else None
        for module in self.modules():
            _draw(module)

    def forward(self, maps: Sequence[Tensor], tokens: Tensor, side: int = 256) -> Tensor:
        """Logits ``[1, 2, side, side]`` of the maps of one image and its tokens ``[1, L, text_dim]``."""
        read = []
        for k, h in enumerate(maps):
            if h.shape[1] != self.dim:
                down = self.down1 if k == 0 else self.down2
                assert down is not None
                h = down(h)
            height, width = h.shape[-2:]
            pixels = self.cross1(h.flatten(2).transpose(1, 2), tokens)
            h = pixels.transpose(1, 2).reshape(1, -1, height, width)
            read.append(F.interpolate(h, size=(side, side), mode="bilinear", align_corners=False))
        return self.decodes(torch.cat(read, dim=1))


def _draw(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def reference_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy + 1.5 x Dice loss of the raw logits, summed over the batch and averaged over both classes."""
    dice = logits.new_zeros(())
    for label in range(2):
        score, truth = logits[:, label], (target == label).float()
        overlap, sizes = (score * truth).sum(), (score * score).sum() + (truth * truth).sum()
        dice = dice + 1 - (2 * overlap + 1e-5) / (sizes + 1e-5)
    return F.cross_entropy(logits, target) + 1.5 * dice / 2


# --- one image, and the loop -------------------------------------------------------------------------------


def reference_tokens(text: TextEncoder, caption: str, device: torch.device) -> Tensor:
    """Tokens ``[1, L, D]`` of one caption, read anew; with ``text``'s own length and padding, no mask."""
    pieces = text.tokenizer(
        caption, truncation=True, padding="max_length", max_length=text.max_length, return_tensors="pt"
    )
    with torch.no_grad():
        ids, mask = (torch.as_tensor(pieces[name]).reshape(1, -1) for name in ("input_ids", "attention_mask"))
        hidden = text.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden.to(device)


class ReferenceTextDiff:
    """Image and caption to logits, and the training of the head, one image at a time. The text encoder stays on the CPU."""

    def __init__(
        self, unet: ReferenceUNet, text: TextEncoder, head: ReferenceHead, blocks: Sequence[int], steps: Sequence[int]
    ) -> None:
        self.unet, self.text, self.head, self.blocks, self.steps = unet, text, head, blocks, steps

    def __call__(self, image: Tensor, caption: str) -> Tensor:
        tokens = reference_tokens(self.text, caption, image.device)
        return self.head(reference_features(self.unet, image, self.blocks, self.steps), tokens, image.shape[-1])

    def train(
        self, samples: Sequence[tuple[Tensor, Tensor, str]], numbers: Sequence[int], rate: float = 1e-4
    ) -> list[float]:
        """The loss at every step: Adam on one sample ``(image [3, H, W], mask [H, W], caption)`` each, of these numbers."""
        self.head.train()
        optimiser, losses = torch.optim.Adam(self.head.parameters(), lr=rate), []
        for number in numbers:
            image, mask, caption = samples[number]
            loss = reference_loss(self(image[None], caption), mask[None])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses


# --- pre-training as it was --------------------------------------------------------------------------------


def reference_pretraining(unet: ReferenceUNet, batches: Iterable[Tensor]) -> list[float]:
    """The loss at every step of a plain loop over crops ``[B, 3, S, S]`` on the CPU; ``unet.state`` is trained in place.

    Noise is drawn on the CPU, the figures of each step are read before the next, the averages of weights follow one by one.
    """
    weights = list(unet.state.values())
    averages = [value.detach().clone() for value in weights]
    optimiser, losses = torch.optim.AdamW(weights, lr=4e-4, weight_decay=0.0), []
    device, abar = weights[0].device, torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), dim=0)
    for step, crops in enumerate(batches):
        generator = torch.Generator().manual_seed(1_000_003 + step)
        noise = torch.randn(crops.shape, generator=generator).to(device)
        timesteps = torch.randint(STEPS, (len(crops),), generator=generator)
        level = abar[timesteps].float().to(device)[:, None, None, None]
        noised = (level.sqrt() * crops.to(device) + (1 - level).sqrt() * noise).to(memory_format=torch.channels_last)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            predicted, _ = unet(noised, timesteps.to(device))
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        losses.append(torch.stack([loss.detach(), norm]).tolist()[0])
        optimiser.step()
        with torch.no_grad():
            for mean, value in zip(averages, weights, strict=True):
                mean.lerp_(value, 0.001)
    return losses
