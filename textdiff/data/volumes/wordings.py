"""How structures are spoken of: a structure's name in, its other names, descriptions and parts out. All wordings are ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIDES = ("left", "right")
LESIONS = {
    "tumour": r"tumou?rs?|mass(?:es)?|lesions?|nodules?|cancers?|neoplasms?|malignanc(?:y|ies)|metastas[ie]s|mets|growths?|lumps?"
    r"|(?:adeno)?carcinomas?",
    "cyst": "cysts?",
}


@dataclass(frozen=True)
class Wording:
    """How a structure is spoken of. Wording i of one structure corresponds to wording i of any other."""

    names: tuple[str, str, str]  # the first is the structure's own name
    description: str  # true of anybody; tells the structures of a task apart
    other_description: str
    also: tuple[str, ...] = ()  # understood, never written: parts and rarer names
    halves: tuple[
        str, ...
    ] = ()  # words of its parts; a sentence that has only one of them asks for less than the whole
    whole: tuple[str, ...] = ()  # further names of all of it, which requests are written with
    adjective: str = ""  # names the structure only before a lesion: "hepatic lesion" but not "hepatic artery"

    @property
    def anatomy(self) -> tuple[str, str]:
        """Both descriptions."""
        return self.description, self.other_description

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is understood, the structure's own name first."""
        return (*self.names, *self.anatomy, *self.also)


def _tumour(organ: str, short: str, third: str, also: tuple[str, ...] = ()) -> Wording:
    """A tumour of `organ`, where `short` says what organ that is and `third` is the third name."""
    return Wording(
        (f"{organ} tumour", f"tumour of the {organ}", third),
        f"an abnormal growth in the {organ}, the {short}",
        f"a lump in or on the {organ}, of another shade than the rest",
        also,
    )


