"""Train the small text encoder that ships with the package (textdiff/assets/tiny_bert).

In:  nothing but a seed. The captions come from the grammar below: synthetic, no patient's text.
Out: a folder in BERT's own form: config.json, vocab.txt, tokenizer_config.json, model.safetensors (float16)
     and a card README.md with the accuracy on held-out captions.

    python tools/train_text_encoder.py

The grammar writes captions of QaTa-COV19's and MoNuSeg's kind (LViT's sentences), freer sentences on chest
films and stained tissue, and findings of CT reports. Counts, sides and places agree with one another inside a
caption ("three infected areas" is followed by three places), so that a hidden word can be told from the
others.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import math
import os
import random
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

COMMAND = "tools/train_text_encoder.py"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
}
MASK = SPECIAL.index("[MASK]")
BATCH, PEAK_RATE, SPELLED_OUT = 64, 1e-3, 0.03
HIDDEN, CHANGED, KEPT = 0.15, 0.03, 0.12

# --- the grammar --------------------------------------------------------------------------------------------

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ZONES = ["upper", "middle", "lower"]
SIDES = ["left", "right"]
OTHER_SIDE = {"left": "right", "right": "left"}
PLACES = ["upper left", "upper right", "lower left", "lower right", "upper", "lower", "left", "right"]
OPPOSITE = {"upper": "lower", "lower": "upper", "left": "right", "right": "left"}
SIZES = ["tiny", "small", "medium-sized", "large", "very large"]
FINDINGS = ["tumour", "tumor", "mass", "lesion", "cyst", "nodule", "metastasis"]
PLURALS = {"metastasis": "metastases", "mass": "masses", "opacity": "opacities"}
ORGAN_PARTS = {
    "left kidney": ["upper pole", "lower pole", "middle third", "cortex", "hilum", "anterior part", "posterior part"],
    "right kidney": ["upper pole", "lower pole", "middle third", "cortex", "hilum", "anterior part", "posterior part"],
    "liver": ["left lobe", "right lobe", "caudate lobe", "dome", *(f"segment {n}" for n in range(1, 9))],
    "pancreas": ["head", "neck", "body", "tail", "uncinate process"],
    "colon": ["ascending part", "transverse part", "descending part", "sigmoid part", "left flexure", "right flexure"],
    "spleen": ["upper pole", "lower pole", "hilum"],
    "hippocampus": ["anterior part", "posterior part", "head", "body", "tail"],
    "left lung": ["upper lobe", "lower lobe", "lingula", "apex", "base"],
    "right lung": ["upper lobe", "middle lobe", "lower lobe", "apex", "base"],
}
CLASSES = [
    *ORGAN_PARTS,
    *("gall bladder", "gallbladder", "stomach", "duodenum", "aorta", "inferior vena cava", "oesophagus", "bladder"),
    *("prostate", "uterus", "heart", "trachea", "small bowel", "portal vein", "left adrenal gland"),
    *("right adrenal gland", "kidney", "lung", "lungs", "kidneys", "brain", "nuclei", "nucleus", "background"),
]


def plural(noun: str) -> str:
    """The noun's plural."""
    return PLURALS.get(noun, noun + "s")


