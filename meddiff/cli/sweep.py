"""``lightning sweep``: the runs of a W&B sweep file on this machine, without an account or a server."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from meddiff.cli.arguments import read_yaml
from meddiff.cli.parsing import SentenceParser
from meddiff.common.errors import UserError, refuse
from meddiff.common.locks import locked
from meddiff.common.outside import run_name, terminal
from meddiff.launch.command import argv
from meddiff.launch.optuna_search import need_optuna
from meddiff.launch.plan import Plan
from meddiff.launch.record import FAILED
from meddiff.launch.runner import Runner, count
from meddiff.launch.sweep_file import SweepFile, read_sweep_file
from meddiff.launch.sweep_folder import open_sweep, settings_to_try
from meddiff.launch.table import LiveTable, final_list, write_rows
from meddiff.runs import names

#: Programs that are this command.
OWN = ("lightning", "meddiff")


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code: 1 if a run failed.

    Raises:
        UserError: a file that cannot be run, a parameter that its command does not take, a folder of another sweep, no
            room on the disk.
        KeyboardInterrupt: asked to stop; the runs have ended and go on with the same command.
    """
    parser = SentenceParser(
        prog="lightning sweep",
        description="Run a W&B sweep file on this machine. The same command goes on with a sweep that was stopped or killed.",
    )
    parser.add_argument(
        "file", type=str, metavar="FILE", help="The sweep file, such as sweeps/quickstart_tradeoff.yaml."
    )
    parser.add_argument("--jobs", type=int, default=1, help="Runs at the same time; they share the cores.")
    parser.add_argument("--runs", type=str, default="runs", help="Folder of all run folders.")
    parser.add_argument(
        "--name", type=str | None, default=None, help="Folder of the sweep, RUNS/NAME; by default the name in the file."
    )
    parser.add_argument(
        "--seed", type=int | None, default=None, help="Of random and Bayesian search; by default 0. Grids have none."
    )
    parser.add_argument(
        "--retry-failed", "--retry_failed", action="store_true", help="Start failed runs again, from their checkpoints."
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: give the number of runs at the same time, 1 or more.")
    sweep = read_sweep_file(options.file)
    read_yaml(options.file)  # says what stands there twice
    if sweep.method in ("bayes", "custom"):
        need_optuna()
    name = run_name(options.name or sweep.name)
    folder = Path(options.runs) / name
    environment = with_own_programs(os.environ)
    check_settings(sweep, environment)
    with locked(folder, "lightning sweep"):
        sweep_id, seed = open_sweep(folder, sweep, options.seed)
        plan = Plan(folder, name, sweep_id, seed, options.jobs, options.retry_failed, environment=environment)
        return run_sweep(sweep, plan)


def run_sweep(sweep: SweepFile, plan: Plan) -> int:
    """Run it, with a table while it runs, and a list, ``rows.csv`` and the report at its end; returns the exit code."""
    table = LiveTable()
    runner = Runner(sweep, plan, table)
    try:
        runner.run()
    finally:
        table.close()
        with suppress(OSError):  # a full disk is told by what it stopped
            rows = write_rows(runner)
    print("\n".join(final_list(runner)))
    print(f"\nrows:   {terminal(rows)}")
    page = write_page(runner)
    if page is not None:
        print(f"look:   {terminal(page)}")
    failed = count(runner, FAILED)
    if failed:
        print(
            f"error: {failed} of {len(runner.record.runs)} runs failed, listed above with their reasons; "
            "--retry-failed starts them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def write_page(runner: Runner) -> Path | None:
    """``report.html`` of all runs that have something to show; None when there is none, or it cannot be written."""
    folders = [runner.place(one).run for one in runner.record.runs.values()]
    folders = [folder for folder in folders if any((folder / mark).is_file() for mark in names.MARKS)]
    if not folders:
        return None
    from meddiff.reports.page.report import write_report

    try:
        return write_report(folders, runner.plan.folder / names.REPORT)
    except UserError as error:  # the runs are what counts, and they are done
        print(f"no report: {terminal(error)}", file=sys.stderr)
        return None


def with_own_programs(environment: "os._Environ[str]") -> dict[str, str]:
    """The environment with the programs of this installation first: ``lightning`` and ``python`` are those that run now."""
    own = str(Path(sys.executable).parent)
    return {**environment, "PATH": os.pathsep.join(part for part in (own, environment.get("PATH", "")) if part)}


def check_settings(sweep: SweepFile, environment: dict[str, str]) -> None:
    """Refuse before any run what the command would refuse in one: a program or parameter that is not there, a wrong value.

    Raises:
        UserError: a sentence for each.
    """
    settings = settings_to_try(sweep.parameters)
    words = [argv(sweep.command, sweep.program, values, "parameters.json", environment) for values in settings]
    program = words[0][0] if words[0] else ""
    if not program or shutil.which(program, path=environment["PATH"]) is None:
        raise UserError(f"{sweep.path}: command: there is no program {program!r} here: correct it, or install it.")
    ours = [found for one in words if (found := own_arguments(one)) is not None]
    if ours and "fit" not in ours[0]:
        raise UserError(f"{sweep.path}: command: a run ends with a mark that `lightning fit` writes: name that verb.")
    if ours:
        print(f"lightning sweep: checking {len(ours)} settings of the parameters", file=sys.stderr, flush=True)
        refuse([f"{sweep.path}: {problem}" for problem in problems_of(ours, environment)])


def own_arguments(words: Sequence[str]) -> list[str] | None:
    """What follows ``lightning`` in a command, however it is called; None of another program.

    Example:
        >>> own_arguments(["/usr/bin/env", "python", "-m", "meddiff", "fit"]), own_arguments(["python", "train.py"])
        (['fit'], None)
        >>> own_arguments(["/usr/bin/env"]) is None
        True
    """
    rest = list(words[1:] if words[0] == "/usr/bin/env" else words)
    if not rest:
        return None
    if Path(rest[0]).name in OWN:
        return rest[1:]
    return rest[3:] if rest[1:3] == ["-m", "meddiff"] else None


def problems_of(commands: list[list[str]], environment: dict[str, str]) -> list[str]:
    """What ``lightning`` says of commands before it starts anything; each sentence once.

    In a process of its own: the runner may live for days, and torch would with it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "meddiff.cli.sweep_settings"],
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode < 0 or done.returncode >= 128:
        raise KeyboardInterrupt
    if done.returncode:
        raise UserError(
            "the settings of the parameters could not be checked, as said above: try one as a single command."
        )
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return list(dict.fromkeys(problem for problems in found for problem in problems))
