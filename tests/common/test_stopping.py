"""Signals that ask the command to stop: the exit code says which, and a second one ends it at once."""

import signal
import subprocess
import sys

import pytest

from meddiff.common.stopping import Stopped, exit_code, signals_stop
from tests.builders.children import environment

SLEEPER = """
import sys, time
from meddiff.common.stopping import signals_stop
with signals_stop():
    try:
        print("ready", flush=True)
        time.sleep(100)
    except KeyboardInterrupt:
        print("cleaning", flush=True)
        time.sleep(100)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_as_ctrl_c_is(signum):
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt) as stopped, signals_stop():
        signal.raise_signal(signum)
    assert isinstance(stopped.value, Stopped)
    assert exit_code(stopped.value) == 128 + signum
    assert signal.getsignal(signum) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_stop():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_same_request_twice_is_one_and_a_second_request_ends_at_once():
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], env=environment(), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.terminate()
    assert child.stdout.readline() == "cleaning\n"
    child.terminate()  # as GNU timeout does: to the process, and to its group
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(2.5)
    child.terminate()
    assert child.wait(60) == -signal.SIGTERM
    child.stdout.close()
