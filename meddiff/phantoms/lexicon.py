"""Words of the grammar: nouns, descriptors, severities, places, denials, asides. Source: own, no report text used.

A :class:`Noun` is what a finding is called; the rest of the sentence is put together by :mod:`.grammar`. Two
lexicons share the words for side, size and place: the chest, and the shapes of the source domain.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A name of a finding: singular, plural ("" where it has none) and article ("" for mass nouns)."""

    one: str
    many: str = ""
    article: str = ""
    descriptors: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Lexicon:
    """All words of one domain.

    Attributes:
        nouns: label -> its names.
        sizes: label -> words for mild, moderate, severe.
        enlarged: whole sentences for Cardiomegaly with {adverb}.
        denials: label -> noun phrases that can be denied.
        related: label -> labels with which a denial of it would contradict the picture.
        normal: whole impressions of a healthy picture.
        asides: sentences that are true of any picture.
        clear: label -> sentences that are true when none of ``related`` is there.
        prefixes: comparisons that begin a sentence, with {np}.
        body: word for the organ ("lung"), used in places.
    """

    nouns: dict[str, tuple[Noun, ...]]
    sizes: dict[str, tuple[tuple[str, ...], ...]]
    enlarged: tuple[str, ...]
    denials: dict[str, tuple[str, ...]]
    related: dict[str, tuple[str, ...]]
    normal: tuple[str, ...]
    asides: tuple[str, ...]
    clear: dict[str, tuple[str, ...]]
    lobes: bool = True


_EXTENT = (("mild", "minimal", "subtle", "small"), ("moderate", "moderate-sized"), ("extensive", "severe", "large"))
_SPACE = (("small", "tiny", "trace"), ("moderate", "moderate-sized"), ("large", "sizeable"))
_DEGREE = (("mild", "minimal", "slight"), ("moderate",), ("severe", "marked", "pronounced"))
SIZES: dict[str, tuple[tuple[str, ...], ...]] = {
    "Atelectasis": _DEGREE,
    "Cardiomegaly": (("mild", "slight", "borderline to mild"), ("moderate",), ("severe", "marked", "massive")),
    "Consolidation": _EXTENT,
    "Edema": _DEGREE,
    "Lung Opacity": (("small", "subtle", "faint"), ("moderate", "moderate-sized"), ("large", "extensive")),
    "Pleural Effusion": _SPACE,
    "Pneumonia": _EXTENT,
    "Pneumothorax": _SPACE,
}
#: Adverbs for mild, moderate, severe.
ADVERBS = (("mildly", "slightly", "minimally"), ("moderately",), ("severely", "markedly", "massively"))

_AIRSPACE = ("Consolidation", "Lung Opacity", "Pneumonia")
_PARENCHYMA = (*_AIRSPACE, "Atelectasis", "Edema")