# Anterior is the head, posterior the body and tail: Simpson et al. 2019 (arXiv:1902.09063), Task04.
_WORDINGS = (
    Wording(
        ("anterior hippocampus", "hippocampal head", "head of the hippocampus"),
        "the front part of the hippocampus, its large round head",
        "the thick end of the hippocampus, in front of its body",
        (
            *("anterior part of the hippocampus", "front of the hippocampus", "hippocampus anterior"),
            *("front part of the hippocampus", "front end of the hippocampus", "anterior end of the hippocampus"),
        ),
        whole=(
            *(
                "anterior part of the hippocampus",
                "front of the hippocampus",
                "ant. hippocampus",
                "anterior part",
                "head",
            ),
            *("hippocampus (anterior)", "anterior portion of the hippocampus", "head of hippocampus", "front part"),
        ),
    ),
    Wording(
        ("posterior hippocampus", "hippocampal body and tail", "body and tail of the hippocampus"),
        "the rear part of the hippocampus, its body and tail",
        "the elongated part of the hippocampus, behind its head",
        (
            *("posterior part of the hippocampus", "back of the hippocampus", "hippocampus posterior"),
            *("rear part of the hippocampus", "back part of the hippocampus", "posterior end of the hippocampus"),
            *("hippocampal body", "hippocampal tail", "body of the hippocampus", "tail of the hippocampus"),
        ),
        ("body", "tail"),
        whole=(
            *("posterior part of the hippocampus", "back of the hippocampus", "post. hippocampus", "posterior part"),
            *("hippocampus (posterior)", "posterior portion of the hippocampus", "body and tail", "rear part"),
        ),
    ),
    Wording(
        ("liver", "liver tissue", "hepatic parenchyma"),
        "the large organ in the upper right abdomen, under the diaphragm",
        "the largest organ of the abdomen, above the right kidney",
        ("liver parenchyma", "hepatic tissue"),
        whole=("whole liver", "entire liver", "liver parenchyma", "liver"),
        adjective="hepatic",
    ),
    Wording(
        ("pancreas", "pancreatic tissue", "pancreatic parenchyma"),
        "the elongated gland behind the stomach, with head, body and tail",
        "the gland across the spine, its head in the curve of the duodenum",
        ("pancreatic gland",),
        adjective="pancreatic",
    ),
    Wording(
        ("colon", "large bowel", "large intestine"),
        "the wide bowel with ascending, transverse and descending part",
        "the bowel around the small bowel, with gas in it",
        adjective="colonic",
    ),
    Wording(
        ("kidney", "kidney tissue", "renal parenchyma"),
        "the bean shaped organ on each side of the spine",
        "one of the two organs that make urine",
        ("kidney parenchyma", "renal tissue"),
        adjective="renal",
    ),
    *(
        Wording(
            (f"{side} kidney", f"kidney on the {side} side", f"{side} renal parenchyma"),
            f"the bean shaped organ on the {side} side of the spine, below the {above}",
            f"the one of the two organs that make urine behind the {bowel} colon",
            (f"{side} kidney tissue", f"{side} kidney parenchyma"),
            adjective=f"{side} renal",
        )
        for side, above, bowel in (("left", "spleen", "descending"), ("right", "liver", "ascending"))
    ),
    Wording(
        ("spleen", "spleen tissue", "splenic parenchyma"),
        "the organ in the upper left abdomen, behind the stomach",
        "the oval organ above the left kidney, at the tail of the pancreas",
        ("splenic tissue",),
        adjective="splenic",
    ),
    Wording(
        ("gallbladder", "gall bladder", "vesica biliaris"),
        "the small bag of bile under the liver",
        "the pear shaped bag at the lower edge of the right lobe of the liver",
    ),
    Wording(
        ("stomach", "stomach with its content", "gastric wall and lumen"),
        "the hollow organ of the upper left abdomen, in front of the pancreas",
        "the wide bag that leads out of the oesophagus into the duodenum",
        adjective="gastric",
    ),
    Wording(
        ("aorta", "aortic vessel", "main artery of the body"),
        "the large artery in front of the spine, left of the vena cava",
        "the round vessel that takes blood out of the heart",
        ("abdominal aorta", "descending aorta"),
        adjective="aortic",
    ),
    Wording(
        ("oesophagus", "gullet", "oesophageal tube"),
        "the tube down the chest, behind the heart, into the stomach",
        "the muscular tube behind the trachea",
        adjective="oesophageal",
    ),
    Wording(
        ("inferior vena cava", "lower caval vein", "ivc"),
        "the large vein in front of the spine, right of the aorta",
        "the vein that takes blood of the lower body to the heart",
        ("inferior caval vein", "vena cava inferior", "vena cava"),
    ),
    Wording(
        ("portal and splenic vein", "portal vein and splenic vein", "portal vein with splenic vein"),
        "the vein behind the pancreas that takes blood of the bowel to the liver",
        "the vessel that runs along the pancreas into the hilum of the liver",
        ("portal vein", "splenic vein", "hepatic portal vein"),
        ("portal", "splenic"),
    ),
    Wording(
        ("duodenum", "duodenal loop", "first part of the small bowel"),
        "the c shaped bowel around the head of the pancreas",
        "the short bowel that follows the stomach, right of the spine",
        adjective="duodenal",
    ),
    Wording(
        ("small bowel", "small intestine", "jejunum and ileum"),
        "the many thin loops of bowel in the middle of the abdomen",
        "the long narrow bowel between duodenum and colon",
    ),
    Wording(
        ("adrenal gland", "suprarenal gland", "adrenal"),
        "the small y shaped gland above each kidney",
        "one of the two thin glands that sit on the kidneys",
    ),
    *(
        Wording(
            (f"{side} adrenal gland", f"{side} suprarenal gland", f"{side} adrenal"),
            f"the small y shaped gland above the {side} kidney",
            f"the thin gland between the {side} kidney, the {organ} and the {vessel}",
        )
        for side, organ, vessel in (("left", "spleen", "aorta"), ("right", "liver", "vena cava"))
    ),
    Wording(
        ("bladder", "urinary bladder", "vesica urinaria"),
        "the round bag of urine in the front of the pelvis",
        "the hollow organ low in the pelvis that holds urine",
    ),
    Wording(
        ("prostate or uterus", "uterus or prostate", "prostate gland or womb"),
        "the solid organ in the middle of the pelvis, under or behind the bladder",
        "the gland below the bladder of a man, the womb of a woman",
        ("prostate", "uterus", "prostate gland", "womb", "prostate and uterus", "prostate uterus"),
    ),
    _tumour(
        "liver", "large organ under the diaphragm", "hepatic lesion", ("hcc", "hepatocellular carcinoma", "hepatoma")
    ),
    # The mass of MSD Task07 is a tumour or a cyst.
    _tumour(
        "pancreas", "gland behind the stomach", "pancreatic mass", ("pancreatic cyst", "cyst of the pancreas", "pdac")
    ),
    _tumour("colon", "wide bowel", "colon cancer", ("colorectal cancer", "colorectal tumour", "bowel cancer")),
    _tumour("kidney", "organ on each side of the spine", "renal mass", ("renal cell carcinoma", "rcc")),
    *(
        _tumour(f"{side} kidney", f"organ below the {above}", f"{side} renal mass", (f"{side} renal cell carcinoma",))
        for side, above in zip(SIDES, ("spleen", "liver"), strict=True)
    ),
    Wording(
        ("kidney cyst", "cyst of the kidney", "renal cyst"),
        "a round pocket of fluid in or on the kidney",
        "a thin sac of clear fluid in the kidney, darker than the rest",
    ),
)
WORDINGS: dict[str, Wording] = {wording.names[0]: wording for wording in _WORDINGS}
# Parts of an organ: world axis (0: to the right, 2: up), where along the organ's extent they end, their names.
PARTS = {
    "kidney": (2, (1 / 3, 2 / 3), ("lower pole", "middle third", "upper pole")),
    "liver": (0, (0.35,), ("left lobe", "right lobe")),
    "pancreas": (0, (1 / 3, 2 / 3), ("tail", "body", "head")),
}
UNSIDED = ("kidney", "colon")  # organs on both sides under one name: a report says on which
WHOLE_HIPPOCAMPUS = (
    *("hippocampus", "hippocampi", "hippocampal formation", "hippocampal", "anterior and posterior hippocampus"),
    *("posterior and anterior hippocampus", "anterior and posterior part of the hippocampus"),
    *("head body and tail of the hippocampus", "hippocampal head body and tail"),
)
# Understood only where the hippocampus is all that a model knows: other organs have a head and a front too.
SHORT_NAMES = {
    "anterior hippocampus": ("anterior", "anterior part", "front part", "head"),
    "posterior hippocampus": ("posterior", "posterior part", "rear part", "body", "tail", "body and tail"),
}

