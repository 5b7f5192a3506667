"""What the label latent of a TextDiffSeg holds. In: a trained model and labelled volumes. Out: tables of Dice (notebook 21).

Nothing is sampled and nothing is trained: true labels are encoded, decoded, exchanged, noised, and guessed in one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.patches import TrainingVolumes
from textdiff.evaluation.metrics import case_scores
from textdiff.models.textdiffseg import STRIDE, TextDiffSeg

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
WAYS = ("decoded as it is", "denoised in one step")


class LatentStudy:
    """The clean latents of whole volumes, and what the model's decoder and denoiser make of them.

    `model`: with text and label encoder (ValueError without); `cases`: volumes no larger than its window, asked for all
    structures; `seed`: of the noise. Attributes: `batch` (:class:`textdiff.data.volumes.patches.VolumeBatch`), `names` (the
    structures), `latent` ``[B, channels, X/4, Y/4, Z/4]``, `decoded` (its probabilities ``[B, num_classes, X, Y, Z]``).
    """

    def __init__(self, model: TextDiffSeg, cases: Sequence[VolumeCase], seed: int = 0) -> None:
        if model.text is None or model.fuse is None or not list(model.label_encoder.parameters()):
            raise ValueError("this asks about a model with text and label encoder, not about an ablation")
        volumes = TrainingVolumes(
            cases, model.class_names, model.preprocessing, patch=model.preprocessing.patch, single=0.0, augment=False,
            foreground=0.0, distances=True, seed=seed, progress=False,
        )  # fmt: skip
        self.model, self.text, self.fuse, self.seed = model, model.text, model.fuse, seed
        self.names = list(model.class_names[1:])
        self.batch = volumes.collate([volumes.sample(number) for number in range(len(cases))]).to(model.device)
        assert self.batch.distances is not None  # they were asked for
        self.distances = self.batch.distances
        self.latent, self.decoded = model.autoencoded(self.batch.labels, self.distances, self.batch.images)

    @cached_property
    def maps(self) -> list[Tensor]:
        """The image encoder's maps."""
        with torch.no_grad():
            return self.model.image_encoder(self.batch.images)

    def decode(self, latent: Tensor) -> Tensor:
        """Probabilities of latents that go with these images."""
        with torch.no_grad():
            return self.model.decoder(latent, self.maps).softmax(dim=1)

    def dice(self, probabilities: Tensor, labels: Tensor | None = None) -> pd.DataFrame:
        """Dice (0..1) with the true labels (or `labels`): one row per volume, nan where it lacks the structure."""
        truth = (self.batch.labels if labels is None else labels).cpu().numpy()
        found = probabilities.argmax(dim=1).cpu().numpy()
        rows = [
            [case_scores(a == k, b == k)["dice"] if (b == k).any() else np.nan for k in range(1, len(self.names) + 1)]
            for a, b in zip(found, truth, strict=True)
        ]
        return pd.DataFrame(rows, columns=self.names)

    def one_alone(self) -> pd.DataFrame:
        """Mean Dice of every structure (columns), decoded from the latent of one alone (rows)."""
        rows = {}
        for label, name in enumerate(self.names, start=1):
            only = torch.where(self.batch.labels == label, self.batch.labels, 0)
            distances = torch.full_like(self.distances, -1.0)
            distances[:, label - 1] = self.distances[:, label - 1]
            rows[name] = self.dice(self.model.autoencoded(only, distances, self.batch.images)[1]).mean()
        return pd.DataFrame(rows).T.rename_axis(index="latent of", columns="Dice of")

    def exchanged(self, shares: Sequence[float] = SHARES) -> pd.DataFrame:
        """Each volume's image with a growing share of the next one's latent: mean Dice with either's labels."""
        rows: dict[str, dict[float, float]] = {"own labels": {}, "the other volume's labels": {}}
        for share in shares:
            mixed = torch.lerp(self.latent, self.latent.roll(1, dims=0), share)
            found = self.decode(mixed / mixed.flatten(1).std(dim=1).reshape(-1, 1, 1, 1, 1))
            for name, labels in zip(rows, (self.batch.labels, self.batch.labels.roll(1, dims=0)), strict=True):
                rows[name][share] = float(self.dice(found, labels).mean(axis=1).mean())
        return pd.DataFrame(rows).T.rename_axis(index="Dice with", columns="share of the other volume's latent")

    def channels(self) -> pd.DataFrame:
        """How well each structure's share of a cell is told: by the nearest channel (correlation), and by all (R²)."""
        onehot = F.one_hot(self.batch.labels, len(self.names) + 1).movedim(-1, 1)[:, 1:].float()
        shares = F.avg_pool3d(onehot, STRIDE).movedim(1, -1).reshape(-1, len(self.names)).cpu().numpy()
        cells = self.latent.movedim(1, -1).reshape(-1, self.latent.shape[1]).cpu().numpy()
        inputs, rows = np.column_stack([cells, np.ones(len(cells))]), {}
        for share, name in zip(shares.T, self.names, strict=True):
            if share.std() > 0:
                along = [float(np.corrcoef(channel, share)[0, 1]) for channel in cells.T]
                best = int(np.abs(along).argmax())
                left = share - inputs @ np.linalg.lstsq(inputs, share, rcond=None)[0]
                told = 1 - float(left.var() / share.var())
                rows[name] = [best, round(along[best], 2), round(told, 2)]
        columns = ["nearest channel", "its correlation", "R² of all channels"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def noised(self, noise_steps: Sequence[int]) -> dict[int, Tensor]:
        """The latents noised to each of `noise_steps`, always with the same noise."""
        noise = torch.randn(self.latent.shape, generator=torch.Generator().manual_seed(self.seed)).to(self.latent)
        return {step: self.model.diffusion.add_noise(self.latent, noise, self._at(step)) for step in noise_steps}

    @torch.no_grad()
    def guess(self, noised: Tensor, step: int) -> Tensor:
        """The clean latent as the denoiser guesses it in one step, with image and sentence: the model's forward pass by hand."""
        tokens, mask = (part.to(self.model.device) for part in self.text(self.batch.prompts))
        fused = self.fuse(self.maps[-1], tokens, mask)
        padding = self.text.max_length - tokens.shape[1]
        context = F.pad(tokens * mask[..., None], (0, 0, 0, padding))
        output = self.model.denoiser(torch.cat([noised, fused], dim=1), self._at(step), context=context)
        return self.model.diffusion.clean(output, noised, self._at(step))

    def restored(self, noised: Mapping[int, Tensor]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What can be brought back from noised latents: the mean Dice by way (`WAYS`, rows) and noise step (columns), and per
        noise step the share of the latent's amplitude that is left and the squared errors of the noised latent and of the guess.
        """
        dice: dict[str, dict[int, float]] = {way: {} for way in WAYS}
        errors = {}
        for step, latent in noised.items():
            guess = self.guess(latent, step)
            for way, one in zip(WAYS, (latent, guess), strict=True):
                dice[way][step] = float(self.dice(self.decode(one)).mean(axis=1).mean())
            squares = [float((one - self.latent).square().mean()) for one in (latent, guess)]
            errors[step] = [f"{self.amplitude(step):.1%}", *(round(square, 3) for square in squares)]
        columns = ["amplitude left", "squared error of the noised latent", "squared error of the guess"]
        table = pd.DataFrame(dice).T.rename_axis(index="latent", columns="noised to step")
        return table, pd.DataFrame.from_dict(errors, orient="index", columns=columns).rename_axis("noise step")

    def amplitude(self, step: int) -> float:
        """The share of the latent's amplitude that is left at a noise step."""
        return float(self.model.diffusion.alphas_cumprod[step].sqrt())

    def _at(self, step: int) -> Tensor:
        return torch.full((len(self.latent),), step, device=self.model.device)
