"""What the book's page to try shows. In: shipped models, their published records, the data. Out: numbers, and small pictures in a folder.

Three parts, each a dictionary that goes into a page as JSON: :func:`films`, :func:`features` and :func:`volume`. Nobody
chooses what is shown: cases stand at fixed places in the order of their Dice in the record (:func:`at_shares`).
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from textdiff.data import registry
from textdiff.data.images.captions import other_sentences
from textdiff.experiments.qualitative import Row
from textdiff.experiments.records import published_dir, read_table
from textdiff.figures import style
from textdiff.figures.images import as_picture, block_step_grid, pca_rgb, qualitative_grid, words_over_images

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from textdiff.data.cases import Case
    from textdiff.data.volumes.volume import Volume

RECORDS = {
    "qata_small": "textdiff2d/qata-textdiff-n150-s0-corrected-a5fa9129",
    "monuseg_small": "textdiff2d/monuseg-textdiff-n5-s0-corrected-de2b2ceb",
    "chest_64": "blocks_steps/qata-chest_64-n20-s0-6262c4f5",
    "hippocampus_small": "textdiffseg3d/hippocampus-textdiffseg-all-s0-e035dfb6",
    "chest_phantoms_small": "textdiff2d/chest_phantoms-textdiff-n60-s0-corrected-3a7f234a",
    "abdomen_small": "textdiffseg3d/abdomen_phantoms-textdiffseg-n40-s1-aa4ac70f",
}
SHARES = {"worst": 0.0, "tenth": 0.1, "median": 0.5, "ninetieth": 0.9}  # of the test films, from the worst to the best
SENTENCES = {
    "own": "dice",
    "swapped": "dice_swapped",
    "shuffled": "dice_shuffled",
    "empty": "dice_empty",
}  # record's columns
SIDE = 128  # pixels of a film: what the model sees
CELL = 32  # pixels of an attention map: the finer of the two maps that read
TILE = 64  # pixels of a picture of features
COLUMNS = 12  # tiles of a sprite in a row
STEPS = (0, 50, 150, 250, 500, 900)  # the record has not measured the last
UNIT = 10  # outlines are told in tenths of a pixel
LEVELS = 64  # steps of strength of the attention's colour
SAMPLES = 8  # draws behind the uncertainty
MARGIN = 8  # voxels that are shown around what is marked


def record_table(model: str) -> pd.DataFrame:
    """The per-case table of the published record that belongs to a shipped model or backbone."""
    return read_table(published_dir() / RECORDS[model] / "per_case.csv")


def median_case(model: str) -> str:
    """The test case in the middle of the order of Dice in the record of a shipped model."""
    return at_shares(record_table(model).set_index("case")["dice"], {"median": 0.5})["median"]


def median_of(model: str, cases: Sequence[Any]) -> Any:
    """The one of ``cases`` that :func:`median_case` names."""
    name = median_case(model)
    return next(case for case in cases if case.name == name)


def at_shares(dice: pd.Series, shares: Mapping[str, float]) -> dict[str, str]:
    """Names of the cases at ``shares`` (0 the worst, 1 the best) of their order by ``dice``, which has them as its index."""
    order = dice.sort_values(kind="stable").index
    return {name: str(order[round(share * (len(order) - 1))]) for name, share in shares.items()}


def outline(field: np.ndarray, side: int = SIDE) -> str:
    """The border of where ``field [H, W]`` is above 0, as an SVG path in a square of ``side * UNIT``; "" where nothing is.

    It runs between the pixels' centres where linear interpolation is 0. Corners that move it by less than a quarter of a pixel are left out.
    """
    from contourpy import contour_generator
    from skimage.measure import approximate_polygon

    height, width = field.shape
    low = min(-1.0, float(field.min()))
    padded = np.pad(np.asarray(field, dtype=np.float64), 1, constant_values=low)
    path = ""
    for line in contour_generator(z=padded).lines(0.0):
        corners = approximate_polygon(np.asarray(line) - 0.5, 0.25) * (side / width, side / height)
        points = (np.clip(corners, 0, side) * UNIT).round().astype(int)
        moves = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0)[:-1])
        path += f"M{points[0, 0]} {points[0, 1]}l{moves}z" if moves else ""
    return path


def films(folder: Path) -> dict[str, Any]:
    """Test films under four sentences: outlines, Dice, and where each word of the own sentence is read.

    Writes a picture of each film and ``attention.png``: one cell of `CELL` pixels a word, the colour as strong as the attention.
    Dice is that of the whole film at 256 pixels, as in the record.
    """
    from textdiff.experiments import images
    from textdiff.experiments.pages import QualitativeConfig

    config = QualitativeConfig.from_params(mode="full", dataset="qata", device="cpu")
    model, settings, data = images.saved_model(config, "qata_small")
    model.text.allow_empty = True  # type: ignore[union-attr]
    cases = images.test_cases(settings, data)
    place = {case.name: i for i, case in enumerate(cases)}
    others = other_sentences(cases, settings.seed)
    shown: list[dict[str, Any]] = []
    cells: list[np.ndarray] = []
    rows: list[Row] = []
    for key, name in at_shares(record_table("qata_small").set_index("case")["dice"], SHARES).items():
        case = cases[place[name]]
        texts = {"own": case.caption} | {kind: others[kind][place[name]] for kind in SENTENCES if kind != "own"}
        answers = [
            {"kind": kind, "text": text, **_answer(model, settings, data, case, text)} for kind, text in texts.items()
        ]
        words, maps = _attention(model, case)
        read = maps[_read(words)]
        told = {"key": key, "share": SHARES[key], "case": name, "picture": f"film_{key}.webp"}
        told |= {
            "truth": outline(soft_mask(case.mask())),
            "sentences": answers,
            "words": _words(words, maps, len(cells)),
        }
        small_film(case).save(folder / f"film_{key}.webp", quality=92, method=6)
        shown.append(told)
        cells += list(read / read.max())
        masks = {kind: images.mask_of(model, settings, data, case, text) for kind, text in texts.items()}
        rows.append((key, case.image(), case.mask(), masks))
        if key == "median":
            seen = words_over_images([(case.image(), case.mask(), case.caption, words, maps)], 4)
            _still(seen, folder / "still_attention.webp")
    _sprite_of_attention(cells, folder / "attention.png")
    _still(qualitative_grid(rows), folder / "still_sentences.webp")
    about = {"side": SIDE * UNIT, "cell": CELL, "columns": COLUMNS, "sprite": "attention.png", "films": shown}
    return _about("qata_small", registry.MODELS["qata_small"].sha256) | about


def features(folder: Path) -> dict[str, Any]:
    """The median film as every block of the frozen backbone sees it at every noise step, and the recorded Dice of a linear probe.

    Writes ``features.webp``, a row of tiles a block (three principal components as colours, comparable within a row), and
    ``noised.webp``, the film at each step. ``dice``: blocks by steps, mean over the record's draws; None where nothing is recorded.
    """
    import torch

    from textdiff.data import load_dataset
    from textdiff.data.images.transforms import ImageSpec
    from textdiff.evaluation.probe import by_block_and_step
    from textdiff.models.features import DiffusionFeatures
    from textdiff.models.store import load_backbone

    case = median_of("qata_small", load_dataset("qata").test)
    unet = load_backbone("chest_64")
    seen = DiffusionFeatures(unet, range(len(unet.output_blocks)), STEPS)
    image = ImageSpec(SIDE).input(case.image())[None]
    maps = [one[0].chunk(len(STEPS)) for one in seen(image)]
    noise, steps = seen.noise(image.shape[1:]), torch.tensor(STEPS)
    noised = seen.diffusion.add_noise(image.repeat(len(STEPS), 1, 1, 1), noise, steps)
    tiles = [_tile(picture) for row in maps for picture in pca_rgb(list(row))]
    _montage(tiles, len(STEPS)).save(folder / "features.webp", quality=60, method=6)
    _montage([_tile(as_picture(one)) for one in noised], len(STEPS)).save(folder / "noised.webp", quality=60, method=6)
    few = {block: dict(zip(STEPS[:4], maps[block][:4], strict=True)) for block in (1, 4, 7)}
    _still(block_step_grid(few, image[0]), folder / "still_features.webp")
    table = record_table("chest_64")
    measured = {key: by_block_and_step(rows) for key, rows in table.groupby("backbone")}
    dice = {
        key: [[_recorded(one, block, step) for step in STEPS] for block in seen.blocks] for key, one in measured.items()
    }
    shapes = [[int(side) for side in row[0].shape] for row in maps]
    about = {"case": case.name, "steps": list(STEPS), "shapes": shapes, "tile": TILE, "dice": dice["chest_64"]}
    about |= {"untrained": dice["redrawn:chest_64"], "sprite": "features.webp", "noised": "noised.webp"}
    return _about("chest_64", registry.BACKBONES["chest_64"].sha256) | about


def volume(folder: Path) -> dict[str, Any]:
    """The median test volume of the hippocampus model, its truth, and labels and uncertainty under three sentences.

    Arrays are uint8 [X, Y, Z] growing to the patient's right, front and head, cropped to `MARGIN` voxels around what is marked, packed by
    gzip and base64: ``image`` from the 1st to the 99.9th percentile, label maps, ``uncertainty`` 0 (sure) to 255 (all classes
    alike) in sixteen steps. Dice is of each structure that was asked for, in the whole volume.
    """
    from textdiff.data.volumes.prompts import prompt
    from textdiff.data.volumes.volume import turned
    from textdiff.experiments import volumes
    from textdiff.experiments.pages import QualitativeVolumesConfig
    from textdiff.figures.volumes import slices

    config = QualitativeVolumesConfig.from_params(mode="full", dataset="hippocampus", device="cpu")
    model, settings, data = volumes.saved_model(config, "hippocampus_small")
    case = median_of("hippocampus_small", data.test)
    image, truth = case.pair()
    structures = list(data.class_names[1:])
    asked = {prompt("class", some): some for some in ([structures[0]], [structures[1]], structures)}
    segment = volumes.segmenter(model, settings)
    found = {text: segment(image, text) for text in asked}
    _still(
        slices(image, found[prompt("class", structures)], truth, class_names=data.class_names),
        folder / "still_volume.webp",
    )
    upright = turned(image).array
    low, high = np.percentile(upright, [1, 99.9])
    marked = [turned(one).array for one in (truth, *found.values())]
    box = box_around(np.max(marked, axis=0))
    answers = [
        {
            "text": text,
            "dice": _dice_of(model, settings, data, case, text, wanted),
            "labels": _packed(turned(found[text]).array[box]),
            "uncertainty": _packed((_doubt(model, settings, image, text)[box] * 15).round() * 17),
        }
        for text, wanted in asked.items()
    ]
    shape = list(upright[box].shape)
    about = {"case": case.name, "shape": shape, "structures": structures, "samples": SAMPLES, "answers": answers}
    about |= {"colours": list(style.STRUCTURES[: len(structures)]), "truth": _packed(marked[0][box])}
    about |= {"image": _packed(np.clip((upright[box] - low) / (high - low), 0, 1) * 255)}
    return _about("hippocampus_small", registry.MODELS["hippocampus_small"].sha256) | about


def box_around(marked: np.ndarray) -> tuple[slice, ...]:
    """What is marked in ``[X, Y, Z]``, with `MARGIN` voxels around it as far as there are any."""
    from textdiff.evaluation.surfaces import foreground_box

    return tuple(slice(max(0, one.start - MARGIN), one.stop + MARGIN) for one in foreground_box(marked, marked))


def unpacked(packed: str, shape: Sequence[int]) -> np.ndarray:
    """The array uint8 of ``shape`` behind one of :func:`volume`'s texts."""
    return np.frombuffer(gzip.decompress(base64.b64decode(packed)), dtype=np.uint8).reshape(shape)


