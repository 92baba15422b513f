"""What the files and folders of a run are called: nothing else spells them out. Source: own (the design's run folder).

::

    RUNS/NAME/TIME/
        config.yaml                  CONFIG       as resolved; trains the same run again
        metrics.jsonl                METRICS      every row that was logged
        skipped_steps.jsonl          SKIPPED      steps that were left out as not finite, with their sample keys
        tradeoff.csv                 TRADEOFF     one row an evaluation
        controls.json                CONTROLS     what the numbers have to be compared with
        report.html                  REPORT
        whereabouts.json             WHEREABOUTS  where its parts and its cohort lay, each with a digest
        wandb_id.txt                 WANDB_ID     under which W&B knows the run
        job.json                     JOB          of a SLURM or torchrun job: the command, by which it finds its folder again
        finished.json                FINISHED     written when a training has ended as it should; an exit code of 0 says less
        checkpoints/                 CHECKPOINTS
        grounding/IMAGES.csv         GROUNDING    one row a phrase
        grounding/excluded.csv       EXCLUDED     what could not be grounded, and why
        saliency/IMAGES.csv          SALIENCY     maps by timestep during training: a row a tool, timestep and figure
        media/attention/IMAGES.json  ATTENTION    word maps and where their pictures lie
        media/samples/IMAGES.json    SAMPLES      drawn images beside real ones
        media/saliency/IMAGES.json   SALIENCY     maps by timestep, of each tool, and where their pictures lie
        media/prototypes/IMAGES.json PROTOTYPES   prototypes with their pictures and patches
        media/predict/               PREDICTED    what `lightning predict` drew
        evaluation/IMAGES/           EVALUATIONS  what `lightning evaluate` found
            evaluation.json          ABOUT        of which model, with which settings
            summary.json             SUMMARY      averages
            MEASUREMENT.csv                       tables, and coco_excluded.csv or excluded.csv beside them
            mechanism.csv            MECHANISM    figures of all checkpoints; mechanism_*.csv beside it
            saliency.csv             MAPS_BY_TIMESTEP  grounding of each tool by timestep; saliency_*.csv beside it
            prototypes.csv           PROTOTYPES   a row a prototype; prototype_*.csv beside it
            shortcut.csv             SHORTCUT     what edits moved and leaked; shortcut_images.csv beside it
            images/                  IMAGES       what was drawn for them

IMAGES in a name is the number of images trained on, as :func:`by_images` writes it.
"""

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SKIPPED = "skipped_steps.jsonl"
TRADEOFF = "tradeoff.csv"
CONTROLS = "controls.json"
REPORT = "report.html"
WHEREABOUTS = "whereabouts.json"
#: ... under which a checkpoint has them, too.
NOTED = "whereabouts"
WANDB_ID = "wandb_id.txt"
JOB = "job.json"
FINISHED = "finished.json"
SWEEP = "runs.jsonl"
CHECKPOINTS = "checkpoints"
GROUNDING = "grounding"
EXCLUDED = "excluded.csv"
MEDIA = "media"
ATTENTION = "attention"
SAMPLES = "samples"
SALIENCY = "saliency"
PROTOTYPES = "prototypes"
PREDICTED = "predict"
EVALUATIONS = "evaluation"
ABOUT = "evaluation.json"
SUMMARY = "summary.json"
MECHANISM = "mechanism"
MAPS_BY_TIMESTEP = "saliency"
SHORTCUT = "shortcut"
IMAGES = "images"

#: What tables of words call the tokens before and behind a text (of CLIP and T5, of BERT).
SPECIAL_TOKENS = ("SOS", "EOS", "CLS", "SEP")

#: Any of these makes a folder a run folder.
MARKS = (CONFIG, METRICS, TRADEOFF)


def by_images(images: int) -> str:
    """The stem of what was made after so many training images: sorted by name is sorted by number.

    Example:
        >>> by_images(32000)
        '000032000'
    """
    return f"{images:09d}"
