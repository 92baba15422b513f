"""The runner of a sweep: starts, watches, stops and goes on with runs until all are done. Source: own (spec, section 4)."""

import os
import time
from collections.abc import Callable

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, make_folder, no_room
from meddiff.common.processes import started
from meddiff.launch import hyperband
from meddiff.launch.command import argv, environment_of, macros, parameter_file
from meddiff.launch.job import JOBS, End, Job, Place, is_alive, judge, launch, take_lock
from meddiff.launch.objective import Measured
from meddiff.launch.parameters import Values
from meddiff.launch.plan import Plan
from meddiff.launch.record import FAILED, FINISHED, INTERRUPTED, RUNNING, STOPPED, Record, RunRecord, folder_of
from meddiff.launch.stop_request import StopRequest
from meddiff.launch.suggestions import next_values, total_runs
from meddiff.launch.sweep_file import SweepFile, canonical

#: Seconds between two looks at the runs, and between two at their metrics.
LOOK_S, READ_S = 0.1, 1.0
#: A run that is interrupted so often within one call, nobody asking and without getting further, is a failed one.
MOST_STARTS = 3


class Runner:
    """Runs a sweep to its end.

    Args:
        sweep: the file.
        plan: how it is run; whoever makes a runner holds the lock of ``plan.folder``.
        show: called at every look, to draw a table.

    Attributes:
        record: of all runs.
        running: those that are under way.
        waiting: numbers of those that go on when there is a place.
        notes: sentences for whoever looks.
        blocked: why nothing begins any more; "" it does.
        stopping: it was asked to stop.
        total: runs of the whole sweep.
    """

    def __init__(self, sweep: SweepFile, plan: Plan, show: Callable[["Runner"], None] = lambda runner: None) -> None:
        self.sweep, self.plan, self._show = sweep, plan, show
        self.record = Record(plan.folder)
        self.running: list[Job] = []
        self.waiting: list[int] = []
        self.notes: list[str] = []
        self.blocked = ""
        self.stopping = False
        self.total = total_runs(sweep)
        self._interruptions: dict[int, tuple[int, int]] = {}  # number -> (how often, rows it had then)
        self._measured: dict[int, Measured] = {}
        self._read = 0.0
        self._reached = False

    # ---- what others look at ------------------------------------------------------------------------------------

    def place(self, one: RunRecord) -> Place:
        """Where the files of a run lie."""
        return Place(self.plan.folder, one.folder)

    def measured(self, one: RunRecord) -> Measured:
        """What a run has logged so far."""
        return self._measured.setdefault(one.number, Measured(self.place(one).run))

    # ---- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all runs are done, or none can begin any more.

        Raises:
            UserError: the disk is full, or no run logs the metric; what runs is waited for first.
            KeyboardInterrupt: asked to stop (also by SIGTERM); the runs were told and have ended.
        """
        make_folder(self.plan.folder / JOBS)
        with StopRequest() as asked:
            try:
                self._adopt()
                while self._step():
                    self._show(self)
                    time.sleep(LOOK_S)
                    asked.heed()
                self._show(self)
            except BaseException:
                self._stop_all(asked)
                raise
        if self.blocked:
            raise UserError(self.blocked)

    def _step(self) -> bool:
        """Look once; whether there is more to do."""
        for job in [one for one in self.running if one.ended()]:
            self.running.remove(job)
            self._end(job)
        if time.monotonic() > self._read + READ_S:
            self._stop_the_worst()
            self._look_at_target()
            self._read = time.monotonic()
        tried = True
        while tried and len(self.running) < self.plan.jobs and not self.blocked:
            tried = self._start_one()
        return bool(self.running) or (bool(self.waiting) and not self.blocked)

    def _adopt(self) -> None:
        """Take stock of what an earlier runner left: what still runs is waited for, what was cut off goes on."""
        for one in list(self.record.runs.values()):
            if one.state in (FINISHED, STOPPED) or (one.state == FAILED and not self.plan.retry_failed):
                continue
            place = self.place(one)
            if is_alive(place, one):
                self.notes.append(f"{one.folder} still runs although its runner is gone: waiting for it")
                self.running.append(Job(one, place))
                if one.stopped_by:  # its runner may not have come to tell it
                    self.running[-1].ask_to_stop()
            elif place.finished:
                self._ended(one, End(FINISHED))
            elif one.state == RUNNING and one.stopped_by:
                self._ended(one, End(STOPPED, one.stopped_by))
            else:
                self.waiting.append(one.number)

    # ---- beginning ----------------------------------------------------------------------------------------------

    def _start_one(self) -> bool:
        """Start what waits, else a new run; whether a process was started."""
        for number in sorted(self.waiting):
            one = self.record.runs[number]
            if self._start(one.number, one.values, one.folder):
                return True
        if any(number in self.waiting for number in self.record.runs):
            return False  # a child of an earlier start still holds its lock
        if self._reached:
            return False
        values = next_values(self.sweep, self.plan.seed, list(self.record.runs.values()), self.measured)
        if values is None:
            return False
        number = max(self.record.runs, default=0) + 1
        return self._start(number, values, folder_of(number, values))

    def _start(self, number: int, values: Values, folder: str) -> bool:
        place = Place(self.plan.folder, folder)
        lock: int | None = None
        try:
            lock = take_lock(place.lock)
            if lock is None:
                return False
            words = argv(self.sweep.command, self.sweep.program, values, place.json, self.plan.environment)
            with atomic_open(place.parameters, "w") as stream:
                stream.write(parameter_file(values))
            if "args_json_file" in macros(self.sweep.command):
                with atomic_open(place.json, "w") as stream:
                    stream.write(canonical(values))
            self.record.append("started", number, parameters=values, folder=folder)
            if number in self.waiting:
                self.waiting.remove(number)
            one = self.record.runs[number]
            environment = environment_of(
                self.plan.environment,
                self.plan.name,
                self.plan.sweep_id,
                number,
                (place.run.absolute(), place.parameters.absolute()),
                one.starts - 1,
                max(1, self.plan.cores // self.plan.jobs),
            )
            try:
                process = launch(words, environment, place, lock)
            except (FileNotFoundError, PermissionError, ValueError) as error:
                self._ended(one, End(FAILED, f"{words[0]} cannot be started ({error})"))
                return True
            self.running.append(Job(one, place, process))
            one.pid, one.began = process.pid, started(process.pid) or ""
            self.record.append("process", number, pid=one.pid, began=one.began)
        except OSError as error:
            self._no_room(error)
        finally:
            if lock is not None:
                os.close(lock)  # the child has it
        return True

    # ---- ending -------------------------------------------------------------------------------------------------

    def _end(self, job: Job) -> None:
        end, one = judge(job), job.record
        if end.no_room:
            self.blocked = f"{one.folder} found no room to write: make room, and the same command goes on from there."
        elif end.state == INTERRUPTED and not self.stopping and self._interrupted_too_often(one, job):
            end = End(FAILED, f"{end.reason}, {MOST_STARTS} times", end.last_lines)
        self._ended(one, end)
        if one.state == INTERRUPTED and not self.stopping:
            self.waiting.append(one.number)
        if one.state == FINISHED and self.sweep.objectives:
            self._known_metric(one)

    def _interrupted_too_often(self, one: RunRecord, job: Job) -> bool:
        if job.adopted:
            return False
        times, before = self._interruptions.get(one.number, (0, 0))
        rows = len(self.measured(one).rows)
        further = rows > before and job.process is not None and job.process.returncode != 0
        self._interruptions[one.number] = (1 if further else times + 1, rows)
        return self._interruptions[one.number][0] >= MOST_STARTS

    def _ended(self, one: RunRecord, end: End) -> None:
        try:
            self.record.append("ended", one.number, state=end.state, reason=end.reason, last_lines=list(end.last_lines))
        except OSError as error:
            one.state, one.reason = end.state, end.reason  # known here; a later call finds it out again
            self._no_room(error)

    def _no_room(self, error: OSError) -> None:
        """No new runs; those that run are waited for.

        Raises:
            OSError: it is something else.
        """
        sentence = no_room(error)
        if sentence is None:
            raise error
        self.blocked = str(sentence)

    def _known_metric(self, one: RunRecord) -> None:
        """A name that no run logs would make every search a random one: said after the first run that finished."""
        needed = self.sweep.method in ("bayes", "custom") or self.sweep.early_terminate is not None
        needed = needed or any(objective.target is not None for objective in self.sweep.objectives)
        done = [run for run in self.record.runs.values() if run.state == FINISHED]
        names = [objective.name for objective in self.sweep.objectives]
        missing = [name for name in names if all(self.measured(run).newest(name) is None for run in done)]
        if needed and missing:
            logged = ", ".join(self.measured(one).figures()) or "nothing"
            self.blocked = (
                f"{self.sweep.path}: {one.folder} finished and has no value of {missing[0]} (it logged {logged}): correct "
                "the name of the metric, and the same command goes on."
            )

    def _stop_the_worst(self) -> None:
        """Hyperband, over all runs of the sweep."""
        rule = self.sweep.early_terminate
        if rule is None:
            return
        name, goal = self.sweep.objectives[0].name, self.sweep.objectives[0].goal
        runs, jobs = list(self.record.runs.values()), {job.record.number: job for job in self.running}
        courses = [
            hyperband.Course(one.number in jobs and not jobs[one.number].asked, self.measured(one).values(name))
            for one in runs
        ]
        for verdict in hyperband.verdicts(rule, goal, courses):
            one, sign = runs[verdict.run], -1 if goal == "maximize" else 1
            reason = (
                f"{name} was {sign * verdict.value:.4g} at value {verdict.band}, behind {sign * verdict.threshold:.4g}"
            )
            try:
                self.record.append("stop", one.number, reason=reason)  # before the signal: a killed runner remembers
            except OSError as error:
                self._no_room(error)
                continue
            jobs[one.number].ask_to_stop()

    def _look_at_target(self) -> None:
        for objective in self.sweep.objectives if not self._reached else []:
            if objective.target is None:
                continue
            for one in self.record.runs.values():
                if any(map(objective.reached, self.measured(one).values(objective.name))):
                    self._reached = True
                    self.notes.append(f"{one.folder} reached {objective.name} {objective.target}: no new runs")
                    return

    def _stop_all(self, asked: StopRequest) -> None:
        """Tell the runs to stop, wait half a minute for them, and write down what became of them."""
        self.stopping = True
        for job in self.running:
            job.ask_to_stop()
        while self.running:
            for job in [one for one in self.running if one.ended() or not one.can_be_asked]:
                self.running.remove(job)
                if job.can_be_asked:
                    self._end(job)
            for job in self.running if asked.again else []:
                job.kill()
            self._show(self)
            time.sleep(LOOK_S)


def count(runner: Runner, state: str) -> int:
    """Runs in a state."""
    return sum(one.state == state for one in runner.record.runs.values())