# Names of several structures at once, as requests are written
TOGETHER: dict[tuple[str, ...], tuple[str, ...]] = {
    ("left kidney", "right kidney"): (
        *(
            "kidneys",
            "both kidneys",
            "left and right kidney",
            "right and left kidneys",
            "kidneys on both sides",
            "L and R kidney",
        ),
        *(
            "bilateral kidneys",
            "pair of kidneys",
            "left as well as the right kidney",
            "kidneys, left and right",
            "two kidneys",
        ),
        *("renal parenchyma of both sides", "L/R kidney", "left & right kidney", "kidneys"),
    ),
    tuple(SHORT_NAMES): (
        *(
            "hippocampus",
            "whole hippocampus",
            "hippocampi",
            "entire hippocampus",
            "hippocampal formation",
            "complete hippocampus",
        ),
        *("hippocampus, anterior and posterior", "hippocampus", "both parts of the hippocampus", "full hippocampus"),
        *("hippocampus with head, body and tail", "anterior and posterior part of the hippocampus"),
    ),
}
REQUESTS = (
    *(
        "{}",
        "{}",
        "{}",
        "the {}",
        "the {}.",
        "segment the {}.",
        "please segment the {}",
        "outline the {} in this scan",
        "where is the {}?",
    ),
    *(
        "mark the {}",
        "{} only",
        "only the {}",
        "just the {}, please",
        "I want the {}",
        "show me the {}",
        "delineate the {} for me",
    ),
    *(
        "find the {}",
        "{} please",
        "can you draw the {}?",
        "mask of the {}",
        "{} segmentation",
        "contour the {}.",
        "highlight the {}",
    ),
    *(
        "We need the {} outlined.",
        "Patient for follow-up. Please mark the {}.",
        "Segment: {}",
        "Give me the {} and nothing else",
    ),
)
RULED_OUT = (
    *(
        "{}, not the {}",
        "{} but not the {}",
        "{} without the {}",
        "{}, no {}",
        "{} and not the {}",
        "{}; ignore the {}",
        "{}. No {}.",
    ),
    *(
        "{} instead of the {}",
        "{} rather than the {}",
        "{}, leave out the {}",
        "{}; the {} is not wanted",
        "{} (not the {})",
    ),
    *(
        "{}, excluding the {}",
        "{}. Do not mark the {}.",
        "{} and never the {}",
        "{}; the {} is not needed",
        "{} except the {}",
    ),
)
RULED_OUT_FIRST = (
    *(
        "ignore the {} and mark the {}",
        "not the {}, the {}",
        "no {}, only the {}",
        "without the {}: the {}",
        "skip the {}; segment the {}",
    ),
    *(
        "Do not mark the {}. Mark the {}.",
        "don't segment the {}; segment the {}",
        "rather than the {}, the {}",
        "not the {} but the {}",
    ),
    *("instead of the {}, the {}", "the {} is not needed, but the {} is", "no {}; {}", "exclude the {}. Mark the {}."),
)
ALL_BUT = (
    *("everything except the {}", "everything but the {}", "all organs but the {}", "all structures except the {}"),
    *("mark everything, but not the {}", "everything without the {}", "all but the {}"),
)
LANDMARKS = ("{} next to the {}", "{} beside the {}", "{}, near the {}", "{} adjacent to the {}")
# What stands beside a request and asks for nothing that is known
BESIDES = (
    *(
        "{} and the {}",
        "{}; no {} tumour",
        "{}. No evidence of {} tumour.",
        "{}, {} not needed",
        "{}; {} is unremarkable",
    ),
    *("{} next to the {}", "{}; status post resection of the {}", "{}, but no {}"),
)
NOTHING = (
    *(
        "no {}",
        "no {} please",
        "nothing, and no {}",
        "without the {}",
        "the {} is not wanted",
        "the {} is absent",
        "not the {}",
    ),
    *("no evidence of {} tumour", "what lies beside the {}?", "the thing next to the {}", "do not mark the {}"),
)
EVERYTHING = (
    *(
        "everything",
        "anything",
        "all",
        "all organs",
        "all the organs",
        "every organ",
        "all structures",
        "all the structures",
    ),
    *("every structure", "all parts", "all the parts", "each structure", "each organ"),
)
# Recognised only to say that a model does not know them
OTHER_ANATOMY = (
    *(
        "lung",
        "heart",
        "brain",
        "trachea",
        "bronchus",
        "rib",
        "spine",
        "vertebra",
        "bone",
        "muscle",
        "skin",
        "breast",
        "thyroid",
    ),
    *(
        "lymph node",
        "ureter",
        "urethra",
        "artery",
        "vein",
        "vessel",
        "ovary",
        "testis",
        "rectum",
        "appendix",
        "diaphragm",
        "femur",
    ),
    *(
        "sacrum",
        "clavicle",
        "scapula",
        "pleura",
        "bile duct",
        "nerve",
        "eye",
        "nose",
        "ear",
        "tongue",
        "larynx",
        "pharynx",
    ),
    *(
        "amygdala",
        "thalamus",
        "cerebellum",
        "ventricle",
        "caudate",
        "putamen",
        "entorhinal cortex",
        "white matter",
        "superior vena cava",
        "grey matter",
    ),
    *(
        "brain stem",
        "pituitary",
        "parahippocampal gyrus",
        "subiculum",
        "fornix",
        "temporal lobe",
        "nucleus",
        "nuclei",
        "fat",
    ),
)
# Never a slip of the pen for a structure
PLAIN_WORDS = tuple(
    "sided live lives living line lines long large larger largest late later latest level levels less least leave leaves lead look like list"
    " mass massive mask mark image images please place places plane plain part parts patient patients point points present show shows"
    " segment segmentation structure structures scan side sides some such small smaller solid size slice slices spread space region"
    " regions right rights ridge rear really read reading ready head heads body bodies tail tails front back other others only once"
    " over outer open about above after again along also another any area around because before behind below beside both bright but case"
    " clear close colour could cover dark delineate draw each edge either empty entire even every everything except exclude fill"
    " find first follow form found free from full give good half have here high higher hole hollow human ignore inner inside into just"
    " keep kind know known leave left light look lower make many more most much must name named need never next nothing number"
    " outline outside pair people person piece put rest round same seen shape shaped sharp should since skip something still take tell than"
    " that their them then there these they thing think this those three through tissue together under until upper very volume want what"
    " when where whether which while whole wide with without work would your total tube tubes turn type cause causes course call called"
    " cancel center centre central colon color cold come count cost staging stage common cut cysts gold glad land lose loss liquid"
    " duct ducts normal abnormal absent absence evidence sign signs trace denies negative missing lacking removed resected ruled"
    # the words between them, and of where a scan comes from
    " an the of in on at to by as is it its am are was were be been has had do does did can could may might will should shall must need"
    " needs needed wanted asked required not no nor or and if so too yes ok my me we you your he she his her our us him who whom whose how"
    " why than then thus via per versus vs off out up down back both few several one ones two three pairs however although yet instead"
    " rather except excluding including included include well seen visible present found done given shown marked outlined nothing else"
    " thanks thank kindly hello dear doctor following same study exam examination image picture photo figure volume series phase contrast"
    " enhanced venous arterial portal delayed native unenhanced axial coronal sagittal oblique view screen ct cta mr mri mra pet ultrasound"
    " xray tomography resonance magnetic computed abdomen abdominal thorax chest pelvic cranial weighted year years old man woman male"
    " female boy girl mr mrs ms adult child follow ups history status post known reported query question suspected suspicious exclude"
    " unremarkable normal healthy intact regular enlarged atrophic class classes label labels labelled structure organ organs tissue"
    " lies complete none interested focal clean bilaterally bearing solitary metastatic remaining near nearby opposite underneath beneath against along adjacent alone excluded excepted itself themselves including"
    " cystic ductal cell solid hypodense hyperdense enhancing malignant benign primary suspicious bilateral double unilateral"
    " anatomy map maps voxel voxels pixel pixels boundary boundaries contours border borders shape volumes measure compute locate detect"
    " extract identify annotate trace paint colour try want wants like us get make see look also again today now here please only just".split()
)


def organ_and_lesion(name: str) -> tuple[str, str]:
    """("liver", "tumour") for "liver tumour", (name, "") for anything else."""
    organ, _, last = name.rpartition(" ")
    return (organ, last) if organ and last in LESIONS else (name, "")


def plain(name: str) -> str:
    """Lower case, single spaces: "Left_Kidney" -> "left kidney"."""
    return re.sub(r"[\s_]+", " ", name).strip().lower()


def wording_of(name: str) -> Wording | None:
    """The wording of a structure under any of its three names ("urinary bladder" too), or None."""
    words = re.sub(r"\besoph", "oesoph", plain(name).replace("tumor", "tumour"))
    return next((wording for wording in _WORDINGS if words in wording.names), None)
