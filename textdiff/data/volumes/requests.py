"""Requests for structures of a volume: a person's sentence in, what it asks for and what it rules out.

Understood are the wordings of all prompts, sides and their abbreviations ("L kidney", "kidney (left)", "the left one, not the
right"), pairs and wholes ("both kidneys", "the whole hippocampus", "everything but the liver"), plurals, US and UK
spelling, slips of the pen, and what a sentence says is not wanted or not there ("no evidence of a tumour", "tumour-free").
The network reads the sentence itself; this reading only tells a person whether the answer is what was asked for.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from textdiff.data.volumes import wordings
from textdiff.data.volumes.wordings import LESIONS, SHORT_NAMES, SIDES, WORDINGS, organ_and_lesion, plain, wording_of

QUALIFIERS = (
    r"(?:\s|cell|ductal|cystic|solid|hypodense|hyperdense|enhancing|malignant|benign|primary|suspicious|small|large)*"
)
ARTICLES = r"(?:\s+(?:the|a|an|any|its|their|either|both|all|every|each|whole|entire|evidence|sign|signs|trace|of))*"
# Places beside which something lies: the structure that follows is not asked for.
LANDMARK = re.compile(
    r"(?:\b(?:below|under|underneath|beneath|above|behind|beside|near|around|outside|between|against|along)"
    r"|\b(?:next|adjacent|close|opposite) to|\bin front of|\bbetween\b[^.;]*\band"
    r"|\b(?:side|edge|level|region) of|\b(?:left|right) of)(?:\s+(?:the|a|an|any|its|each|both|whole|entire))*\s+$",
    re.IGNORECASE,
)
BELONGS = re.compile(
    r"\b(?:in|of|within|inside|at|from|on)(?:\s+(?:the|a|an|both|each|either))*\s+$|^\s*[(:]\s*$", re.IGNORECASE
)
PLACED = re.compile(r"\b(?:in|of|within|inside|at|from|on)(?:\s+(?:the|a|an|both|each|either))*\s+$", re.IGNORECASE)
PARTS = (
    r"(?:(?:upper|lower|middle|inner|outer|caudate|quadrate|left|right|front|rear|anterior|posterior)\s+)*"
    r"(?:poles?|lobes?|segments?(?:\s+\d{1,2}|\s+[ivx]{1,4})?|thirds?|hal(?:f|ves)|quarters?|tips?|cortex|medulla|pelvis|hilum"
    r"|ends?|head|neck|body|tail|uncinate process|fundus|antrum|wall|lumen|dome|arch)\b"
)
PART = re.compile(rf"\b({PARTS})\s+of(?:\s+(?:the|a|an|both))*\s+$", re.IGNORECASE)
PART_BEHIND = re.compile(rf"^(?:[’']s?)?\s+{PARTS}", re.IGNORECASE)
SENTENCE_END = re.compile(r"[;\n!?]|\.(?:\s|$)")

# --- what is ruled out ---------------------------------------------------------------------------------

CONTRAST = r"\s+(?:(?:i\.?v\.?|intravenous|oral)\s+)?contrast"  # "CT without contrast" rules nothing out
NOT_BEFORE = re.compile(
    rf"\b(?:(?:no(?!\s*[,.;])|without|w/o)(?!{CONTRAST})|none of|nothing (?:of|from)|zero|not|except(?:ing)?|exclud(?:e|es|ing)|other than|apart from|aside from|minus|neither|nor"
    r"|never|omit(?:ting)?|ignor(?:e|ing)|skip(?:ping)?|avoid(?:ing)?|leav(?:e|ing) out|drop(?:ping)?|rather than|instead of"
    r"|forget(?:ting)?|disregard(?:ing)?|discard(?:ing)?|remov(?:e|ing)|delet(?:e|ing)|hid(?:e|ing)|exempt(?:ing)?|sans|save for"
    r"|but leave|(?:resection|removal|excision|absence|agenesis) of"
    r"|absen(?:t|ce)|missing|lack(?:s|ing)?|negative for|free (?:of|from)|den(?:y|ies|ied)|ruled? out|resected|removed"
    r"|(?:every\w*|all|any\w*)(?:\s+\w+){0,2}\s+(?:but|besides|save|else than)|cannot)\b|\bn[o']t\b|(?<!\w)[!¬~]|≠|(?<=n)[’']t\b",
    re.IGNORECASE,
)
NEGATED = r"(?:\bno|\bdo?nt|\bnot|\bnever|n[’']t)"
NOT_NOT = re.compile(rf"{NEGATED}\s+(?:(?:to|ever|please)\s+)*$", re.IGNORECASE)  # "do not" before "forget the liver"
NOTHING_BUT = re.compile(  # what follows is all that is wanted
    rf"(?:\bno(?:thing|ne|body)?|{NEGATED}|\b(?:ignore|omit|skip|exclude|leave out|without|remove|delete|hide|drop))\b"
    r"[^,.;:]*\b(?:but|except(?:ing)?|other than|apart from|aside from|besides|save(?: for)?|else than)$",
    re.IGNORECASE,
)
MODAL = r"(?:is|are|was|were|has|have|had|do|does|did|can|could|may|might|shall|should|will|would|must|needs?|ought)"
SET_ASIDE = r"(?:excluded|excepted|omitted|ignored|skipped|dropped|disregarded|discarded|(?:left |taken )?out|un(?:marked|wanted|necessary))"
NOT_AFTER = re.compile(
    r"^[\s,:)]*(?:(?:ones?|parts?)\s+)?(?:"
    # "was resected", "must be left out", "are to stay unmarked"; what is to be resected is wanted
    rf"(?:(?:{MODAL}|be|been|already|both|surgically)\s+)*(?:absent|missing|gone|ruled out|resected|removed|no(?:t|ne)?(?=\s*(?:$|[.,;!)])))"
    rf"|(?:(?:{MODAL}|to|be|been|stay|remain|already|both)\s+)*(?:{SET_ASIDE}|of no (?:interest|concern|importance|use))"
    r"|(?:please\s+)?(?:skip|ignore|omit)(?=\s*(?:$|[.,;!)]))"
    rf"|(?:(?:{MODAL}\s+)?not|never|cannot|{MODAL}n[’']t|(?:can|won)[’']t)\s+(?:(?:have|need|going|ought)\s+)?(?:to\s+)?(?:be\s+)?"
    r"(?:seen|present|visible|there|wanted|needed|necessary|included|asked|required|relevant|important|interesting|marked|found|segmented"
    r"|delineated|outlined|drawn|contoured|traced|highlighted|labell?ed|selected|shown|matter|count|of interest|what (?:I|we)))\b",
    re.IGNORECASE,
)
FREE = re.compile(r"^s?[\s-]+free\b", re.IGNORECASE)
FREE_OR_BEARING = re.compile(r"^s?[\s-]+(?:free|bearing)\b", re.IGNORECASE)
SCOPE_END = re.compile(
    r"[;\n!?:]|\.(?:\s|$)|\b(?:but|however|only|just|yet|although|instead(?! of)|yes)\b"
    r"|(?:\band|,)\s+(?:then\s+)?(?:mark|segment|show|outline|find|draw|delineate|keep|take|want|give|highlight|locate|contour)\b",
    re.IGNORECASE,
)
SHORT_CUES = ("no", "not", "n't", "’t", "'t", "don't", "cannot")
LISTED = re.compile(r"\b(?:and|or|nor)\b|&|\+|/", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """What a sentence asks of a model. All tuples hold names that the model knows, but for `unknown`, `denied` and
    `parts`.

    asked, excluded: in the model's order; what is excluded is not asked for. unknown: structures that the sentence asks
    for and the model does not know; denied: that it rules out and the model does not know. parts: parts of an asked structure, which the model can only mark whole.
    spelled: (word as written, word as read). unread: words that may change what is meant, and were not understood.
    """

    asked: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    spelled: tuple[tuple[str, str], ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def understood(self) -> bool:
        """Whether the sentence says what is wanted or not, be it something that the model does not know."""
        return bool(self.asked or self.excluded or self.unknown or self.denied)


@dataclass(frozen=True)
class _Mention:
    """One place in a text: where, the structures meant (`names`), by which wording `slot`, and what kind of word it is."""

    start: int
    end: int
    names: tuple[str, ...]
    slot: int = 0
    lesion: str = ""  # "tumour" or "cyst" for a word that has to be bound to an organ
    adjective: bool = False
    side: str = ""  # "the right" that takes its organ from another mention
    organ: _Mention | None = None  # of a lesion bound to an organ that is named in its own words


def read_request(text: str, known: Sequence[str]) -> Request:
    """What a sentence asks of a model that knows the structures `known`.

    "Liver tumour" and "a mass in the right lobe of the liver" ask for the tumour, not the liver; "liver with a tumour"
    for both. "Left kidney" asks for "kidney" where sides are not told apart; "kidneys" for both sides where they are; "tumour"
    alone for every known tumour. A landmark ("below the liver") is not asked for.
    """
    text, spelled = _spelled_right(unicodedata.normalize("NFKC", text).replace("_", " "), tuple(known))
    asked: set[str] = set()
    excluded: set[str] = set()
    unknown: dict[str, None] = {}
    denied: dict[str, None] = {}
    parts: dict[str, None] = {}
    others: set[str] = set()  # ruled out by "everything": not what is asked for by name
    halves: dict[str, dict[str, str]] = {}
    sides: dict[str, dict[str, str]] = {}  # asked for of pairs that the model does not tell apart
    one_out: dict[str, str] = {}  # ruled out of such
    mentions = list(_mentions(text, tuple(known)))
    for mention in mentions:
        names = _known(mention, tuple(known))
        words, side = text[mention.start : mention.end], _untold_side(mention, names)
        if _ruled_out(text, mention, tuple(known)):
            if side:
                one_out |= dict.fromkeys(names, words)
                continue
            everything = plain(words) in wordings.EVERYTHING
            (others if everything else excluded).update(names)
            if not names:
                denied[words.lower()] = None
        elif not LANDMARK.search(PART.sub("", text[: mention.start])):
            asked.update(names)
            if side:
                for name in names:
                    sides.setdefault(name, {})[side] = words
            if not names and not PLACED.search(text[: mention.start]):
                unknown[words.lower()] = None
            elif not mention.lesion and (part := _part(text, mention)):
                parts[part] = None
            for half in _halves(mention, text):
                halves.setdefault(mention.names[0], {})[half] = words
    if re.fullmatch(r"\W*(?:nothing|none|nil)(?: at all)?\W*", text, re.IGNORECASE):
        denied["everything"] = None
    for name, named in halves.items():
        if set(named) != set(WORDINGS[name].halves):
            parts |= dict.fromkeys(named.values())
    parts |= dict.fromkeys(words for named in sides.values() if len(named) == 1 for words in named.values())
    # "kidneys, not the right one": the model can only mark both, or neither
    parts |= dict.fromkeys(words for name, words in one_out.items() if name in asked)
    excluded |= (one_out.keys() | others) - asked
    left = tuple(name for name in known if name in asked - excluded)
    ruled_out = tuple(name for name in known if name in excluded)
    nothing_out = not (excluded or others or denied or one_out)
    unread = (*(_lost_negations(text) if nothing_out else ()), *_unread(text, mentions, tuple(known)))
    return Request(left, ruled_out, tuple(unknown), tuple(denied), tuple(parts), spelled, unread)


def named_structures(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Which of the `known` structures a sentence asks for, in the order of `known`; () if none. See :func:`read_request`."""
    return read_request(text, known).asked


