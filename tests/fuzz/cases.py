"""Every kind of bad input, the command that meets it, and the exit code: the rows of ``docs/bad_inputs.md``."""

import shutil

from tests.builders.bad_inputs import (
    DEEP,
    DIGITS,
    Bad,
    Place,
    edit,
    instead,
    member,
    nothing,
    sample,
    sparse,
    write,
)

FIT = "fit -c {config}"
#: Not a command of its own: what every verb does with a sample.
READ = "(a batch of the training split)"
REPORT = "report {run}"
EVALUATION = "{run}/evaluation/000016000"
PREPARE = (
    "prepare folder --root {images} --out {folder}/out --vae {folder}/../vae --resolution 64 --processes 1 "
    "--accelerator cpu"
)
HUGE = 5 * 2**30


def _key(line: str) -> Bad:
    return Bad("config", line, FIT, lambda place: place.config.write_text(place.config.read_text() + line))


def _chain(place: Place) -> None:
    """Each file names the next one twice: 2 to the 40 files."""
    for number in range(40):
        (place.folder / f"{number}.yaml").write_text(f"base: [{number + 1}.yaml, {number + 1}.yaml]\n")
    (place.folder / "40.yaml").write_text("name: x\n")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)

YAMLS: list[tuple[str, str | bytes]] = [
    ("empty", ""),
    ("a list instead of a mapping", "- a\n- b\n"),
    ("not YAML", "model: [1, 2\ntrainer: }"),
    ("brackets nested 50,000 deep", "model: " + "[" * DEEP),
    ("aliases that expand to 10^10 values", LAUGHS),
    ("an alias that contains itself", "model: &a [*a]\n"),
    ("a whole number of 5,000 digits", "seed_everything: " + "9" * 5000 + "\n"),
    ("a whole number of 400 digits", "seed_everything: " + "9" * DIGITS + "\n"),
    ("a date that is none", "seed_everything: 2024-13-45\n"),
    ("a key that is a list", "? [a, b]\n: 1\n"),
    ("a key that is a mapping", "? {a: b}\n: 1\n"),
    ("a key that is a number", "1: 2\n"),
    ("a Python object", "model: !!python/object/apply:os.system [true]\n"),
    ("a NUL byte", "name: a\0b\n"),
    ("half a character (lone surrogate)", 'name: "\\ud800"\n'),
    ("UTF-16", "name: x\n".encode("utf-16")),
    ("Windows-1252", "name: na\xefve\n".encode("cp1252")),
    ("the same section twice", "model: {a: 1}\nmodel: {b: 2}\n"),
    ("a merge key that is no mapping", "model:\n  <<: 3\n"),
    ("a sexagesimal number", "seed_everything: 1:30:00\n"),
    ("binary noise", bytes(range(256))),
]

CONFIGS = [
    *(Bad("config", f"config: {what}", FIT, write("{config}", text)) for what, text in YAMLS),
    *(
        Bad("config", f"config: {kind} where a file is expected", FIT, instead("{config}", kind))
        for kind in ("pipe", "device", "folder", "loop")
    ),
    Bad("config", "config: 5 GiB", FIT, sparse("{config}", HUGE)),
    Bad("config", "base: its own base", FIT, write("{config}", "base: fit.yaml\n")),
    Bad("config", "base: a chain that doubles 40 times", "fit -c {folder}/0.yaml", _chain),
    Bad("config", "base: a number", FIT, write("{config}", "base: 3\n")),
    Bad("config", "base: a mapping", FIT, write("{config}", "base: {a: b}\n")),
    Bad("config", "base: a list of lists", FIT, write("{config}", "base: [[a]]\n")),
    Bad("config", "base: missing", FIT, write("{config}", "base: not_there.yaml\n")),
    Bad(
        "config",
        "base: a chain of 2,000 files",
        "fit -c {folder}/0.yaml",
        lambda place: [(place.folder / f"{n}.yaml").write_text(f"base: {n + 1}.yaml\n") for n in range(2000)] and None,
    ),
    *(
        Bad("config", f"section: {text.strip()}", FIT, write("{config}", text))
        for text in (
            "model: 3\n",
            "model: []\n",
            "data: x\n",
            "trainer: 7\n",
            "trainer: [1]\n",
            "model: {class_path: 3}\n",
            "model: {class_path: os.system}\n",
            "model: {class_path: not.there}\n",
            "callbacks: 3\n",
            "name: [a]\n",
            "name: {a: b}\n",
            "runs: 3\n",
            "grounding: 3\n",
            "checkpoint: [x]\n",
            "name: ../../x\n",
            "name: ''\n",
        )
    ),
]

