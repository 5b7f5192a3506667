"""The `textdiff` command: words of a command line come in, calls of the package go out.

    textdiff example qata_small --out try_it
    textdiff fetch monuseg
    textdiff check data/MoNuSeg
    textdiff predict --model FOLDER --image slide.png --text "The nuclei are dense." --out mask.png
    textdiff predict --model FOLDER --volume ct.nii.gz --text "left kidney tumour" --out mask.nii.gz
    textdiff run 13 -p n_labels 10 -p seed 1
    textdiff train --config run.json
    textdiff sweep comparison -p dataset=monuseg --jobs 2
    textdiff bundle comparison -p dataset=monuseg --out to_the_cluster
    textdiff publish --all

Whatever goes wrong ends in one line on standard error and exit code 2 (:mod:`textdiff.messages`); --debug shows the
traceback, too.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textdiff.messages import Commands, Debug, say

if TYPE_CHECKING:
    from textdiff.experiments.config import Config
    from textdiff.experiments.grids import Grid

app = Commands(no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        from textdiff import __version__

        typer.echo(f"textdiff {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Text-guided diffusion models for medical image segmentation."""
    atexit.register(gc.freeze)  # what was imported need not be looked through once more for garbage at the end
    if debug:
        context.default_map = {name: {"debug": True} for name in context.command.commands}  # type: ignore[attr-defined]


@app.command()
def example(
    model: Annotated[str, typer.Argument(help="A model that ships: qata_small, hippocampus_small, ...")],
    out: Annotated[Path, typer.Option(help="Folder to make: image, labels, truth, and a picture of all three.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an earlier example there.")] = False,
) -> None:
    """Try a shipped model on the real picture or volume that comes with it; no data, no network.

    Says the Dice, where the case comes from, and the commands that do the same by hand.

    textdiff example qata_small --out try_it

    textdiff example hippocampus_small --out try_it_3d
    """
    from textdiff.examples import show_example

    show_example(model, out, device=device, force=force)