def swap_structures(text: str, a: str, b: str) -> str:
    """The sentence with the structures `a` and `b` exchanged, findings left where they are; all else stays as it is.

    Wording i of one becomes wording i of the other: swapping twice gives a prompt of `prompt` back. A mention of a and b
    together ("kidneys") stays.
    """
    other = {a: b, b: a}
    for mention in reversed(list(_mentions(text, (a, b)))):
        names = _known(mention, (a, b))
        if len(names) != 1 or mention.side:
            continue
        target = other[names[0]]
        organ, lesion = organ_and_lesion(target)
        if mention.organ is not None and lesion:
            mention, target = mention.organ, organ
        words = _in_wording(target, mention.slot)
        words = words.capitalize() if text[mention.start].isupper() else words
        text = text[: mention.start] + words + text[mention.end :]
    return text


def _in_wording(name: str, slot: int) -> str:
    wording = wording_of(name)
    texts = () if wording is None else wording.texts
    return texts[slot] if 0 < slot < len(texts) else plain(name)


# --- phrases -------------------------------------------------------------------------------------------


AFTER_SIDE = "then|rather|instead|segmentation|outlined|adjacent|next|beside|near|and|as|for|or|but|only|too|alone|please|side|is|are|was|were|in|with|without|not|should|must|may|can|could|needs?|will|would|shall|has|have|does|do|cannot"