MANIFESTS = [
    *(
        Bad("shards", f"manifest: {what}", FIT, write("{shards}/manifest.json", text))
        for what, text in (
            ("empty", ""),
            ("a list", "[]"),
            ("null", "null"),
            ("torn", '{"schema_version": 1, "sha'),
            ("nested 50,000 deep", "[" * DEEP),
            ("a number of 5,000 digits", '{"schema_version": ' + "9" * 5000 + "}"),
            ("UTF-16", "{}".encode("utf-16")),
            ("Windows-1252", '{"a": "\xef"}'.encode("cp1252")),
            ("NUL", "{\0}"),
        )
    ),
    *(
        Bad("shards", f"manifest: {kind} where a file is expected", FIT, instead("{shards}/manifest.json", kind))
        for kind in ("pipe", "device", "folder", "loop")
    ),
    Bad("shards", "manifest: 5 GiB", FIT, sparse("{shards}/manifest.json", HUGE)),
    *(
        Bad(
            "shards",
            f"manifest: {name} is {value!r:.40}",
            FIT,
            edit("{shards}/manifest.json", lambda m, name=name, value=value: m.update({name: value})),
        )
        for name, value in (
            ("resolution", "x"),
            ("resolution", -1),
            ("resolution", 1e400),
            ("resolution", 10**30),
            ("resolution", None),
            ("latent_shape", [4, 4]),
            ("latent_shape", [-4, 4, 4]),
            ("latent_shape", [4, 4, 10**12]),
            ("latent_shape", "abc"),
            ("latent_shape", [4.5, 4, 4]),
            ("vae", 3),
            ("vae", []),
            ("vae", {}),
            ("shards", 3),
            ("shards", [3]),
            ("shards", [{}]),
            ("counts", 3),
            ("counts", {"train": 3}),
            ("counts", {"train": {"samples": "x", "labels": {}}}),
            ("funnel", 3),
            ("funnel", [[1]]),
            ("options", 3),
            ("cohort", 3),
            ("cohort", ["a"]),
            ("access", "all"),
            ("pictures", "none"),
            ("latent", "both"),
            ("schema_version", 99),
            ("schema_version", "1"),
            ("schema_version", True),
            ("schema_version", [1]),
            ("more", 1),
        )
    ),
    *(
        Bad(
            "shards",
            f"manifest: vae.{name} is {value!r:.40}",
            FIT,
            edit("{shards}/manifest.json", lambda m, name=name, value=value: m["vae"].update({name: value})),
        )
        for name, value in (
            ("scaling_factor", "x"),
            ("scaling_factor", 0),
            ("scaling_factor", None),
            ("scaling_factor", float("nan")),
            ("scaling_factor", [1]),
            ("latent_channels", "x"),
            ("downsample", -8),
            ("downsample", "x"),
            ("sha256", 3),
            ("sha256", None),
            ("class", []),
        )
    ),
    *(
        Bad(
            "shards",
            f"manifest: a shard's {name} is {value!r:.40}",
            FIT,
            edit("{shards}/manifest.json", lambda m, name=name, value=value: m["shards"][0].update({name: value})),
        )
        for name, value in (
            ("name", "../x.tar"),
            ("name", 3),
            ("split", 3),
            ("split", []),
            ("samples", "x"),
            ("samples", -1),
            ("samples", 1.5),
            ("samples", 10**18),
            ("bytes", "x"),
            ("bytes", -1),
            ("bytes", None),
            ("labels", 3),
            ("labels", {"a": "x"}),
            ("unreadable", 3),
            ("sha256", None),
            ("more", 1),
        )
    ),
    Bad("shards", "shard: missing", FIT, lambda place: next(place.shards.glob("train*.tar")).unlink()),
    Bad("shards", "shard: cut", FIT, lambda place: next(place.shards.glob("train*.tar")).write_bytes(b"x" * 100)),
    *(
        Bad("shards", f"shard: {kind} where a file is expected", FIT, instead("{shards}/train-00000.tar", kind))
        for kind in ("pipe", "device", "folder", "loop")
    ),
    Bad(
        "shards",
        "folder: a file",
        FIT,
        lambda place: (shutil.rmtree(place.shards), place.shards.write_text("x"))[1] and None,
    ),
]