CHEST = Lexicon(
    nouns={
        "Atelectasis": (
            Noun("atelectasis", "", "", ("", "subsegmental", "linear", "platelike", "discoid", "bandlike")),
            Noun("atelectatic band", "atelectatic bands", "a", ("", "thin")),
            Noun("atelectatic change", "atelectatic changes", "", ("", "linear", "streaky")),
        ),
        "Cardiomegaly": (
            Noun("cardiomegaly"),
            Noun("cardiac enlargement"),
            Noun("enlargement of the cardiac silhouette"),
            Noun("enlargement of the heart"),
        ),
        "Consolidation": (
            Noun("consolidation", "consolidations", "", ("", "dense", "focal", "lobar", "confluent")),
            Noun("area of consolidation", "areas of consolidation", "an", ("",)),
            Noun("airspace consolidation", "", "", ("", "dense", "confluent")),
        ),
        "Edema": (
            Noun("pulmonary edema", "", "", ("", "interstitial", "perihilar")),
            Noun("edema", "", "", ("perihilar", "interstitial", "alveolar", "hydrostatic")),
            Noun("vascular congestion with edema", "", "", ("pulmonary", "central")),
        ),
        "Lung Opacity": (
            Noun("opacity", "opacities", "an", ("", "hazy", "rounded", "ill-defined", "nodular", "focal")),
            Noun("lung opacity", "lung opacities", "a", ("", "hazy", "ill-defined")),
            Noun("ground-glass opacity", "ground-glass opacities", "a", ("",)),
        ),
        "Pleural Effusion": (
            Noun("pleural effusion", "pleural effusions", "a", ("", "layering", "free-flowing")),
            Noun("effusion", "effusions", "an", ("",)),
            Noun("pleural fluid collection", "pleural fluid collections", "a", ("",)),
        ),
        "Pneumonia": (
            Noun("pneumonia", "", "", ("", "patchy", "multifocal-appearing", "early", "bacterial")),
            Noun("bronchopneumonia", "", "", ("", "patchy")),
            Noun("pneumonic infiltrate", "pneumonic infiltrates", "a", ("", "patchy")),
        ),
        "Pneumothorax": (
            Noun("pneumothorax", "", "a", ("",)),
            Noun("pneumothorax with a visible pleural line", "", "a", ("",)),
        ),
    },
    sizes=SIZES,
    enlarged=(
        "The heart is {adverb} enlarged",
        "The cardiac silhouette is {adverb} enlarged",
        "Heart size is {adverb} enlarged",
        "{Adverb} enlarged cardiac silhouette",
        "{Adverb} enlarged heart",
        "The cardiomediastinal silhouette is widened with a {adverb} enlarged heart",
    ),
    denials={
        "Atelectasis": ("atelectasis",),
        "Cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
        "Consolidation": ("focal consolidation", "consolidation", "lobar consolidation"),
        "Edema": ("pulmonary edema", "overt edema", "edema"),
        "Lung Opacity": ("focal opacity", "suspicious opacity"),
        "Pleural Effusion": ("pleural effusion", "effusion", "pleural fluid"),
        "Pneumonia": ("pneumonia", "acute pneumonia"),
        "Pneumothorax": ("pneumothorax", "visible pneumothorax"),
    },
    related={
        "Atelectasis": ("Atelectasis", "Consolidation"),
        "Cardiomegaly": ("Cardiomegaly",),
        "Consolidation": _AIRSPACE,
        "Edema": ("Edema",),
        "Lung Opacity": _PARENCHYMA,
        "Pleural Effusion": ("Pleural Effusion",),
        "Pneumonia": _AIRSPACE,
        "Pneumothorax": ("Pneumothorax",),
    },
    normal=(
        "No acute cardiopulmonary abnormality",
        "No acute cardiopulmonary process",
        "Normal chest radiograph",
        "Normal chest",
        "Clear lungs and normal heart size",
        "No evidence of acute disease",
        "No radiographic evidence of acute cardiopulmonary disease",
        "The lungs are clear",
        "Unremarkable examination of the chest",
        "No acute intrathoracic process",
        "Heart and lungs are normal",
        "Both lungs are well expanded and clear",
        "Stable chest without acute findings",
    ),
    asides=(
        "No acute osseous abnormality",
        "The bony thorax is intact",
        "Degenerative changes of the spine",
        "The trachea is midline",
        "Mediastinal contours are within normal limits",
        "Hilar contours are unremarkable",
        "The visualized upper abdomen is unremarkable",
        "Clinical correlation is recommended",
        "Follow-up radiographs are recommended",
        "Compared to the prior study there is no other change",
        "No prior studies are available for comparison",
        "Soft tissues are unremarkable",
        "The aorta is mildly tortuous",
    ),
    clear={
        "Lung Opacity": ("The lungs are clear", "Lungs are clear"),
        "Cardiomegaly": (
            "Heart size is normal",
            "The heart is not enlarged",
            "Normal cardiac silhouette",
            "Cardiac size is within normal limits",
        ),
        "Pleural Effusion": ("Costophrenic angles are sharp", "The pleural spaces are free of fluid"),
        "Edema": ("Pulmonary vascularity is normal",),
    },
)

SHAPES = Lexicon(
    nouns={
        "Atelectasis": (Noun("bar", "bars", "a", ("", "straight", "thin")), Noun("stripe", "stripes", "a")),
        "Cardiomegaly": (Noun("swelling of the disc"), Noun("enlargement of the disc")),
        "Consolidation": (Noun("square", "squares", "a", ("", "solid")), Noun("block", "blocks", "a")),
        "Edema": (Noun("fog", "", "", ("", "soft")), Noun("mist", "", "", ("", "grey"))),
        "Lung Opacity": (Noun("ball", "balls", "a", ("", "round")), Noun("spot", "spots", "a")),
        "Pleural Effusion": (Noun("wedge", "wedges", "a", ("", "bright")), Noun("triangle", "triangles", "a")),
        "Pneumonia": (Noun("mosaic", "mosaics", "a", ("", "checkered")), Noun("chequerboard", "chequerboards", "a")),
        "Pneumothorax": (Noun("crescent", "crescents", "a", ("", "dark")), Noun("sickle", "sickles", "a")),
    },
    sizes=SIZES,
    enlarged=("The disc is {adverb} enlarged", "{Adverb} enlarged disc", "The central disc is {adverb} enlarged"),
    denials={
        "Atelectasis": ("bar", "stripe"),
        "Cardiomegaly": ("swelling of the disc",),
        "Consolidation": ("square", "block"),
        "Edema": ("fog", "mist"),
        "Lung Opacity": ("ball", "spot"),
        "Pleural Effusion": ("wedge", "triangle"),
        "Pneumonia": ("mosaic", "chequerboard"),
        "Pneumothorax": ("crescent", "sickle"),
    },
    related={label: (label,) for label in SIZES},
    normal=("Empty picture", "Nothing to see", "No shapes", "The picture is empty", "Plain pattern without shapes"),
    asides=("The pattern is even", "Compared to the prior picture there is no other change", "The frame is intact"),
    clear={"Cardiomegaly": ("The disc is small", "The disc is not enlarged")},
    lobes=False,
)