def _side(side: str) -> str:
    """ "left", "lt." or "L"."""
    return rf"(?:{side}(?:[ -]hand)?|{side[0]}{side[-1]}|{side[0]})\b\.?"


@lru_cache(maxsize=64)
def _phrases(known: tuple[str, ...]) -> tuple[re.Pattern[str], tuple[_Mention, ...]]:
    """A pattern whose group i is the i-th phrase, longest first, and what each phrase means."""
    phrases: dict[str, _Mention] = {}

    def add(text: str, *names: str, slot: int = -1, adjective: bool = False) -> None:
        phrases.setdefault(text, _Mention(0, 0, names, slot, adjective=adjective))

    for name in known:
        if wording_of(name) is None:
            organ, _ = organ_and_lesion(plain(name))
            for words in dict.fromkeys((plain(name), organ)):
                add(words, words, slot=0)
                if words.split()[0] in SIDES:
                    bare = words.split(maxsplit=1)[-1]
                    add(bare, bare)
                    _add_sides(add, bare, bare)
    for name, wording in WORDINGS.items():
        for slot, words in enumerate(wording.texts):
            add(words, name, slot=slot)
        if wording.adjective:
            add(wording.adjective, name, adjective=True)
    for name, wording in WORDINGS.items():
        if f"left {name}" in WORDINGS:
            for words in wording.names:
                _add_sides(add, words, name)
            if wording.adjective:
                for first, second in (SIDES, SIDES[::-1]):
                    add(f"{first} and {second} {wording.adjective}", *_both(name), adjective=True)
    for words in wordings.WHOLE_HIPPOCAMPUS:
        add(words, *SHORT_NAMES)
    for name, short_names in SHORT_NAMES.items():
        for words in short_names:
            add(f"hippocampus {words}", name)
            if set(known) <= set(SHORT_NAMES):
                add(words, name)
    for words in wordings.OTHER_ANATOMY:
        add(words, words)
    for words in wordings.EVERYTHING:
        add(words, *(_canonical(name) for name in known))
    order = sorted(phrases, key=len, reverse=True)
    groups = [f"({_flexible(words)})" for words in order] + [f"({words})" for words in LESIONS.values()]
    meanings = [phrases[words] for words in order] + [_Mention(0, 0, (), -1, lesion=lesion) for lesion in LESIONS]
    for side in SIDES:  # "the left kidney, not the right (one)": only where a connecting word goes before
        groups.append(rf"({_side(side)}(?:\s+(?:ones?|side))?(?=\s*(?:$|[.,;:!?)])|\s+(?:{AFTER_SIDE})\b))")
        meanings.append(_Mention(0, 0, (), -1, side=side))
    return re.compile(rf"(?<![\w])(?:{'|'.join(groups)})(?![\w])", re.IGNORECASE), tuple(meanings)


