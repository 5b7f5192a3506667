"""What the page to try is made of: shipped models, their records and the real data come in, book/_static/explore/ goes out.

    python tools/make_explore.py        # needs QaTa-COV19 and the MSD's hippocampi (book/data.md), and half a minute

Numbers go into .js files that a page loads with <script>, which works without a server too; pictures are small thumbnails.
Run it again when one of the models is replaced: a test compares the SHA-256 in here with the shipped weights.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from textdiff.data import registry
from textdiff.report import explore

TARGET = Path(__file__).resolve().parents[1] / "book/_static/explore"
README = """# Pictures and numbers of the page to try

Made by `python tools/make_explore.py` from the shipped models; nothing here is drawn or chosen by hand.

**Films** (`film_*.webp`, `noised.webp`, `features.webp`, `attention.png`, `still_*.webp` but the volume's; all made from them): test films
of QaTa-COV19 v2 ([source]({qata.home})), at 128 pixels, with the sentences of LViT as cleaned by SGSeg. Licence: {qata.licence}; the
thumbnails and what is drawn over them come under the same licence. Chosen by rule: by the Dice of `qata_small` in the record `{films[record]}`.

| place in the order, worst to best | case |
|---|---|
{rows}

**Volume** (`volume.js`, `still_volume.webp`): test volume `{volume[case]}` of the Medical Segmentation Decathlon, Task04 ([source]({msd.home})), its
grey values brought to 8 bits. Licence: {msd.licence}; what is made from it comes under the same licence. Chosen by rule: the middle one by Dice in the record `{volume[record]}`.

The outlines, labels and maps are answers of research models. They are no diagnoses.
"""


def main() -> None:
    """Make all anew beside the old folder, then put it in its place."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as place:
        folder = Path(place) / "explore"
        folder.mkdir()
        parts = {"films": explore.films(folder), "features": explore.features(folder), "volume": explore.volume(folder)}
        for name, part in parts.items():
            text = json.dumps(part, separators=(",", ":"), ensure_ascii=False)
            (folder / f"{name}.js").write_text(f"textdiffExplore.{name} = {text};\n", encoding="utf-8")
        films = parts["films"]["films"]
        rows = "\n".join(f"| {100 * film['share']:.0f} % ({film['key']}) | `{film['case']}` |" for film in films)
        about = {"qata": registry.dataset("qata"), "msd": registry.dataset("hippocampus"), "rows": rows, **parts}
        (folder / "README.md").write_text(README.format(**about), encoding="utf-8")
        shutil.rmtree(TARGET, ignore_errors=True)
        os.replace(folder, TARGET)
    for file in sorted(TARGET.iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