SAMPLES = [
    *(
        Bad(
            "sample",
            f"KEY.json: {what}",
            READ,
            member(".json", lambda data, text=text: text if isinstance(text, bytes) else text.encode()),
        )
        for what, text in (
            ("empty", ""),
            ("null", "null"),
            ("a list", "[]"),
            ("torn", '{"impression": "a'),
            ("a text", '"x"'),
            ("nested 50,000 deep", "[" * DEEP),
            ("a number of 5,000 digits", '{"width": ' + "9" * 5000 + "}"),
            ("Windows-1252", b'{"a": "\xef"}'),
        )
    ),
    *(
        Bad(
            "sample",
            f"KEY.json: {name} is {value!r:.40}",
            READ,
            sample(lambda m, name=name, value=value: m.update({name: value})),
        )
        for name, value in (
            ("impression", None),
            ("impression", 3),
            ("impression", []),
            ("impression", "\ud800"),
            ("labels", None),
            ("labels", 3),
            ("labels", [3]),
            ("labels", "Edema"),
            ("labels", {"a": 1}),
            ("captions", 3),
            ("width", -1),
            ("boxes", [{"label": "a", "x": 1e300, "y": 0, "w": 1, "h": 1}]),
            ("captions", [3]),
            ("captions", "x"),
            ("phrases", 3),
            ("phrases", [3]),
            ("phrases", [{}]),
        )
    ),
    *(
        Bad("sample", f"KEY.json without {name}", READ, sample(lambda m, name=name: m.pop(name)))
        for name in ("impression", "labels")
    ),
    Bad("sample", "latent: empty", READ, member(".latent.npy", lambda data: b"")),
    Bad("sample", "latent: cut", READ, member(".latent.npy", lambda data: data[:100])),
    Bad(
        "sample",
        "latent: a pickle",
        READ,
        member(
            ".latent.npy",
            lambda data: (
                b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128) + b"x"
            ),
        ),
    ),
    Bad(
        "sample",
        "latent: a shape of 10^15",
        READ,
        member(
            ".latent.npy",
            lambda data: (
                b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(
                    127
                )
                + b"\n"
            ),
        ),
    ),
    Bad("sample", "latent: NaN", READ, member(".latent.npy", lambda data: data[:-2] + b"\xff\x7f")),
]

TEXTS: list[tuple[str, str | bytes]] = [
    ("empty", ""),
    ("null", "null"),
    ("a list", "[]"),
    ("a text", '"x"'),
    ("torn", '{"a": 1, "b'),
    ("nested 50,000 deep", "[" * DEEP),
    ("a number of 5,000 digits", '{"step": ' + "9" * 5000 + "}"),
    ("a number of 400 digits", '{"step": ' + "9" * DIGITS + ', "time": ' + "9" * DIGITS + "}"),
    ("half a character", '{"step": 1, "model": "\\ud800", "name": "\\ud800"}'),
    ("NUL", "\0\0\0"),
    ("binary noise", bytes(range(256))),
    ("UTF-16", '{"a": 1}'.encode("utf-16")),
]
FILES = (
    "config.yaml",
    "metrics.jsonl",
    "tradeoff.csv",
    "controls.json",
    "grounding/000016000.csv",
    "grounding/excluded.csv",
    "media/attention/000016000.json",
    "media/samples/000016000.json",
    "evaluation/000016000/evaluation.json",
    "evaluation/000016000/summary.json",
)

