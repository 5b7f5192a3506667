"""The `textdiff` command: words of a command line come in, calls of the package go out.

    textdiff fetch monuseg
    textdiff predict --model FOLDER --image slide.png --text "The nuclei are dense." --out mask.png
    textdiff predict --model FOLDER --volume ct.nii.gz --text "left kidney tumour" --out mask.nii.gz
    textdiff run 13 -p n_labels 10 -p seed 1
    textdiff train --config run.json
    textdiff sweep comparison -p dataset=monuseg --jobs 2
    textdiff publish --all

What is wrong with the input ends in one line on standard error and exit code 2; only a defect of the program
shows a traceback.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from textdiff.experiments.config import Config
    from textdiff.experiments.grids import Grid

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _readable(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that an input can cause into one line and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:  # a RuntimeError by descent
            raise
        except (ValueError, TypeError, OSError, RuntimeError, ImportError, FloatingPointError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"textdiff: {message}", err=True)
            raise typer.Exit(2) from None

    return wrapped


def _show_version(wanted: bool) -> None:
    if wanted:
        from textdiff import __version__

        typer.echo(f"textdiff {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Text-guided diffusion models for medical image segmentation."""


@app.command()
@_readable
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="Data set (monuseg, qata, hippocampus, liver_tumour, pancreas_tumour, colon_tumour) or weights (openai_256)."
        ),
    ],
    source: Annotated[
        Path | None, typer.Option(help="Archive, folder or file that is already on this machine.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder to bring it to (default: TEXTDIFF_DATA or TEXTDIFF_WEIGHTS).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew although it is there.")] = False,
) -> None:
    """Bring a data set or weights to this machine: checked, resumed after a break, whole or not at all."""
    from textdiff.data.fetch import fetch as bring
    from textdiff.data.registry import BACKBONES, MODELS

    if root is not None:
        os.environ["TEXTDIFF_WEIGHTS" if name in BACKBONES | MODELS else "TEXTDIFF_DATA"] = str(root)
    typer.echo(bring(name, source=source, force=force))