def _both(name: str) -> tuple[str, ...]:
    return tuple(f"{side} {name}" for side in SIDES)


def _add_sides(add: Callable[..., None], words: str, name: str) -> None:
    """The ways to speak of one side, or of both, of a paired organ that is called `words`."""
    for side, sided in zip(SIDES, _both(name), strict=True):
        for way in (
            f"{side} {words}",
            f"{side} sided {words}",
            f"{words} on the {side}",
            f"{words} of the {side} side",
            f"{side} of the two {words}",
            f"{side} one of the {words}",
            *(
                f"{words} {to}{side} of the {middle}"
                for to in ("", "to the ")
                for middle in ("spine", "aorta", "midline")
            ),
        ):
            add(way, sided)
        add(f"{words} {side}", sided)
    for first, second in (SIDES, SIDES[::-1]):
        for joint in ("and", "and the", "or", "as well as", "as well as the", "plus", "&", "+", "/"):
            add(f"{first} {joint} {second} {words}", *_both(name))
        add(f"{words} {first} and {second}", *_both(name))


FORMS = {  # of words within a phrase
    **{side: _side(side) for side in SIDES},
    "anterior": r"ant(?:erior)?\b\.?",
    "posterior": r"post(?:erior)?\b\.?",
    "part": "(?:part|portion|half|section)",
}


