"""``lightning dashboard``: the report, live, on this machine; ``lightning dashboard push``: the same to a W&B server."""

from pathlib import Path

from meddiff.cli.parsing import SentenceParser
from meddiff.common.errors import UserError


def main(arguments: list[str]) -> int:
    """Parse and serve until Ctrl-C; returns the exit code.

    Raises:
        UserError: nothing to watch, a host that is not this machine, a taken port, no such model; or what W&B refuses.
    """
    if arguments[:1] == ["push"]:
        return push_to_wandb(arguments[1:])
    parser = SentenceParser(
        prog="lightning dashboard",
        description="The report as a page that follows the runs while they train. On this machine only; nothing is sent.",
    )
    parser.add_argument("runs", type=str, nargs="*", metavar="RUN", help="Run folders; by default all of --watch.")
    parser.add_argument("--watch", type=str, default="runs", help="Folder with runs, also those that come later.")
    parser.add_argument(
        "--model",
        type=str,
        nargs="+",
        default=[],
        metavar="RUN",
        help="Models to ask about pictures of your own, at /try.",
    )
    parser.add_argument("--timesteps", type=int, default=10, help="Of the paper's 40, for each question at /try.")
    parser.add_argument("--vae", type=str | None, default=None, help="Autoencoder of the models, if it has moved.")
    parser.add_argument("--ema", type=bool, default=False, help="Ask the averaged weights.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="A name of this machine on itself.")
    parser.add_argument("--port", type=int | None, default=None, help="By default the first free one from 8765.")
    options = parser.parse_args(arguments)
    from meddiff.reports.dashboard.serve import listen, serve
    from meddiff.reports.dashboard.watched import Watched
    from meddiff.runs.folder import read_run

    runs = [Path(run) for run in options.runs]
    for run in runs:
        read_run(run)  # says what is no run
    folder = None if runs else Path(options.watch)
    if folder is not None and not folder.is_dir():
        raise UserError(f"There is no folder {folder} to watch: name one with --watch, or run folders.")
    if not 1 <= options.timesteps <= 40:
        raise UserError(f"--timesteps is {options.timesteps}: 1 to 40.")
    bound = listen(options.host, options.port)
    asked = None
    if options.model:
        from meddiff.cli.asking import AskedModels

        asked = AskedModels(options.model, options.timesteps, options.vae, options.ema, options.device)
    serve(Watched(folder, runs), bound, asked)
    return 0


def push_to_wandb(arguments: list[str]) -> int:
    """Parse and send; returns the exit code.

    Raises:
        UserError: a part is not installed, nobody is logged in, or W&B refuses.
    """
    parser = SentenceParser(
        prog="lightning dashboard push",
        description="Make the trade-off's chart, a workspace and a report in W&B, for runs that are there. Needs an account.",
    )
    parser.add_argument("runs", type=str, nargs="*", metavar="RUN", help="Run folders; by default all of the project.")
    parser.add_argument("--entity", type=str, required=True, help="User or team in W&B.")
    parser.add_argument("--project", type=str, default="meddiff-tradeoff", help="Project in W&B.")
    options = parser.parse_args(arguments)
    from meddiff.cli.wandb_push import push
    from meddiff.common.outside import terminal

    for address in push([Path(run) for run in options.runs], options.project, options.entity):
        print(terminal(address))
    return 0