RUNS = [
    *(Bad("run", f"{file}: {what}", REPORT, write("{run}/" + file, text), 0) for file in FILES for what, text in TEXTS),
    *(
        Bad("run", f"{file}: {kind} where a file is expected", REPORT, instead("{run}/" + file, kind), 0)
        for file in FILES
        if file != "config.yaml"
        for kind in ("pipe", "device", "folder")
    ),
    *(Bad("run", f"{file}: 5 GiB", REPORT, sparse("{run}/" + file, HUGE), 0) for file in FILES),
    *(
        Bad("run", f"metrics.jsonl: {line:.60}", REPORT, write("{run}/metrics.jsonl", line + "\n"), 0)
        for line in (
            '{"step": "x"}',
            '{"step": null, "images": -5, "train/loss": 1}',
            '{"step": 1e400, "train/loss": NaN}',
            '{"step": [1], "time": [2]}',
            '{"step": 1, "time": 1e300}',
            '{"step": 1, "time": -1e300}',
            '{"step": -1, "images": 3, "train/loss": 1}',
            '{"step": true}',
            '{"step": 1, "train/loss": {"a": 1}}',
            '{"step": 1, "": 2}',
            '{"step": 1e18, "images": 1e18, "grounding/cnr": 1e308}',
            '{"step": 1, "grounding/\\ud800/cnr": 1}',
        )
    ),
    *(
        Bad("run", f"tradeoff.csv: {text!r:.60}", REPORT, write("{run}/tradeoff.csv", text), 0)
        for text in (
            "step,images\nx,y\n",
            "step,images,grounding/cnr\n1e400,nan,3\n",
            "step,images,grounding/cnr\n1,1e300,3\n",
            'step,images\n"1,2\n',
            "step,step\n1,2\n",
            ",\n,\n",
            "step,images,grounding/cnr\n-1,-5,1e308\n5,5,-1e308\n",
            "step,images,grounding/cnr\n1,16000,3\n" * 3,
            "a" * 200_000 + "\n",
        )
    ),
    *(
        Bad("run", f"media index: {text:.60}", REPORT, write("{run}/media/samples/000016000.json", text), 0)
        for text in (
            "[3]",
            "[{}]",
            '[{"file": 3}]',
            '[{"file": "../../../x.png"}]',
            '[{"file": null, "prompt": []}]',
            '[{"file": "a\\u0000b.png"}]',
            '[{"file": "\\ud800.png"}]',
            '[{"image": ["x"], "prompt": {"a": 1}, "seed": NaN}]',
        )
    ),
    *(
        Bad("run", f"word maps: {text:.60}", REPORT, write("{run}/media/attention/000016000.json", text), 0)
        for text in (
            "[{}]",
            '[{"image": 3, "map": 4, "mask": []}]',
            '[{"boxes": 3}]',
            '[{"cnr": "x", "boxes": [[1]]}]',
            '[{"image": "a.png", "map": "../x", "mask": "b\\u0000"}]',
        )
    ),
    *(
        Bad("run", f"controls.json: {text:.60}", REPORT, write("{run}/controls.json", text), 0)
        for text in (
            '{"grounding": 3}',
            '{"grounding": []}',
            '{"grounding": {"location_prior": 3}}',
            '{"fidelity": {"x": {"y": NaN}}}',
            '{"grounding": {"location_prior": {"cnr": 1e400}}}',
        )
    ),
    *(
        Bad("run", f"config.yaml: {text.strip():.60}", REPORT, write("{run}/config.yaml", text), 0)
        for text in (
            "model: 3\n",
            "model: {init_args: []}\n",
            "data: {init_args: {batch_size: x}}\n",
            "name: [a]\n",
            "name: {a: b}\n",
            "seed_everything: []\n",
            "seed_everything: 1e400\n",
            LAUGHS,
            "model: &a {init_args: *a}\n",
            "a: 2024-13-45\n",
            "? [a]\n: 1\n",
            "command: [1]\n",
            "seed_everything: " + "9" * 5000,
            "trainer: 5\n",
            "model: " + "[" * DEEP,
        )
    ),
    Bad("run", "folder: not there", "report {folder}/nothing", nothing),
    Bad("run", "folder: a file", "report {config}", nothing),
    Bad("run", "folder: empty", "report {folder}/empty", lambda place: (place.folder / "empty").mkdir()),
    Bad("run", "folder: a name with NUL", ("report", "a\0b"), nothing),
    Bad("run", "folder: a name of 5,000 characters", "report " + "x" * 5000, nothing),
    Bad("run", "report: --out is a folder", "report {run} --out {folder}", nothing),
    Bad("run", "report: --out in a file", "report {run} --out {config}/x.html", nothing),
    Bad("run", "tables: not evaluated", "tables {folder}", nothing),
    *(
        Bad(
            "run",
            f"tables: evaluation.json: {what}",
            "tables {run} --out {folder}/t",
            write(EVALUATION + "/evaluation.json", text),
        )
        for what, text in TEXTS
        if what not in ("half a character", "a number of 400 digits")
    ),
    Bad("run", "resume: no checkpoint", "fit --resume {run}", nothing),
    Bad(
        "run",
        "resume: a checkpoint that is noise",
        "fit --resume {run}",
        write("{run}/checkpoints/last.ckpt", b"noise"),
    ),
    Bad(
        "run",
        "resume: a checkpoint that is a pipe",
        "fit --resume {run}",
        instead("{run}/checkpoints/last.ckpt", "pipe"),
    ),
    Bad(
        "run",
        "sample: a checkpoint that is noise",
        "sample --ckpt {run} --prompts x --steps 1 --out {folder}/s",
        write("{run}/checkpoints/last.ckpt", b"noise"),
    ),
    Bad(
        "run",
        "evaluate: a checkpoint that is noise",
        "evaluate all --run {run}",
        write("{run}/checkpoints/last.ckpt", b"noise"),
    ),
    Bad("run", "dashboard: no folder", "dashboard --watch {folder}/nothing", nothing),
    Bad("run", "dashboard: a file", "dashboard --watch {config}", nothing),
    Bad("run", "verify: nothing there", "doctor --verify {folder}/nothing", nothing),
    Bad("run", "verify: a pipe", "doctor --verify {folder}/p", instead("{folder}/p", "pipe")),
    Bad(
        "run", "verify: a manifest that is noise", "doctor --verify {shards}", write("{shards}/manifest.json", b"noise")
    ),
]

