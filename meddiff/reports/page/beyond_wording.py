"""Words for figures of coverage, copies, absent findings, alignment and utility. Source: own."""

from meddiff.reports.page.use_wording import USE

NAEEM = "Kynkaanniemi et al. 2019; Naeem et al. 2020"
IRS = "Dombrowski et al. 2024, image retrieval score"
REAL = "held-out images; training copies; one image repeated"
COPY = "held-out images; exact and shifted copies"
#: room -> name -> label, meaning, unit, better, read against, source. Features are the last part of a name.
BEYOND: dict[str, dict[str, tuple[str, str, str, int, str, str]]] = {
    "coverage": {
        "precision_k5_domain": (
            "precision",
            "share of drawn images that lie where real ones do (k = 5)",
            "share",
            1,
            REAL,
            NAEEM,
        ),
        "recall_k5_domain": ("recall", "share of real images that lie where drawn ones do", "share", 1, REAL, NAEEM),
        "density_k5_domain": (
            "density",
            "real neighbourhoods a drawn image lies in, over k",
            "none",
            0,
            f"1; {REAL}",
            NAEEM,
        ),
        "coverage_k5_domain": (
            "coverage",
            "share of real images with a drawn one among their nearest",
            "share",
            1,
            f"coverage/coverage_ceiling_k5_domain; {REAL}",
            NAEEM,
        ),
        "coverage_ceiling_k5_domain": (
            "ceiling of coverage",
            "what a perfect generator is expected to have",
            "share",
            0,
            "–",
            "own",
        ),
        "irs_inf_domain": (
            "training images reached",
            "share of training images that the generator draws near to, estimated",
            "share",
            1,
            REAL,
            IRS,
        ),
        "irs_adjusted_domain": (
            "reached, of held-out",
            "the same over that of as many held-out images",
            "ratio",
            1,
            f"1; {REAL}",
            IRS,
        ),
        "vendi_ratio_domain": (
            "diversity",
            "Vendi score of centred features over that of held-out images",
            "ratio",
            1,
            f"1; {REAL}",
            "Friedman and Dieng 2023",
        ),
        "kid_domain": (
            "kernel distance",
            "kernel distance to the held-out reference; `CLASS/kid_domain` that of one class",
            "none",
            -1,
            REAL,
            "Binkowski et al. 2018",
        ),
        "n": (
            "N of images",
            "images drawn, and images of the reference; `CLASS/n` those of one class",
            "images",
            0,
            "–",
            "own",
        ),
        "train": ("training images", "training images that are compared with", "images", 0, "–", "own"),
    },
    "copies": {
        "copy_share_pixels": (
            "copies, pixels",
            "share of drawn images nearer to a training image than 99 % of held-out ones, under shifts",
            "share",
            -1,
            f"0.01; {COPY}",
            "own",
        ),
        "copy_share_mirrored": (
            "mirrored copies",
            "the same of the mirrored drawn images",
            "share",
            -1,
            f"0.01; {COPY}",
            "own",
        ),
        "copy_share_domain": (
            "copies, features",
            "the same by the angle between features",
            "share",
            -1,
            f"0.01; {COPY}",
            "own",
        ),
        "copy_ratio_pixels_p1": (
            "nearest copy, pixels",
            "1st percentile of the distance to the nearest over that to the next ones; 1 or less is a candidate",
            "ratio",
            1,
            COPY,
            "Carlini et al. 2023",
        ),
        "copy_ratio_mirrored_p1": (
            "nearest mirrored copy",
            "the same of the mirrored drawn images",
            "ratio",
            1,
            COPY,
            "own",
        ),
        "copy_ratio_domain_p1": (
            "nearest copy, features",
            "the same by the angle between features",
            "ratio",
            1,
            COPY,
            "own",
        ),
        "authentic_share_domain": (
            "authentic",
            "share further from its nearest training image than another training image is",
            "share",
            1,
            COPY,
            "Alaa et al. 2022",
        ),
        "ct_domain": (
            "copying test",
            "are drawn images nearer to training images than held-out ones? below -3: yes",
            "z",
            1,
            f"0; {COPY}",
            "Meehan et al. 2020",
        ),
        "n": (
            "N of images",
            "images drawn for captions of training, and as many for held-out ones",
            "images",
            0,
            "–",
            "own",
        ),
        "held_out_n": (
            "N of held-out",
            "held-out images that set the threshold; 1,000 make it fine",
            "images",
            0,
            "–",
            "own",
        ),
        "train": ("training images", "training images that are compared with", "images", 0, "–", "own"),
        "shared_patients": (
            "shared patients",
            "held-out images of patients with training images: should be 0",
            "images",
            -1,
            "0",
            "own",
        ),
    },
    "absent": {
        "absent_auroc": (
            "absent findings told",
            "chance that the map of a present finding says more than that of an absent one",
            "share",
            1,
            "0.5; absent_auroc_shuffled",
            "own",
        ),
        "absent_auroc_shuffled": (
            "the same, shuffled",
            "presence shuffled within each class",
            "share",
            0,
            "0.5",
            "own",
        ),
        "absent_auroc_max": (
            "absent findings told, peak",
            "the same by the highest value of the map",
            "share",
            1,
            "0.5",
            "own",
        ),
        "absent_auroc_max_shuffled": (
            "the same, shuffled",
            "presence shuffled within each class",
            "share",
            0,
            "0.5",
            "own",
        ),
        "false_focus": (
            "false focus",
            "CNR of absent findings in their usual place less that of present ones",
            "none",
            -1,
            "0: a location prior",
            "own",
        ),
        "no_target_accuracy": (
            "silence",
            "share of absent findings below the threshold that keeps 95 % of the present",
            "share",
            1,
            "0.05",
            "own",
        ),
        "small": (
            "by size",
            "CNR of findings under 2 % of the image; `medium` to 8 %, `large` above",
            "none",
            1,
            "means of classes within a size",
            "own",
        ),
        "size_spearman": (
            "CNR and size",
            "rank correlation of the CNR with the size of the finding",
            "none",
            0,
            "0",
            "own",
        ),
    },
}
#: above them in the glossary
READ = (
    "Of `lightning evaluate coverage`, `copies`, `absent`, `alignment` and `utility` ([page](beyond_fid.md)), in "
    "`summary.json` there. "
    "`CONTROL/NAME` is the same of a control. Names end in the features they were measured on: `domain`, `xrv224`, ..."
)


def beyond_rows() -> list[tuple[str, str, str, str, int, str, str]]:
    """Name as it is logged, label, meaning, unit, better, read against, source."""
    return [(f"{room}/{name}", *rest) for room, figures in (BEYOND | USE).items() for name, rest in figures.items()]