def _flexible(words: str) -> str:
    """A pattern for a phrase in US or UK spelling, singular or plural, sides shortened, any punctuation between its words."""
    parts = re.findall(r"\w+|[&+/]", words)
    spelled = [_form(word, last=word is parts[-1]) for word in parts]
    pattern = spelled[0]
    for before, word, form in zip(parts, parts[1:], spelled[1:], strict=False):
        lesion = re.fullmatch("|".join(LESIONS.values()), word)
        gap = r"\s*" if {before, word} & set("&+/") else r"[\s/()-]+" if lesion else r"[\s,:/()-]+"
        pattern += rf"(?:{gap}the\b)?" if word == "the" else gap + form
    if len(parts) > 1 and parts[-1] in SIDES and parts[-2] != "the":
        # A side behind its organ must not belong to what follows: "right kidney, left adrenal gland"
        pattern += rf"\)?(?!\s+(?!(?:{AFTER_SIDE})\b)\w)"
    return pattern


def _form(word: str, last: bool) -> str:
    if word == "hippocampus":
        return "hippocamp(?:us(?:es)?|i)"
    if word in FORMS or not word.isalpha():
        return FORMS.get(word, re.escape(word))
    form = word.replace("tumour", "tumou?rs?").replace("oesoph", "o?esoph")
    if not last or form.endswith("s?"):
        return form
    return form + ("(?:es)?" if form.endswith("s") else "s?")