@app.command()
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
    as_recorded: Annotated[
        bool,
        typer.Option(
            "--as-recorded",
            help="Of qata and hippocampus only the cases that the published records were made with, so that their draws come back.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Make it anew although it is there.")] = False,
) -> None:
    """Bring a data set or weights to this machine: checked, resumed after a break, whole or not at all."""
    from textdiff.data.fetch import fetch as bring
    from textdiff.data.registry import BACKBONES, MODELS

    if root is not None:
        os.environ["TEXTDIFF_WEIGHTS" if name in BACKBONES | MODELS else "TEXTDIFF_DATA"] = str(root)
    typer.echo(bring(name, source=source, force=force, as_recorded=as_recorded))


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set of pictures or volumes.")],
    dataset: Annotated[
        str, typer.Option(help="Read it as this data set (default: what its name or its layout say).")
    ] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here as well, as JSON.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file if it is there.")] = False,
) -> None:
    """Read a whole data set and list everything that is wrong with it: file, case, fault, what to do.

    Exit code 0 without faults (there may be warnings), 1 with. What was read is remembered: a second check is quick.

    textdiff check data/Task04_Hippocampus --dataset hippocampus --json report.json
    """
    from textdiff.base.files import write_text
    from textdiff.base.outputs import check_output
    from textdiff.data.folders import check_folder

    if json_file is not None:
        check_output(json_file, "--json", inputs=[folder], force=force)
    report = check_folder(folder, dataset)
    typer.echo(report.table())
    if json_file is not None:
        write_text(json_file, report.to_json())
    if report.faults:
        raise typer.Exit(1)


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="Folder of a trained model, or its name on the model hub.")],
    out: Annotated[
        Path,
        typer.Option(
            help="File for the labels: .png of an image; .nii, .nii.gz or .dcm of a volume. Of a folder: a folder."
        ),
    ],
    text: Annotated[
        str | None,
        typer.Option(help="The sentence about the image, or what to find in the volume; of a folder: in all."),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Folders: .csv, .tsv or .xlsx with a row (name, text) for every case.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Image file, or a folder of them.")] = None,
    volume: Annotated[
        Path | None,
        typer.Option(
            help="NIfTI file, folder with the slices of a DICOM series, or a folder of such files and folders."
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Volumes: .nii or .nii.gz for how unsure the model is, 0 to 1.")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option("--sampling-steps", "--steps", help="Volumes: denoising steps (default: 2).")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Volumes: ddim (default) or ddpm.")] = None,
    samples: Annotated[int | None, typer.Option(help="Volumes: how many times to draw (default: 1).")] = None,
    seed: Annotated[int | None, typer.Option(help="Volumes: of the noise (default: 0).")] = None,
    overlap: Annotated[float | None, typer.Option(help="Volumes: of neighbouring windows (default: 0.5).")] = None,
    trust: Annotated[
        str | None, typer.Option(help="Volumes whose header says two grids: take that of its sform or its qform.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Volumes: which DICOM series of several, its UID or its number in the list.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse what would be warned of: values unlike the training's, words not known."),
    ] = False,
    only_named: Annotated[
        bool,
        typer.Option("--only-named/--all-found", help="Volumes: write what the sentence names, or all that is found."),
    ] = True,
    as_written: Annotated[
        bool,
        typer.Option(
            "--as-written", help="Volumes: do not ask a second time, in plain names (a good half of the time)."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    jobs: Annotated[int, typer.Option(help="Folders: cases at the same time, each in a process with the model.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Segment one image or one volume with one sentence, or a folder of them; the labels come on their own grid.

    Their values are the numbers of the model's classes, 0 for background. Of a volume, only what the sentence names is
    written unless --all-found is given, and the amounts are listed. Files that are there are kept unless --force is given.

    textdiff predict --model FOLDER --image slide.png --text "The nuclei are dense." --out mask.png

    textdiff predict --model FOLDER --volume ct.nii.gz --text "left kidney" --out mask.nii.gz --uncertainty u.nii.gz

    textdiff predict --model FOLDER --image films --texts reports.csv --out masks --jobs 2

    A folder goes on where it was stopped; what became of each case stands in OUT/predictions.csv, and a case that fails
    does not stop the others.
    """
    from textdiff.predicting import Pictures, Solids, predict_one
    from textdiff.predicting_folders import Sentences, is_folder_of, predict_folder

    source = image or volume
    if source is None or (image and volume):
        raise ValueError("give either --image FILE or --volume FILE, one of the two")
    if trust not in (None, "sform", "qform"):
        raise ValueError(f"--trust {trust}: sform or qform")
    steps = {"sampling_steps": sampling_steps, "sampler": sampler, "samples": samples, "seed": seed}
    sampling = {name: value for name, value in steps.items() if value is not None}
    reading = {name: value for name, value in {"trust": trust, "series": series}.items() if value is not None}
    options: dict[str, Any] = {"overlap": overlap} if overlap is not None else {}
    options |= {"strict": True} if strict else {}
    options |= {} if only_named else {"only_named": False}
    options |= {"ask_again": False} if as_written else {}
    if image is not None:
        asked = [*sampling, *reading, *(name for name in options if name != "strict")]
        asked += ["uncertainty"] if uncertainty else []
        if asked:
            option = {"only_named": "all-found", "ask_again": "as-written"}.get(asked[0], asked[0].replace("_", "-"))
            raise ValueError(f"--{option} is of volumes: it goes with --volume, not with --image")
    task = Pictures(model, device, strict) if image else Solids(model, device, sampling, reading, options)
    sentences = Sentences(text, texts)
    if is_folder_of(task, source, out):
        predict_folder(task, source, sentences, out, uncertainty, jobs=jobs, force=force)
    elif jobs != 1 or texts is not None:
        raise ValueError(f"--{'texts' if texts else 'jobs'} goes with a folder of cases and a folder for --out")
    else:
        predict_one(task, source, sentences.of_all, out, uncertainty, force)
    typer.echo(out)


# Typer has no option that takes two words and may be repeated: `-p NAME VALUE` is read from what it leaves
# over.
@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    notebook: Annotated[str, typer.Argument(help="Number (13), name (13_textdiff) or path of a notebook.")],
    out: Annotated[
        Path | None, typer.Option(help="The executed copy, .ipynb (default: beside the results, named after the run).")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier copy of the same notebook there (of --out).")
    ] = False,
) -> None:
    """Run a notebook, with -p NAME VALUE (or NAME=VALUE) for every parameter to change; all are checked before it starts.

    textdiff run 13 -p n_labels 10 -p seed 1 --out my_run.ipynb
    """
    from textdiff import notebooks
    from textdiff.base.outputs import check_output
    from textdiff.base.paths import results_dir

    path = notebooks.find_notebook(notebook)
    values = notebooks.checked_parameters(path, read_pairs(context.args))
    if out is not None and out.suffix != ".ipynb":
        raise ValueError(f"--out must end in .ipynb; got {out}")
    target = out or results_dir() / "notebooks" / notebooks.copy_name(path, values)
    target.parent.mkdir(parents=True, exist_ok=True)
    option = "--out" if out else "the executed copy (TEXTDIFF_RESULTS)"
    check_output(target, option, inputs=[path], force=force or out is None)
    notebooks.check_replaced(path, target)
    notebooks.check_inputs(path, values)
    notebooks.execute_notebook(path, target, values)
    typer.echo(target)


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="JSON file: the experiment's name and its parameters.")],
    out_dir: Annotated[Path | None, typer.Option(help="Folder of the record (default: TEXTDIFF_RESULTS).")] = None,
) -> None:
    """Make the run that a configuration file describes: train, test, record. A recorded run is not made again.

    The config.json of a record is such a file. Several processes train together where a launcher starts them:

    python -m accelerate.commands.launch --multi_gpu --num_processes 8 -m textdiff train --config run.json
    """
    from textdiff.base.processes import processes

    if not processes().main:
        os.environ["TQDM_DISABLE"] = "1"  # one bar for all
    from textdiff.experiments.places import kept_model
    from textdiff.experiments.run import make_run

    settings = read_config(config)
    run = make_run(settings, out_dir or "")
    if not processes().main:
        return
    if (kept := kept_model(settings.run_id)).is_dir():
        what = "model" if (kept / "config.json").is_file() else "weights of the network"
        typer.echo(f"{what}: {kept}", err=True)
    typer.echo(run.folder)


@app.command()
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
    retries: Annotated[int, typer.Option(help="How often a run that failed is tried again.")] = 1,
    published: Annotated[
        bool, typer.Option("--published", help="Also runs with a published record: their weights are made here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
) -> None:
    """Make all runs of a table that have no record yet, each in a process of its own; one that fails does not stop the rest.

    Runs whose data or weights are not here are left out, and the exit code is 1.

    textdiff sweep comparison -p dataset=monuseg --seeds 0,1,2 --jobs 2
    """
    from textdiff.experiments import sweep as runs

    grid = read_grid(name, read_assignments(parameters or []), seeds, rows, read_assignments(changes or []))
    planned = runs.plan(grid, published)
    if dry_run:
        typer.echo(runs.described(planned))
        return
    planned = runs.check(planned, typer.echo)
    table = runs.table_path(grid)
    _end_as_ctrl_c("SIGTERM", "SIGHUP")
    try:
        outcomes = runs.sweep(planned, jobs, typer.echo, retries, table)
    except KeyboardInterrupt:
        typer.echo("stopped: finished runs are recorded, and the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(runs.summary(outcomes))
    typer.echo(f"table:  {table}")
    if command := runs.again(outcomes):
        typer.echo(f"again:  {command}")
    if any(outcome.state in ("failed", runs.LACKING) for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def bundle(
    name: Annotated[str, typer.Argument(metavar="GRID", help="Table whose runs to pack, such as comparison.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="dataset=..."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="As of `textdiff sweep`.")] = None,
    rows: Annotated[str | None, typer.Option(help="As of `textdiff sweep`.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="As of `textdiff sweep`.")
    ] = None,
    part_mb: Annotated[int, typer.Option(help="Megabytes of a part at most.")] = 1000,
    wheels: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE|none",
            help="Wheels of all that the package needs: a folder, a file of requirements to download (env/requirements-cuda.txt), or none.",
        ),
    ] = "none",
) -> None:
    """Pack runs of a table with code, weights and data for a machine without network, where run_here.sh makes them.

    textdiff bundle comparison -p dataset=monuseg --wheels env/requirements-cuda.txt --out to_the_cluster

    The records come back as records.tar.gz: unpack it in results/.
    """
    from textdiff import bundling
    from textdiff.experiments import sweep as runs

    words = [name, *(word for one in parameters or [] for word in ("-p", one))]
    words += [word for one in changes or [] for word in ("--set", one)]
    words += [*(("--seeds", seeds) if seeds else ()), *(("--rows", rows) if rows else ())]
    planned = runs.plan(
        read_grid(name, read_assignments(parameters or []), seeds, rows, read_assignments(changes or []))
    )
    bundling.bundle(planned, words, out, part_mb, wheels, lambda line: typer.echo(line, err=True))
    typer.echo(out)


@app.command()
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
    from textdiff.base.paths import results_dir
    from textdiff.experiments.publish import publish as copy

    verdicts = copy(run_ids or [], everything, allow_dirty)
    if not verdicts:
        say(f"no finished record in {results_dir()} (TEXTDIFF_RESULTS): there is nothing to publish")
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


def read_grid(
    name: str,
    parameters: dict[str, str],
    seeds: str | None = None,
    rows: str | None = None,
    changes: dict[str, str] | None = None,
) -> Grid:
    """The grid that the words of a command mean, here and in workflow/Snakefile.

    dataset=... in ``parameters``; ``seeds`` such as "0,1,2" (None: the grid's own); ``rows``: labels of those that are wanted
    (None: all); ``changes``: parameters of all runs. Raises ValueError naming what there is: grids, data sets, rows, parameters.
    """
    from textdiff.base.parsing import numbers
    from textdiff.data import registry
    from textdiff.experiments.grids import grid
    from textdiff.experiments.sweep import split_labels

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
    table = grid(name, parameters["dataset"], draws)
    if changes:
        table = table.changed(typed(table.kind, changes))
    return table.only(split_labels(rows, table)) if rows else table


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
    from textdiff.base.files import read_json
    from textdiff.experiments.catalogue import BY_EXPERIMENT

    values = read_json(path)
    cls = BY_EXPERIMENT.get(str(values.pop("experiment", "")))
    if cls is None:
        raise ValueError(f"{path} says no experiment: one of {', '.join(BY_EXPERIMENT)}")
    recorded = {name: values.pop(name) for name in cls.derived if name in values}
    config = cls.from_params(**values)
    for name, value in recorded.items():
        found, source = getattr(config, name), cls.derived[name]
        if found != value:
            said = f"{path}: {source}={getattr(config, source)!r}"
            if found == getattr(config, source):
                raise ValueError(f"{said} has no weights here; in the file they are {value}")
            took = f"a copy of the file without {name!r} takes those that are here"
            raise ValueError(f"{said} has other weights here ({found}) than in the file ({value}); {took}")
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


if __name__ == "__main__":
    app()