NUMBERS = ("0", "-1", ".nan", ".inf", "1e400", "1" * DIGITS, "1000000000000", "x", "0.5", "null")
FLAGS = {
    "--data.batch_size": "0 -1 .nan .inf x 0.5 1000000000000",
    "--data.num_workers": "-1 .nan x 0.5 1000000000000",
    "--trainer.devices": "0 -1000000 1.5 1000000000000 x",
    "--trainer.num_nodes": "0 -1 x 1000000000000",
    "--trainer.max_steps": "-5 .nan .inf x 0.5 1000000000000000000000",
    "--trainer.log_every_n_steps": "-1 x .nan",
    "--trainer.accumulate_grad_batches": "0 -1 x",
    "--trainer.val_check_interval": "-1 0 .nan x 0.5",
    "--trainer.limit_train_batches": "-1 0.5 .nan",
    "--trainer.limit_val_batches": "-1 .nan",
    "--trainer.overfit_batches": "0.5 -1 .nan",
    "--trainer.num_sanity_val_steps": "-5",
    "--trainer.gradient_clip_val": "-1 .nan x",
    "--trainer.barebones": "true",
    "--trainer.check_val_every_n_epoch": "0 -1",
    "--trainer.max_epochs": "-5 x",
    "--trainer.min_steps": "-1",
    "--trainer.reload_dataloaders_every_n_epochs": "-1",
    "--trainer.precision": "17 x",
    "--trainer.strategy": "nonsense",
    "--trainer.accelerator": "nonsense gpu",
    "--trainer.profiler": "nonsense",
    "--trainer.max_time": "x",
    "--trainer.fast_dev_run": "-3",
    "--seed_everything": "-1 x 1e400 99999999999999999999 .nan",
    "--model.min_snr_gamma": "0 -1 .nan .inf x",
    "--model.learning_rate": "-1 .nan .inf x 1e400",
    "--model.ema_decay": "1 -1 .nan 2",
    "--model.warmup_steps": "-1 x",
    "--model.caption_dropout": "-1 2 .nan",
    "--model.sampling.steps": "0 -1 x 0.5 1000000000000",
    "--model.sampling.guidance_scale": "-1 .nan .inf x",
    "--grounding.timesteps": "0 -1 x 1000000000000",
    "--grounding.every_n_images": "0 -1 x",
    "--num": "3",
    "--fidelity.samples": "0 -1 x",
    "--checkpoint.every_n_images": "0 -1 x",
    "--model.learning_rat": "1e-4",
    "--model.freeze": "true",
    "--trainer.max_step": "4",
    "--nam": "x",
    "--data.shard": "x",
    "--name": "../x ${oc.env:HOME}",
    "--model.learning_rate ": "${nothing.there}",
    "--runs": "/dev/null /proc/x",
    "--ckpt_path": "/nothing /dev/zero",
}
OPTIONS = [
    *(
        Bad("option", f"{flag.strip()}={value:.24}", ("fit", "-c", "{config}", f"{flag.strip()}={value}"), nothing)
        for flag, values in FLAGS.items()
        for value in values.split()
    ),
    *(
        Bad(
            "option",
            f"config: {text}",
            FIT,
            (
                lambda text: (
                    lambda place: place.config.write_text(place.config.read_text().replace("batch_size: 8", text))  # noqa: B023
                )
            )(text),
        )
        for text in (
            "batch_size: ${trainer.max_stepz}",
            "batch_size: ${",
            "batch_size: ${oc.env:NOT_THERE_AT_ALL}",
            "batch_size: ${data.init_args.batch_size}",
            "batch_size: [8]",
            "batch_size: {a: 1}",
            "batch_size: true",
        )
    ),
    *(
        Bad(
            "option",
            f"sample {flag}",
            f"sample --ckpt {{run}} --prompts x --out {{folder}}/s {flag}",
            write("{run}/checkpoints/last.ckpt", b"noise"),
        )
        for flag in (
            "--steps=0",
            "--steps=-1",
            "--steps=x",
            "--steps=1000000000000",
            "--num_images=0",
            "--num_images=1000000000000",
            "--batch_size=-1",
            "--batch_size=1000000000000",
            "--guidance_scale=nan",
            "--guidance_scale=-1",
            "--guidance_scale=inf",
            "--seed=-1",
            "--seed=99999999999999999999999",
            "--gamma=nan",
            "--gamma=-1",
            "--device=nonsense",
            "--device=cuda",
            "--device=cuda:99",
            "--sampler=nonsense",
            "--step=3",
            "--prompts_file=/nothing",
            "--prompts_file={folder}",
            "--out={config}",
        )
    ),
    *(
        Bad(
            "option",
            f"prompts file: {what}",
            "sample --ckpt {run} --prompts_file {folder}/p.txt --out {folder}/s",
            write("{folder}/p.txt", text),
        )
        for what, text in (
            ("UTF-16", "x\n".encode("utf-16")),
            ("Windows-1252", b"na\xefve"),
            ("NUL", "a\0b"),
            ("empty", ""),
        )
    ),
    Bad(
        "option",
        "prompts file: pipe",
        "sample --ckpt {run} --prompts_file {folder}/p.txt --out {folder}/s",
        instead("{folder}/p.txt", "pipe"),
    ),
    Bad(
        "option",
        "prompts file: 5 GiB",
        "sample --ckpt {run} --prompts_file {folder}/p.txt --out {folder}/s",
        sparse("{folder}/p.txt", HUGE),
    ),
    *(
        Bad("option", f"dashboard {flag}", f"dashboard --watch {{folder}} {flag}", nothing)
        for flag in (
            "--port=-1",
            "--port=70000",
            "--port=x",
            "--host=nonsense.example",
            "--timesteps=0",
            "--timesteps=99",
            "--por=3",
            "--device=nonsense --model={run}",
        )
    ),
    *(
        Bad(
            "option",
            f"evaluate {flag}",
            f"evaluate all --run {{run}} {flag}",
            write("{run}/checkpoints/last.ckpt", b"noise"),
        )
        for flag in ("--batch_size=0", "--batch_size=-1", "--device=nonsense", "--bogus=1")
    ),
    *(
        Bad("option", f"sweep {flag}", f"sweep {{sweep}} {flag}", nothing)
        for flag in ("--count=0", "--count=-1", "--jobs=0", "--bogus=1", "--parallel=-1")
    ),
    *(
        Bad("option", f"prepare folder {flag}", f"{PREPARE} {flag}", nothing)
        for flag in (
            "--resolution=0",
            "--resolution=-8",
            "--resolution=1000000000",
            "--resolution=65",
            "--processes=0",
            "--processes=-1",
            "--processes=100000000",
            "--samples_per_shard=0",
            "--batch_size=0",
            "--batch_size=-1",
            "--val_fraction=nan",
            "--val_fraction=2",
            "--val=2",
            "--seed=-1",
            "--vae=/nothing",
            "--root=/nothing",
            "--root={config}",
            "--out={config}",
            "--bogus=1",
            "--devices=0",
            "--resolutio=64",
        )
    ),
    Bad("option", "no verb", "nonsense", nothing),
    Bad("option", "a section as text that says a thing twice", ("fit", "--model", "{a: 1, a: 2}"), nothing),
    Bad("option", "a section as text, nested 50,000 deep", ("fit", "--model", "[" * DEEP), nothing),
    Bad(
        "option",
        "a section as text with aliases that expand",
        ("fit", "-c", "{config}", "--model", "{" + LAUGHS.strip().replace("\n", ", ") + "}"),
        nothing,
    ),
]

