"""Send SIGNAL to this process at the audit event number EVENT.

An audit event is an import, an opened or renamed file, a started process and the like. With FROM, counting starts
in the training step of this number. SECOND is sent right after SIGNAL.
"""

import os
import signal
import sys
import time

owner, counted, marks = os.getpid(), [], {}
at, waiting = int(os.environ.get("EVENT", "-1")), "FROM" in os.environ


def send():
    for name in ("SIGNAL", "SECOND"):
        if os.environ.get(name):
            os.kill(owner, getattr(signal, os.environ[name]))
            time.sleep(0.01)  # so that the first is handled first


def hook(event, arguments):
    if waiting or os.getpid() != owner or event == "os.kill":
        return
    counted.append(event)
    if event == "os.chdir":  # what a run does as soon as it handles signals
        marks.setdefault("handled", len(counted))
    if len(counted) == at:
        send()


def begin():
    """Called by the first training step of FROM."""
    global waiting
    waiting = False


def note():
    if "COUNT" in os.environ:
        with open(os.environ["COUNT"], "w") as file:
            file.write(f"{marks.get('handled', 0)} {len(counted)}")


def ended():
    """Called when nothing is left to do but to exit."""
    if "ENDED" in os.environ:
        with open(os.environ["ENDED"], "w") as file:
            file.write(str(len(counted)))


sys.addaudithook(hook)