@app.command()
@_readable
def predict(
    model: Annotated[str, typer.Option(help="Folder of a trained model, or its name on the model hub.")],
    text: Annotated[str, typer.Option(help="The sentence about the image, or what to find in the volume.")],
    out: Annotated[Path, typer.Option(help="File for the labels: .png of an image, .nii or .nii.gz of a volume.")],
    image: Annotated[Path | None, typer.Option(help="Image file.")] = None,
    volume: Annotated[
        Path | None, typer.Option(help="NIfTI file, or folder with the slices of one DICOM series.")
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Volumes: .nii or .nii.gz for how unsure the model is, 0 to 1.")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option("--sampling-steps", "--steps", help="Volumes: denoising steps (default: 5).")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Volumes: ddim (default) or ddpm.")] = None,
    samples: Annotated[int | None, typer.Option(help="Volumes: how many times to draw (default: 1).")] = None,
    seed: Annotated[int | None, typer.Option(help="Volumes: of the noise (default: 0).")] = None,
    overlap: Annotated[float | None, typer.Option(help="Volumes: of neighbouring windows (default: 0.5).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Segment one image or one volume with one sentence; the labels come on its own grid.

    Their values are the numbers of the model's classes, 0 for background, whatever the sentence names. Of a volume,
    the names and the amounts found are listed.

    textdiff predict --model FOLDER --image slide.png --text "The nuclei are dense." --out mask.png

    textdiff predict --model FOLDER --volume ct.nii.gz --text "left kidney" --out mask.nii.gz --uncertainty u.nii.gz
    """
    settings = {"sampling_steps": sampling_steps, "sampler": sampler, "samples": samples, "seed": seed}
    given = {name: value for name, value in settings.items() if value is not None}
    how: dict[str, Any] = {} if overlap is None else {"overlap": overlap}
    if volume is not None and image is None:
        _check_volume_files(volume, out, uncertainty)
        _predict_volume(model, volume, text, out, uncertainty, given, how, device)
        return
    if image is None or volume is not None:
        raise ValueError("give either --image FILE or --volume FILE, one of the two")
    for_volumes = [*given, *how, *(["uncertainty"] if uncertainty else [])]
    if for_volumes:
        option = for_volumes[0].replace("_", "-")
        raise ValueError(f"--{option} is of volumes: it goes with --volume, not with --image")
    _check_files(image, out, (".png",))
    from textdiff import TextDiff
    from textdiff.base.precision import resolve_device
    from textdiff.data.images.masks import write_mask

    _check_kind(model, "features", "--volume")
    labels = TextDiff.from_pretrained(model, device=resolve_device(device)).predict(image, text)
    write_mask(labels, out, like=image)
    typer.echo(out)


# Typer has no option that takes two words and may be repeated: `-p NAME VALUE` is read from what it leaves
# over.
@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@_readable
def run(
    context: typer.Context,
    notebook: Annotated[str, typer.Argument(help="Number (13), name (13_textdiff) or path of a notebook.")],
    out: Annotated[Path | None, typer.Option(help="The executed copy (default: beside the results).")] = None,
) -> None:
    """Run a notebook, with -p NAME VALUE (or NAME=VALUE) for every parameter to change; all are checked before it starts.

    textdiff run 13 -p n_labels 10 -p seed 1 --out my_run.ipynb
    """
    from textdiff import notebooks
    from textdiff.base.paths import results_dir

    path = notebooks.find_notebook(notebook)
    values = notebooks.checked_parameters(path, read_pairs(context.args))
    target = out or results_dir() / "notebooks" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    notebooks.execute_notebook(path, target, values)
    typer.echo(target)


@app.command()
@_readable
def train(
    config: Annotated[Path, typer.Option(help="JSON file: the experiment's name and its parameters.")],
    out_dir: Annotated[Path | None, typer.Option(help="Folder of the record (default: TEXTDIFF_RESULTS).")] = None,
) -> None:
    """Make the run that a configuration file describes: train, test, record. A recorded run is not made again.

    The config.json of a record is such a file.
    """
    from textdiff.experiments.places import kept_model
    from textdiff.experiments.run import make_run

    settings = read_config(config)
    run = make_run(settings, out_dir or "")
    if kept_model(settings.run_id).is_dir():
        typer.echo(f"model: {kept_model(settings.run_id)}", err=True)
    typer.echo(run.folder)


@app.command()
@_readable
def sweep(
    name: Annotated[str, typer.Argument(metavar="GRID", help="Table whose runs to make, such as comparison.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="dataset=..."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, such as 0,1,2 (default: the grid's).")] = None,
    rows: Annotated[str | None, typer.Option(help='Labels of rows, such as "TextDiff,U-Net" (default: all).')] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the run notebook (13, 22) in all runs."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
) -> None:
    """Make all runs of a table that have no record yet, each in a process of its own; one that fails does not stop the rest.

    textdiff sweep comparison -p dataset=monuseg --seeds 0,1,2 --jobs 2
    """
    from textdiff.experiments import sweep as runs

    grid = read_grid(name, read_assignments(parameters or []), seeds)
    if changes:
        grid = grid.changed(typed(grid.kind, read_assignments(changes)))
    planned = runs.plan(grid.only(runs.split_labels(rows, grid)) if rows else grid)
    if dry_run:
        typer.echo(runs.described(planned))
        return
    _end_as_ctrl_c("SIGTERM", "SIGHUP")
    try:
        outcomes = runs.sweep(planned, jobs, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped: finished runs are recorded, and the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(runs.summary(outcomes))
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
@_readable
def publish(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID]...", help="Records to publish.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All records that may be published.")] = False,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Also records made with files that no commit holds.")
    ] = False,
) -> None:
    """Copy finished records to results/published, without captions and pictures of real data.

    Exit code 1 when a record that was named is refused.
    """
    from textdiff.experiments.publish import publish as copy

    verdicts = copy(run_ids or [], everything, allow_dirty)
    for verdict in verdicts:
        typer.echo(f"{verdict.state:9}  {verdict.run_id}" + (f": {verdict.reason}" if verdict.reason else ""))
    if run_ids and any(verdict.state == "refused" for verdict in verdicts):
        raise typer.Exit(1)


def read_assignments(words: list[str]) -> dict[str, str]:
    """["seed=1", ...] -> {"seed": "1", ...}.

    Raises ValueError for a word without "=" and for a name given twice.
    """
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"do not understand {word!r}: it goes as NAME=VALUE")
        if name in pairs:
            raise ValueError(f"parameter {name} is given twice")
        pairs[name] = value
    return pairs


def read_grid(name: str, parameters: dict[str, str], seeds: str | None) -> Grid:
    """The grid of a name, of dataset=..., and of seeds such as "0,1,2" (None: the grid's own).

    Raises ValueError naming what there is: grids, data sets.
    """
    from textdiff.base.parsing import numbers
    from textdiff.data import registry
    from textdiff.experiments.grids import grid

    for given in parameters:
        if given != "dataset":
            raise ValueError(
                f"-p takes dataset=..., not {given}: a parameter of all runs is --set NAME=VALUE, draws are --seeds 0,1"
            )
    if "dataset" not in parameters:
        known = (*registry.names("images"), *registry.names("volumes"))
        raise ValueError(f"of which data set? -p dataset=..., one of {', '.join(known)}")
    draws = None if seeds is None else numbers(seeds)
    if draws == ():
        raise ValueError("--seeds needs at least one number, such as 0,1,2")
    return grid(name, parameters["dataset"], draws)


def typed(kind: type[Config], given: dict[str, str]) -> dict[str, Any]:
    """Parameters of all runs of a grid with the types that the configuration class gives them.

    Raises ValueError for an unknown name, a wrong type, or a name that chooses the grid's runs.
    """
    from textdiff.experiments.config import parameters_of, unknown_parameter

    known, values = parameters_of(kind), {}
    for name, text in given.items():
        if name in ("dataset", "mode", "seed"):
            raise ValueError(
                f"--set cannot change {name}: -p dataset=... and --seeds 0,1 choose the runs, and all are in full mode"
            )
        if name not in known or name in kind.derived:
            raise ValueError(unknown_parameter(kind, name))
        values[name] = known[name].read(text)
    return values


def read_config(path: Path) -> Config:
    """The configuration in a JSON file.

    Raises ValueError for a file that is none, or that was made with other weights than those of the same name here.
    """
    from textdiff.base.checkpoints import read_json
    from textdiff.experiments.catalogue import BY_EXPERIMENT

    values = read_json(path)
    cls = BY_EXPERIMENT.get(str(values.pop("experiment", "")))
    if cls is None:
        raise ValueError(f"{path} says no experiment: one of {', '.join(BY_EXPERIMENT)}")
    recorded = {name: values.pop(name) for name in cls.derived if name in values}
    config = cls.from_params(**values)
    for name, value in recorded.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{path}: {cls.derived[name]}={getattr(config, cls.derived[name])!r} has other weights here "
                f"({getattr(config, name)}) than in the file ({value})"
            )
    return config


def _end_as_ctrl_c(*names: str) -> None:
    """These signals, where the system has them, end the program as Ctrl-C does; one that is ignored (nohup) stays so."""
    for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def read_pairs(words: list[str]) -> dict[str, str]:
    """["-p", "seed", "1", "-p", "mode=demo", ...] -> {"seed": "1", "mode": "demo", ...}: papermill's form and that of `sweep`.

    Raises ValueError for anything else and for a name given twice.
    """
    rest, given = iter(words), []
    for option in rest:
        name = next(rest, "")
        value = "" if "=" in name else next(rest, None)
        if option not in ("-p", "--parameter") or not name or value is None:
            wrong = " ".join(word for word in (option, name, value) if word)
            raise ValueError(f"do not understand {wrong!r}: parameters go as -p NAME VALUE or -p NAME=VALUE")
        given.append(name if "=" in name else f"{name}={value}")
    return read_assignments(given)


def _check_files(source: Path, out: Path, suffixes: tuple[str, ...], option: str = "--out") -> None:
    """What can be said of the files before anything is loaded."""
    what = "image file" if suffixes == (".png",) else "volume"
    if not (source.is_file() or (what == "volume" and source.is_dir())):
        raise FileNotFoundError(f"no {what} {source}")
    if not out.name.lower().endswith(suffixes):
        lossy = ", because labels survive no lossy format" if what == "image file" else ""
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}{lossy}; got {out}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} for {option}")
    if out.resolve() == source.resolve():
        raise ValueError(f"{option} {out} would replace the {what} itself")


def _check_volume_files(volume: Path, out: Path, uncertainty: Path | None) -> None:
    _check_files(volume, out, (".nii", ".nii.gz"))
    if uncertainty is not None:
        _check_files(volume, uncertainty, (".nii", ".nii.gz"), "--uncertainty")
        if uncertainty.resolve() == out.resolve():
            raise ValueError(f"--out and --uncertainty are the same file {out}")


def _check_kind(model: str, key: str, instead: str) -> None:
    """Refuse a folder whose config.json lacks what every model of the wanted kind has."""
    from textdiff.base.checkpoints import read_json
    from textdiff.data import registry

    known = registry.MODELS.get(model)
    if known is not None and (known.kind == "TextDiff") != (key == "features"):
        raise ValueError(f"{model} is a {known.kind}, a model of another kind of input: use {instead}")
    config = Path(model) / "config.json"
    if config.is_file() and key not in read_json(config):
        raise ValueError(f"{model} holds no model of this kind of input: try {instead}")


def _predict_volume(
    model: str,
    volume: Path,
    text: str,
    out: Path,
    uncertainty: Path | None,
    given: dict[str, Any],
    how: dict[str, Any],
    device: str,
) -> None:
    """Segment, write and list; the labels are written last, so that where they are, everything is."""
    from textdiff import TextDiffSeg
    from textdiff.base.precision import resolve_device
    from textdiff.data.volumes import volume as volumes
    from textdiff.models.diffusion import Sampling

    sampling = Sampling(**given)
    _check_kind(model, "preprocessing", "--image")
    with _messages_as_lines():
        trained = TextDiffSeg.from_pretrained(model, device=resolve_device(device))
        asked = {"uncertainty": uncertainty is not None, "progress": sys.stderr.isatty()}
        found = trained.predict(volume, text, sampling, **asked, **how)
    if uncertainty is not None and found.uncertainty is not None:
        volumes.write_image(uncertainty, found.uncertainty)
    volumes.write_labels(out, found.labels)
    for number, name in enumerate(found.class_names[1:], start=1):
        typer.echo(f"{number} {name}: {_amounts(found.volumes_ml[name])}", err=True)
    typer.echo(out)


def _amounts(samples: Sequence[float]) -> str:
    """Such as "12.34 ml", or "12.34 ml (11.02 to 14.15 in 5 samples)"."""
    mean = f"{sum(samples) / len(samples):.2f} ml"
    if len(samples) == 1:
        return mean
    return f"{mean} ({min(samples):.2f} to {max(samples):.2f} in {len(samples)} samples)"


@contextmanager
def _messages_as_lines() -> Iterator[None]:
    """What the inference warns of or logs for the user comes as lines on standard error, without places in the code."""
    logger = logging.getLogger("textdiff.models.inference")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("textdiff: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where, **more: typer.echo(f"textdiff: {message}", err=True)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


if __name__ == "__main__":
    app()