SWEEPS = [
    *(Bad("sweep", f"sweep file: {what}", "sweep {sweep}", write("{sweep}", text)) for what, text in YAMLS),
    *(
        Bad("sweep", f"sweep file: {kind} where a file is expected", "sweep {sweep}", instead("{sweep}", kind))
        for kind in ("pipe", "device", "folder")
    ),
    Bad("sweep", "sweep file: 5 GiB", "sweep {sweep}", sparse("{sweep}", HUGE)),
    *(
        Bad(
            "sweep",
            f"sweep file: {text!r:.60}",
            "sweep {sweep}",
            write(
                "{sweep}",
                "method: grid\nprogram: meddiff\ncommand: [lightning, fit, -c, '{config}', '${args}']\n" + text,
            ),
        )
        for text in (
            "parameters: 3\n",
            "parameters: {a: 3}\n",
            "parameters: {a: {values: 3}}\n",
            "parameters: {a: {values: []}}\n",
            "parameters: {a: {min: .nan, max: 1}}\n",
            "parameters: {model.learning_rate: {min: 0, max: .inf}}\n",
            "parameters: {a: {value: &x [*x]}}\n",
            "parameters: {1: {values: [1]}}\n",
            "parameters: {seed_everything: {values: [1, 2]}}\nrun_cap: -1\n",
            "parameters: {seed_everything: {values: [1]}}\nmetric: 3\n",
            "parameters: {seed_everything: {values: [1]}}\nearly_terminate: {type: hyperband, min_iter: -1}\n",
        )
    ),
    Bad(
        "sweep",
        "sweep file: no command",
        "sweep {sweep}",
        write("{sweep}", "method: grid\nparameters: {a: {values: [1]}}\n"),
    ),
]