def _about(model: str, sha256: str) -> dict[str, Any]:
    return {"model": model, "sha256": sha256, "record": RECORDS[model]}


def _packed(array: np.ndarray) -> str:
    pixels = np.ascontiguousarray(np.asarray(array).round(), dtype=np.uint8)
    return base64.b64encode(gzip.compress(pixels.tobytes(), mtime=0)).decode()


def _recorded(table: pd.DataFrame, block: int, step: int) -> float | None:
    return round(float(table.loc[block, step]), 4) if step in table.columns else None


def small_film(case: Case) -> Image.Image:
    """The film of a case in grey, at `SIDE` pixels."""
    return Image.fromarray(case.image()).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def soft_mask(mask: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A mask as a field of ``side`` pixels that is above 0 where more than half of a pixel is marked."""
    share = Image.fromarray((mask > 0).astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(share) - 0.5


def _answer(model: Any, settings: Any, data: Any, case: Case, text: str) -> dict[str, Any]:
    """The outline of what the model marks with a sentence, and its Dice."""
    import torch

    from textdiff.experiments import images

    with torch.no_grad(), model.features.caching(None):
        logits = model(model.image.input(case.image())[None], [text])[0].numpy()
    dice = float(images.score(model, settings, data, [case], [text], progress=False)["dice"][0])
    return {"dice": round(dice, 4), "outline": outline(logits[1] - logits[0])}


def _dice_of(model: Any, settings: Any, data: Any, case: Any, text: str, wanted: Sequence[str]) -> dict[str, float]:
    """Dice of the structures that a sentence asks for."""
    from textdiff.evaluation.volumes import column
    from textdiff.experiments import volumes

    row = volumes.score(model, settings, data, [case], [text], surfaces=False, progress=False).iloc[0]
    return {one: round(float(row[f"dice_{column(one)}"]), 4) for one in wanted}


def _doubt(model: Any, settings: Any, image: Volume, text: str) -> np.ndarray:
    """Uncertainty 0..1 of `SAMPLES` draws, [X, Y, Z] to the right, the front and the head."""
    from textdiff.data.volumes.volume import turned
    from textdiff.models.diffusion import Sampling
    from textdiff.models.inference import segment_volume

    several = Sampling(settings.sampling_steps, settings.sampler, SAMPLES, settings.seed)
    found = segment_volume(model, image, text, several, uncertainty=True, progress=False).uncertainty
    assert found is not None
    return turned(found).array


def _attention(model: Any, case: Case) -> tuple[list[str], np.ndarray]:
    words = model.text.words(case.caption)
    with model.features.caching(None):
        maps = model.attention(model.image.input(case.image())[None], [case.caption], (CELL, CELL))[0]
    return words, maps[: len(words)].numpy()


def _read(words: Sequence[str]) -> list[int]:
    """Places of the words, without punctuation and the encoder's own marks."""
    return [i for i, word in enumerate(words) if word.isalnum()]


def _words(words: Sequence[str], maps: np.ndarray, first: int) -> list[dict[str, Any]]:
    """Words and punctuation in their order; a word has its cell in the sprite and its attention, mean and most over the film."""
    cells = {place: first + i for i, place in enumerate(_read(words))}
    listed: list[dict[str, Any]] = []
    for i, word in enumerate(words[1:-1], start=1):
        mean, most = (round(float(value), 4) for value in (maps[i].mean(), maps[i].max()))
        listed.append({"word": word} | ({"cell": cells[i], "mean": mean, "most": most} if i in cells else {}))
    return listed


def _sprite_of_attention(cells: Sequence[np.ndarray], file: Path) -> None:
    """One colour, as opaque as the attention of each cell (0..1)."""
    strength = [np.clip((cell * (LEVELS - 1)).round(), 0, LEVELS - 1).astype(np.uint8) for cell in cells]
    sprite = _montage([Image.fromarray(one) for one in strength], COLUMNS)
    shown = Image.fromarray(np.asarray(sprite), mode="P")
    shown.putpalette([int(style.SERIES[4][i : i + 2], 16) for i in (1, 3, 5)] * LEVELS)
    shown.save(file, transparency=bytes(round(225 * i / (LEVELS - 1)) for i in range(LEVELS)), optimize=True)


def _tile(picture: np.ndarray) -> Image.Image:
    """A picture float [h, w, 3] in 0..1 at `TILE` pixels: coarse maps keep their cells."""
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    how = Image.Resampling.NEAREST if image.height < TILE else Image.Resampling.BOX
    return image.resize((TILE, TILE), how)


def _montage(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    side, rows = tiles[0].height, -(-len(tiles) // columns)
    sheet = Image.new(tiles[0].mode, (side * columns, side * rows))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (side * (i % columns), side * (i // columns)))
    return sheet


def _still(figure: Figure, file: Path) -> None:
    """A figure for readers without scripts."""
    figure.savefig(file, dpi=90, bbox_inches="tight", pil_kwargs={"quality": 70, "method": 6})