def _resolved(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The known structures that a name stands for: itself, or its sides, or the pair where sides are not told apart."""
    own = {_canonical(other): other for other in known}
    candidates = ([name], [f"{side} {name}" for side in SIDES], [name.removeprefix("left ").removeprefix("right ")])
    for tried in candidates:
        if found := tuple(own[candidate] for candidate in tried if candidate in own):
            return found
    return ()


def _canonical(name: str) -> str:
    wording = wording_of(name)
    return wording.names[0] if wording else plain(name)


def _known(mention: _Mention, known: tuple[str, ...]) -> tuple[str, ...]:
    """The structures of a mention under the model's own names."""
    return tuple(dict.fromkeys(own for name in mention.names for own in _resolved(plain(name), known)))


# --- mentions ------------------------------------------------------------------------------------------


def _mentions(text: str, known: tuple[str, ...]) -> Iterator[_Mention]:
    """What a text speaks of, in its order."""
    text = text.replace("_", " ")
    pattern, meanings = _phrases(known)
    found = [
        replace(meanings[(match.lastindex or 1) - 1], start=match.start(), end=match.end())
        for match in pattern.finditer(text)
    ]
    return _narrowed(text, list(_bound(text, _with_sides(text, found), known)))


CONNECTED = re.compile(
    r"(?:\b(?:not|and|or|nor|without|but|than|of|except(?:ing)?|excluding|minus|only|just|then|with|plus|in|from|n[’']t)"
    r"|\b(?:mark|segment|show|outline|keep|take|ignore|skip|omit|leave out)|[,:;&/+(]|n[’']t)(?:\s+(?:for|the|its))*\s*$",
    re.IGNORECASE,
)
ON_SIDE = re.compile(r"\bon\s+(?:the\s+)?$", re.IGNORECASE)


def _with_sides(text: str, found: list[_Mention]) -> list[_Mention]:
    """A side that stands alone becomes that side of the organ named before it, else of the one after; others go."""
    whole: list[_Mention] = []
    for index, mention in enumerate(found):
        if not mention.side:
            whole.append(mention)
            continue
        near = [*reversed(found[:index]), *found[index + 1 :]]
        paired = next((other for other in near if any(_paired(name) for name in other.names)), None)
        before = text[: mention.start]
        behind_pair = index > 0 and (found[index - 1].lesion or any(_paired(name) for name in found[index - 1].names))
        connected = CONNECTED.search(before) or (behind_pair and ON_SIDE.search(before))
        if paired is None or not (connected or before.strip().lower() in ("", "the", "only the")):
            continue
        names = dict.fromkeys(f"{mention.side} {_unsided(name)}" for name in paired.names if _paired(name))
        whole.append(replace(mention, names=tuple(names)))
    return whole


def _narrowed(text: str, mentions: list[_Mention]) -> Iterator[_Mention]:
    """A side right behind an organ says which one is meant: "kidney tumour, left"."""
    for index, mention in enumerate(mentions):
        after = mentions[index + 1] if index + 1 < len(mentions) else None
        if after and after.side and _side_behind(text, mention, after):
            mentions[index + 1] = replace(after, start=mention.start)
        else:
            yield mention


def _side_behind(text: str, mention: _Mention, after: _Mention) -> bool:
    unsided = len(mention.names) > 1 or any(name == _unsided(name) for name in mention.names)
    narrows = r"(?:[\s,:(/-]*|[\s,.;:(/-]*(?:(?:but|and)\s+)?(?:only|just)\s+)(?:on\s+)?(?:the\s+)?"
    return (
        unsided
        and any(map(_paired, mention.names))
        and re.fullmatch(narrows, text[mention.end : after.start], re.IGNORECASE) is not None
    )


def _unsided(name: str) -> str:
    return name.removeprefix("left ").removeprefix("right ")


def _paired(name: str) -> bool:
    """Whether a name is one of a left and a right, or of an organ that comes in pairs."""
    return name != _unsided(name) or f"left {name}" in WORDINGS


def _bound(text: str, found: list[_Mention], known: tuple[str, ...]) -> Iterator[_Mention]:
    """The mentions with every lesion bound to its organ: "renal mass", "a mass in the kidney", "the kidney holds a mass"."""
    taken: set[int] = set()
    last: _Mention | None = None
    for index, mention in enumerate(found):
        if index in taken:
            continue
        after = found[index + 1] if index + 1 < len(found) else None
        between = text[mention.end : after.start] if after else "."
        if mention.side and last is not None and last.lesion:  # "the left renal mass, not the right"
            mention = replace(mention, names=_with(last.lesion, mention), lesion=last.lesion)
            yield mention
            continue
        if not mention.lesion:
            if after and after.lesion and re.fullmatch(QUALIFIERS, between, re.IGNORECASE):
                taken.add(index + 1)
                last = _Mention(
                    mention.start, after.end, _with(after.lesion, mention), lesion=after.lesion, organ=mention
                )
                if not FREE.search(text[after.end :]):
                    yield last
                    continue
                yield replace(last, start=after.start, organ=None)
            elif last is not None and last.lesion and _one_more(text, mention, last):
                last = replace(mention, names=_with(last.lesion, mention), lesion=last.lesion, organ=mention)
                yield last
            elif not mention.adjective:
                last = replace(mention, lesion=organ_and_lesion(mention.names[0])[1])
                yield last
            continue
        if FREE_OR_BEARING.search(text[mention.end :]) and after and not after.lesion and not after.adjective:
            yield replace(mention, names=_with(mention.lesion, after))
            continue
        same_sentence = not SENTENCE_END.search(between)
        if after and not after.lesion and not after.adjective and same_sentence and BELONGS.search(between):
            taken.add(index + 1)
            last = _Mention(mention.start, after.end, _with(mention.lesion, after), lesion=mention.lesion, organ=after)
            yield last
            continue
        names = tuple(name for name in map(plain, known) if organ_and_lesion(name)[1] == mention.lesion)
        if index and not found[index - 1].lesion:
            before = found[index - 1]
            apart = SENTENCE_END.search(text[before.end : mention.start]) or _set_apart(text, before, known)
            its = re.search(r"\b(?:its|their)\s+$", text[: mention.start], re.IGNORECASE)
            names = names if apart and not its else _with(mention.lesion, before)
        last = replace(mention, names=names)
        yield last


def _one_more(text: str, organ: _Mention, lesion: _Mention) -> bool:
    """Whether the lesion spoken of last is meant here too: "tumours of the liver or kidneys", "... but one in the kidney"."""
    between = text[lesion.end : organ.start]
    plural = [word for word in re.findall(r"[^\W\d_]+", text[: organ.start]) if _any_lesion(word)][-1:]
    joined = (
        r"(?:,|,?\s+(?:n?or|and)|\s*[&/])" if plural and re.search("[^s]s$|sses$", plural[0].lower()) else r",?\s+n?or"
    )
    listed = re.fullmatch(joined + r"\s+(?:(?:of|in)\s+)?(?:the\s+)?", between, re.IGNORECASE)
    return bool(
        listed
        or re.search(r"\b(?:ones?|another|others|those)\s+(?:in|of|within)(?:\s+the)*\s+$", between, re.IGNORECASE)
    )


def _with(lesion: str, organ: _Mention) -> tuple[str, ...]:
    return tuple(f"{organ_and_lesion(name)[0]} {lesion}" for name in organ.names)


def _untold_side(mention: _Mention, names: Sequence[str]) -> str:
    """The one side that a mention is of, where the model has the pair under one name; "" otherwise."""
    sides = {plain(name).split()[0] for name in mention.names}
    told = any(plain(own).split()[0] in SIDES for own in names)
    return next(iter(sides)) if names and not told and len(sides) == 1 and sides <= set(SIDES) else ""


def _set_apart(text: str, mention: _Mention, known: tuple[str, ...]) -> bool:
    return bool(LANDMARK.search(text[: mention.start])) or _ruled_out(text, mention, known)


def _ruled_out(text: str, mention: _Mention, known: tuple[str, ...]) -> bool:
    """Whether the sentence says that what is mentioned is not wanted, or not there."""
    if NOT_AFTER.search(text[mention.end :]) or (mention.lesion and FREE.search(text[mention.end :])):
        return True
    before = text[: mention.start]
    cue = next(reversed([*NOT_BEFORE.finditer(before)]), None)
    if cue is None or SCOPE_END.search(before, cue.end()):
        return False
    if NOTHING_BUT.search(before[: cue.end()]) or (
        cue[0].lower() not in SHORT_CUES and NOT_NOT.search(before[: cue.start()])
    ):
        return False
    return _reaches(before[cue.end() :], text[mention.end :], cue[0].lower(), known)


def _reaches(between: str, behind: str, cue: str, known: tuple[str, ...]) -> bool:
    """Whether a negation reaches over `between`: to the next thing, and along a list ("without the liver, the spleen or ...").

    One that has found its object in words that name no structure ends at the comma: "no free air, liver and kidneys".
    """
    if re.fullmatch(ARTICLES + r"\s*", between, re.IGNORECASE):
        return True
    if "," not in between:
        return True
    if not _phrases(known)[0].search(between.partition(",")[0]):
        return False
    if cue.startswith(("not", "n't", "’t", "'t")):
        return False
    rest = SCOPE_END.split(behind, maxsplit=1)[0]
    return bool(LISTED.search(between.rsplit(",", 1)[-1]) or LISTED.search(rest))


def _part(text: str, mention: _Mention) -> str | None:
    """The words of a part of a structure, where a mention is of its part: "left lobe of the liver", "liver segment 4"."""
    if before := PART.search(text[: mention.start]):
        return text[before.start(1) : mention.end]
    behind = PART_BEHIND.search(text[mention.end :])
    return text[mention.start : mention.end + behind.end()] if behind else None


def _halves(mention: _Mention, text: str) -> set[str]:
    """Which of the parts that the model cannot tell apart are named: {"tail"} for "hippocampal tail"."""
    wording = WORDINGS.get(mention.names[0]) if len(mention.names) == 1 and not mention.lesion else None
    words = re.findall(r"[a-z]+", text[mention.start : mention.end].lower())
    return set() if wording is None else {half for half in wording.halves if half in words}


# --- spelling ------------------------------------------------------------------------------------------

UNMENDED = (
    "part",
    "tail",
    "head",
    "body",
    "back",
    "front",
    "loop",
    "wall",
    "tube",
    "large",
    "main",
    "first",
    "lower",
    "content",
    "small",
)
LIKENESS = 0.8  # of difflib: one wrong letter in five


@lru_cache(maxsize=64)
def _vocabulary(known: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Words that are right, and those of them that a slip of the pen may stand for."""
    named = [word for wording in WORDINGS.values() for text in (*wording.names, *wording.also) for word in text.split()]
    named += [word for wording in WORDINGS.values() for word in wording.adjective.split()]
    named += [word for name in known for word in plain(name).split()]
    named += [word for text in wordings.WHOLE_HIPPOCAMPUS for word in text.split()]
    named += ["tumour", "tumor", "lesion", "cyst", "cancer", *SIDES]
    named += [
        "without",
        "except",
        "excluding",
        "instead",
        "ignore",
        "both",
        "wanted",
    ]  # no less than the names they turn round
    described = [word for wording in WORDINGS.values() for text in wording.anatomy for word in re.findall(r"\w+", text)]
    others = (*wordings.OTHER_ANATOMY, *wordings.EVERYTHING, *wordings.REQUESTS, *wordings.RULED_OUT, *wordings.BESIDES)
    described += [word for text in others for word in re.findall(r"\w+", text.lower())]
    described += re.findall(r"\w{4,}", SET_ASIDE)
    right = {form for word in (*named, *described, *wordings.PLAIN_WORDS) for form in (word, f"{word}s", f"{word}es")}
    meant = dict.fromkeys(word for word in named if len(word) >= 4 and word not in UNMENDED)
    return frozenset(right), tuple(meant)


def _spelled_right(text: str, known: tuple[str, ...]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The text with slips of the pen mended, and which they were."""
    right, meant = _vocabulary(known)
    mended: dict[str, str] = {}

    def mend(match: re.Match[str]) -> str:
        word = match[0].lower()
        if word in right or len(word) < 4 or re.fullmatch("|".join(LESIONS.values()), word):
            return match[0]
        near = [one for one in difflib.get_close_matches(word, meant, 3, LIKENESS) if one[0] == word[0]]
        if near:
            mended[match[0]] = near[0]
        return near[0] if near else match[0]

    return re.sub(r"[^\W\d_]+", mend, text), tuple(mended.items())


ON_SCREEN = re.compile(
    r"\b(?:left|right)(?:[ -]hand)?(?: side)? of the (?:image|picture|screen|slice|view|display)\b"
    r"|\bviewer[’']?s (?:left|right)\b|\b(?:image|screen)[ -](?:left|right)\b",
    re.IGNORECASE,
)  # which side of the patient that is depends on who draws it


def _unread(text: str, mentions: Sequence[_Mention], known: tuple[str, ...]) -> tuple[str, ...]:
    """Words that are part of nothing that was read, are no plain words, and so may change what is meant ("kidney stones")."""
    rest = list(text)
    behind = [(one.end, one.end + out.end()) for one in mentions if (out := NOT_AFTER.search(text[one.end :]))]
    for start, end in [(one.start, one.end) for one in mentions] + behind + [one.span() for one in READ.finditer(text)]:
        rest[start:end] = "." * (end - start)
    words = re.findall(r"(?<![\w’'])[^\W\d_]{2,}", "".join(rest))
    strange = [word for word in words if not _plain_word(word.lower()) and not _any_lesion(word)]
    return tuple(dict.fromkeys([*strange, *(match[0] for match in ON_SCREEN.finditer(text))]))


def _lost_negations(text: str) -> tuple[str, ...]:
    """Negating words of a text in which nothing was found to be ruled out, unless they affirm ("do not forget the liver")."""
    for cue in NOT_BEFORE.finditer(text):
        if NOTHING_BUT.search(text[: cue.end()]) or NOT_NOT.search(text[: cue.start()]):
            return ()
    return tuple(dict.fromkeys(re.findall(r"\b(?:not|never|none)\b|\b\w+n[’']t\b", text, re.IGNORECASE)))


READ = re.compile(
    rf"\b\w+n[’']t\b|{NOT_BEFORE.pattern}|\b{PARTS}|\b(?:left|right)(?:\s+side)?\s+of\b|\bleft out\b", re.IGNORECASE
)


@lru_cache(maxsize=1)
def _plain_words() -> frozenset[str]:
    """Words that stand beside what is asked for and change nothing."""
    texts = (*wordings.EVERYTHING, *wordings.REQUESTS, *wordings.RULED_OUT, *wordings.BESIDES, *wordings.PLAIN_WORDS)
    words = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    return frozenset({*words, *(f"{word}s" for word in words)} - {*SIDES})


def _plain_word(word: str) -> bool:
    """Whether a word is plain, or a slip of the pen for one."""
    plain_words = _plain_words()
    near = difflib.get_close_matches(word, plain_words, 3, LIKENESS) if len(word) >= 5 else []
    return word in plain_words or any(one[0] == word[0] for one in near)


def _any_lesion(word: str) -> bool:
    return re.fullmatch("|".join(LESIONS.values()), word, re.IGNORECASE) is not None