TABLES = [
    *(
        Bad("table", f"metadata.csv: {what}", PREPARE, write("{images}/metadata.csv", text))
        for what, text in (
            ("empty", ""),
            ("UTF-16", "image,text\na.png,a\n".encode("utf-16")),
            ("Windows-1252", b"image,text\na.png,na\xefve\n"),
            ("an open quote", 'image,text\na.png,"a\nb.png,b\n'),
            ("a column twice", "image,text,text\na.png,a,b\n"),
            ("no column of names", "text\na\n"),
            ("a path that leads out", "image,text\n../x.png,a\n"),
        )
    ),
    *(
        Bad(
            "table",
            f"metadata.jsonl: {what}",
            PREPARE,
            lambda place, text=text: (
                (place.images / "metadata.csv").unlink(),
                write("{images}/metadata.jsonl", text)(place),
            )[1],
        )
        for what, text in (
            ("empty", ""),
            ("torn", '{"image": "a.png", "te'),
            ("a list", "[1]\n"),
            ("nested 50,000 deep", "[" * DEEP),
            ("a number of 5,000 digits", '{"image": "a.png", "text": ' + "9" * 5000 + "}\n"),
            ("half a character", '{"image": "\\ud800.png", "text": "a"}\n'),
        )
    ),
    *(
        Bad("table", f"metadata.csv: {kind} where a file is expected", PREPARE, instead("{images}/metadata.csv", kind))
        for kind in ("pipe", "device")
    ),
    Bad("table", "metadata.csv: 5 GiB", PREPARE, sparse("{images}/metadata.csv", HUGE)),
]
CASES = [*CONFIGS, *MANIFESTS, *SAMPLES, *RUNS, *OPTIONS, *SWEEPS, *TABLES]