def listed(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def infection(rng: random.Random) -> str:
    """A caption of QaTa-COV19's kind; one in four uncleaned (capitals, "all", spacing, a misspelling)."""
    raw = rng.random() < 0.25
    sides = rng.choice([["left"], ["right"], SIDES, SIDES])
    count, places = 0, []
    for side in sides:
        zones = (
            ["all"] if raw and rng.random() < 0.3 else [z for z in ZONES if rng.random() < 0.55] or [rng.choice(ZONES)]
        )
        count += len(zones)
        places.append(" ".join(zones) + f" {side} lung")
    kind = "bilateral" if len(sides) == 2 else "unilateral"
    areas = "one infected area" if count == 1 else f"{NUMBERS[count]} infected areas"
    if not raw:
        return f"{kind} pulmonary infection, {areas}, {' and '.join(places)}."
    gap, middle = rng.choice([" ", "", "  "]), rng.choice(["middle", "middle", "midlle"])
    return f"{kind.capitalize()} pulmonary infection, {areas},{gap}{' and '.join(places)}.".replace("middle", middle)


def chest(rng: random.Random) -> str:
    """A freer sentence on a chest film."""
    side, zone = rng.choice(SIDES), rng.choice(ZONES)
    noun = rng.choice(["opacity", "consolidation", "infiltrate", "shadow"])
    texture = rng.choice(["hazy", "dense", "faint", "patchy", "round"])
    count = rng.randint(2, 6)
    disease = rng.choice(["pleural effusion", "pneumothorax", "pneumonia", "atelectasis"])
    other = OTHER_SIDE[side]
    return rng.choice(
        [
            f"a {texture} {noun} in the {zone} {side} lung.",
            f"{NUMBERS[count]} {texture} {plural(noun)} in the {side} lung.",
            f"{plural(noun)} in the {zone} zones of both lungs, bilateral.",
            f"the {side} lung is clear; the {other} lung shows a {texture} {noun} in the {zone} zone.",
            f"unilateral {noun}, {side} lung only, the {other} lung is clear.",
            f"{disease} on the {side} side.",
            "no infected area, both lungs are clear.",
        ]
    )


def nuclei(rng: random.Random) -> str:
    """A caption of MoNuSeg's kind, or one with more said on number, size, stain and place."""
    place, spread = rng.choice(PLACES), rng.choice(["evenly", "sparsely", "irregularly", "densely"])
    across = " ".join(OPPOSITE[word] for word in place.split())
    size, shape = rng.choice(SIZES), rng.choice(["round", "oval", "elongated", "spindle-shaped", "irregular"])
    where = rng.choice(["in the centre", "around the vessels", "around the glands", "around the edge"])
    few = {"sparsely": "few", "densely": "many"}.get(spread, "several")
    return rng.choice(
        [
            f"The nuclei are {spread} distributed.",
            f"The nuclei density in the {place} is {rng.choice(['high', 'high', 'low'])}.",
            f"The nuclei density is higher {rng.choice(['around', where, f'in the {place}'])}.",
            f"The nuclei density is high in the {place} and low in the {across}.",
            f"{few} {size} nuclei, {spread} distributed.",
            f"the nuclei are {size} and {shape}, with {rng.choice(['dark', 'pale'])} staining.",
            f"a cluster of {shape} nuclei in the {place}; the {across} is empty.",
            f"{NUMBERS[rng.randint(2, 10)]} {shape} nuclei in the {place} of the picture.",
        ]
    )


def finding(rng: random.Random) -> str:
    """A sentence of a CT report: what, how many, how large, where."""
    organ = rng.choice(list(ORGAN_PARTS))
    count = rng.choice([1, 1, 1, 2, 2, 3])
    parts = rng.sample(ORGAN_PARTS[organ], count)
    noun, size, centimetres = (rng.choice(FINDINGS), rng.choice(SIZES), f"{rng.randint(0, 9)}.{rng.randint(0, 9)} cm")
    if count > 1:
        places = listed([f"one in the {part}" for part in parts])
        return rng.choice(
            [
                f"{NUMBERS[count]} {plural(noun)} in the {organ}, {places}.",
                f"the {organ} contains {NUMBERS[count]} {size} {plural(noun)}, {places}.",
            ]
        )
    part = parts[0]
    look = rng.choice(["hypodense", "hyperdense", "enhancing", "cystic", "solid"])
    side = organ.split()[0] if organ.split()[0] in SIDES else ""
    return rng.choice(
        [
            f"a {noun} in the {part} of the {organ}.",
            f"a {size} {noun} in the {part} of the {organ}, {centimetres} across.",
            f"{organ} with a {noun} of {centimetres} in the {part}.",
            f"one {look} {noun}, {part} of the {organ}.",
            f"the {organ} contains a {size} {noun} in its {part}; no other {plural(noun)}.",
            f"no {noun} in the {organ}.",
            f"the {side} kidney holds a {noun}, the {OTHER_SIDE[side]} kidney is normal."
            if organ.endswith("kidney")
            else f"{organ}: {size} {noun}, {part}.",
        ]
    )


def anatomy(rng: random.Random) -> str:
    """An organ's name or a sentence on where it lies, true of anybody."""
    name = rng.choice(CLASSES)
    side, where = rng.choice(SIDES), rng.choice(["abdomen", "chest", "pelvis", "brain"])
    above = "spleen" if side == "left" else "liver"
    return rng.choice(
        [
            name,
            f"the {name}",
            f"{rng.choice(['segment', 'outline', 'find', 'show'])} the {name}.",
            f"{name} in {rng.choice(['an abdominal CT', 'a CT scan', 'an MR scan', 'the image'])}.",
            f"{name} and {rng.choice(FINDINGS)}",
            "the liver lies in the upper right abdomen, under the diaphragm.",
            "the spleen lies in the upper left abdomen, behind the stomach.",
            f"the {side} kidney lies on the {side} side of the spine, below the {above}.",
            "the pancreas lies behind the stomach, its head to the right and its tail to the left.",
            f"the {side} lung fills the {side} side of the chest.",
            f"organs of the {where}: {listed(rng.sample(CLASSES, 3))}.",
        ]
    )


FAMILIES: dict[str, tuple[float, Callable[[random.Random], str]]] = {
    "infection (QaTa-COV19's kind)": (0.25, infection),
    "chest film": (0.12, chest),
    "nuclei (MoNuSeg's kind)": (0.23, nuclei),
    "CT finding": (0.28, finding),
    "anatomy": (0.12, anatomy),
}


def captions(seed: int) -> Iterator[tuple[str, str]]:
    """Endless (family, caption) pairs, the same for the same seed."""
    rng = random.Random(seed)
    names, weights = list(FAMILIES), [weight for weight, _ in FAMILIES.values()]
    while True:
        name = rng.choices(names, weights)[0]
        caption = FAMILIES[name][1](rng)
        yield name, caption if rng.random() < 0.9 else caption.rstrip(".")


def held_out(caption: str) -> bool:
    """One caption in ten, chosen by its words alone and never trained on, whatever its case and spacing."""
    words = "".join(caption.lower().split()).rstrip(".")
    return hashlib.sha256(words.encode()).digest()[0] < 26


def corpus(n: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Draw `n` captions -> (pairs to train on, as often as they were drawn; held-out pairs, each once)."""
    train, test, seen = [], [], set()
    for _, (family, caption) in zip(range(n), captions(seed), strict=False):
        if not held_out(caption):
            train.append((family, caption))
        elif caption not in seen:
            seen.add(caption)
            test.append((family, caption))
    return train, test


# --- the tokenizer ------------------------------------------------------------------------------------------


def alphabet() -> list[str]:
    """Lower-case characters of captions; each gets a piece, so that a strange word is spelled, not lost."""
    letters = string.ascii_lowercase + string.digits
    return [*letters, *string.punctuation, *"αβγδεμµ×±°²³–—’‘“”≤≥ßæøœ½"]


def make_vocabulary(captions: list[str]) -> list[str]:
    """WordPiece vocabulary: every word of the captions, every character, and parts that three words or more share.

    The same captions give the same vocabulary, which the trainers of `tokenizers` do not promise.
    """
    from tokenizers import normalizers, pre_tokenizers

    lower, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    sentences = {lower.normalize_str(caption) for caption in captions}
    words = {word for sentence in sentences for word, _ in split.pre_tokenize_str(sentence)}
    parts = collections.Counter(
        part
        for word in words
        for part in {word[a:b] for a in range(len(word)) for b in range(a + 2, min(a + 6, len(word)) + 1)}
    )
    shared = {"##" + part for part, count in parts.items() if count >= 3 and part.isalpha()}
    characters = {*alphabet(), *("##" + character for character in alphabet())}
    return SPECIAL + sorted(words | shared | characters)


def spelled_out(caption: str, rng: random.Random) -> str:
    """The caption with a few words misspelled (a letter dropped or doubled): pieces are learned so."""
    words = caption.split(" ")
    for i, word in enumerate(words):
        if len(word) > 3 and rng.random() < SPELLED_OUT:
            at = rng.randrange(1, len(word) - 1)
            words[i] = word[:at] + rng.choice(["", word[at] * 2]) + word[at + 1 :]
    return " ".join(words)


# --- masked-language modelling -----------------------------------------------------------------------------


def hide(ids: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hide, change and keep words of `ids` [B, L] by chance -> (what the model sees [B, L], labels [B, L]).

    The labels are -100 where nothing is asked. More words are asked unchanged than in BERT, so that every state holds
    on to its own word and not only to what the neighbours make likely ("two" and "three" would grow alike).
    """
    fate = torch.rand(ids.shape, generator=generator).masked_fill(ids < len(SPECIAL), 1.0)
    noise = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator)
    seen = torch.where(fate < HIDDEN + CHANGED, noise, ids)
    seen = torch.where(fate < HIDDEN, torch.full_like(ids, MASK), seen)
    return seen, torch.where(fate < HIDDEN + CHANGED + KEPT, ids, torch.full_like(ids, -100))


def padded(rows: list[list[int]]) -> Tensor:
    """Rows of ids -> [B, longest], padded with [PAD] = 0."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def train(model: torch.nn.Module, rows: list[list[int]], steps: int, seed: int) -> None:
    """AdamW over batches of captions of like length; the rate warms up, then falls as a cosine."""
    rows = sorted(rows, key=len)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    model.train()
    start, running = time.perf_counter(), 0.0
    for step in range(steps):
        share = step / steps
        rate = PEAK_RATE * min(share / 0.1, 0.5 + 0.5 * math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = rate
        first = rng.randrange(len(rows) - BATCH)
        ids = padded(rows[first : first + BATCH])
        seen, labels = hide(ids, model.config.vocab_size, generator)
        loss = model(input_ids=seen, attention_mask=(ids > 0).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running = 0.98 * running + 0.02 * loss.item() if step else loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {running:.3f} {time.perf_counter() - start:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model: torch.nn.Module, rows: list[list[int]], seed: int) -> tuple[int, int]:
    """(hidden words named rightly, hidden words) of the rows, each under five masks drawn from the seed."""
    rows = rows * 5
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    right = asked = 0
    for first in range(0, len(rows), 256):
        ids = padded(rows[first : first + 256])
        seen, labels = hide(ids, model.config.vocab_size, generator)
        best = model(input_ids=seen, attention_mask=(ids > 0).long()).logits.argmax(-1)
        right += int(((best == labels) & (seen == MASK)).sum())
        asked += int((seen == MASK).sum())
    return right, asked


# --- the folder ---------------------------------------------------------------------------------------------

CARD = """---
license: mit
language: en
---
# tiny_bert: the small text encoder of the demo mode

A BERT encoder with {layers} layers of {hidden} channels, {heads} heads, {vocabulary} word pieces (lower case)
and {positions} positions; {parameters:,} parameters, stored as float16 ({megabytes:.1f} MB) and used in
float32. It exists so that demonstrations and tests run without a network, through the same code as any
Hugging Face encoder. It has read nothing but the sentences described below and is no clinical language model:
for results use `emilyalsentzer/Bio_ClinicalBERT` or another encoder trained on clinical text.

## Training data

Synthetic: {n_train:,} captions ({n_distinct:,} distinct) written by the grammar in
`tools/train_text_encoder.py`. No patient's text was used. The kinds of caption: {families}.
Numbers, sides and places agree with one another inside a caption.

## Training

Masked-language modelling: {hidden_words:.0%} of the words hidden, {changed:.0%} exchanged for others, {kept:.0%}
asked as they are. {steps} steps of {batch} captions, AdamW, peak rate {rate}, seed {seed}; {minutes:.0f} minutes on one thread of
a shared processor (a free one needs about five). Made with

    {command}

The same seed, library versions and kind of processor give the same weights.

## Held-out captions

One distinct caption in ten is kept out of training altogether. Share of their hidden words that the model
names rightly ({n_test:,} distinct captions, five masks each); beside it the share got by always naming the
commonest word of that kind of caption:

| kind of caption | hidden words | right | commonest word |
|---|---|---|---|
{rows}

Many hidden words cannot be known from the rest of the caption (a side, a size, an organ), so 100 % is out of
reach.

## Licence

MIT, as the package.
"""


def evaluate(
    model: torch.nn.Module, pairs: list[tuple[str, list[int]]], seed: int
) -> list[tuple[str, int, float, float]]:
    """Held-out (family, ids) -> rows (family, hidden words, accuracy, the commonest word's accuracy)."""
    table, total, naive_total, asked_total = [], 0, 0.0, 0
    for family in FAMILIES:
        rows = [ids for name, ids in pairs if name == family]
        right, asked = accuracy(model, rows, seed)
        counts = collections.Counter(i for row in rows for i in row if i >= len(SPECIAL))
        naive = counts.most_common(1)[0][1] / sum(counts.values())
        table.append((family, asked, right / asked, naive))
        total, asked_total, naive_total = total + right, asked_total + asked, naive_total + naive * asked
    return [*table, ("all", asked_total, total / asked_total, naive_total / asked_total)]


def write_folder(out: Path, model: torch.nn.Module, vocabulary: list[str], config: dict, card: str) -> None:
    """Write the encoder (without the word-guessing head) to `out`, each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in model.bert.state_dict().items()}
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": config["max_position_embeddings"],
    }
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        temporary = Path(folder)
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")
        (temporary / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(card, encoding="utf-8")
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors makes files that only their owner may read
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(file, out / file.name)


def make_card(args: argparse.Namespace, model: torch.nn.Module, n_test: int, table: list, minutes: float) -> str:
    """The model card: what the encoder is, how it was made, what it knows."""
    pairs, _ = corpus(args.captions, args.seed)
    parameters = sum(p.numel() for p in model.bert.parameters())
    return CARD.format(
        layers=SHAPE["num_hidden_layers"],
        hidden=SHAPE["hidden_size"],
        heads=SHAPE["num_attention_heads"],
        positions=SHAPE["max_position_embeddings"],
        vocabulary=model.config.vocab_size,
        parameters=parameters,
        megabytes=parameters * 2 / 1e6,
        n_train=len(pairs),
        n_distinct=len({caption for _, caption in pairs}),
        families="; ".join(f"{name} {weight:.0%}" for name, (weight, _) in FAMILIES.items()),
        hidden_words=HIDDEN,
        changed=CHANGED,
        kept=KEPT,
        steps=args.steps,
        batch=BATCH,
        rate=PEAK_RATE,
        seed=args.seed,
        minutes=minutes,
        command=f"python {COMMAND} --steps {args.steps} --captions {args.captions} --seed {args.seed}",
        n_test=n_test,
        rows="\n".join(f"| {f} | {n:,} | {right:.1%} | {naive:.1%} |" for f, n, right, naive in table),
    )


def bert_tokenizer(vocabulary: list[str]) -> Callable[[list[str]], dict]:
    """The tokenizer as the package will load it: from the vocabulary file alone."""
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        return BertTokenizerFast.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "textdiff/assets/tiny_bert")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--captions", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    start = time.perf_counter()
    pairs, held_back = corpus(args.captions, args.seed)
    vocabulary = make_vocabulary([caption for _, caption in pairs])
    tokenizer = bert_tokenizer(vocabulary)
    rng = random.Random(args.seed)
    rows = tokenizer([spelled_out(caption, rng) for _, caption in pairs])["input_ids"]
    test_rows = tokenizer([caption for _, caption in held_back])["input_ids"]

    model = BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), **SHAPE))
    train(model, rows, args.steps, args.seed)
    model.half().float()  # what is scored is what is stored
    table = evaluate(model, list(zip([f for f, _ in held_back], test_rows, strict=True)), args.seed)
    card = make_card(args, model, len(held_back), table, (time.perf_counter() - start) / 60)
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(vocabulary), **SHAPE}
    write_folder(args.out, model, vocabulary, config, card)
    print(card[card.index("| kind") :])


if __name__ == "__main__":
    main()
