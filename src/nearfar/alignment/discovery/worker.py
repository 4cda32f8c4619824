"""The process that tries proposals: it holds the task, and forks a copy with limits for each proposal.

It speaks JSON, a line a question and a line an answer, by the pipes it was started with.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Fitness: TypeAlias = Callable[[Any], "float | Mapping[str, float]"]

_MOST_SAID = 2000
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "shutil.",
    "ctypes.",
    "pty.",
    "resource.",
    "tempfile.",
    "webbrowser.",
    "syslog.",
)
_FORBIDDEN_OF_OS = frozenset(
    f"os.{name}"
    for name in [
        "chdir",
        "chflags",
        "chmod",
        "chown",
        "exec",
        "fork",
        "forkpty",
        "kill",
        "killpg",
        "link",
        "lockf",
        "mkdir",
        "posix_spawn",
        "remove",
        "removexattr",
        "rename",
        "rmdir",
        "setxattr",
        "spawn",
        "startfile",
        "symlink",
        "system",
        "truncate",
        "utime",
    ]
)
_LOOKS = frozenset({"os.listdir", "os.scandir"})


def serve() -> None:
    """Answer questions until they end. The first sets the task, each other one is a proposal."""
    questions, answers = os.dup(0), os.dup(1)
    # what anybody prints must not be taken for an answer
    _quiet(streams=(0, 1))
    asked = os.fdopen(questions, "rb")
    try:
        settings = json.loads(asked.readline())
        fitness = _task(settings)
    except BaseException as error:
        _say(answers, {"error": _told(error)})
        return
    _say(answers, {})
    while question := asked.readline():
        _say(answers, _tried(settings, fitness, json.loads(question), (questions, answers)))


def _task(settings: Mapping[str, Any]) -> Fitness:
    import torch

    from nearfar.alignment.discovery import validate  # noqa: F401  loaded here, so that no copy needs to

    torch.set_num_threads(1)
    # an optimiser loads torch's compiler when it is first made; no copy should have to
    torch.optim.SGD([torch.zeros(1)], lr=1.0)
    module, function = settings["task"].split(":")
    made: Fitness = getattr(importlib.import_module(module), function)(**settings["arguments"])
    return made


def _tried(
    settings: Mapping[str, Any], fitness: Fitness, proposal: Mapping[str, Any], mine: tuple[int, int]
) -> dict[str, Any]:
    limits = settings["limits"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            _confine(limits, mine)
            _say(writing, _measured(settings, fitness, proposal))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    said, reason = _heard(reading, limits, mine[0])
    os.close(reading)
    if reason:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    answer = _understood(said, reason, status, used.ru_utime + used.ru_stime, limits)
    return {**answer, "seconds": used.ru_utime + used.ru_stime}


def _measured(settings: Mapping[str, Any], fitness: Fitness, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a proposal the fitness and measures, or the error; in the copy."""
    from nearfar.alignment.discovery.proposals import Proposal
    from nearfar.alignment.discovery.validate import check

    try:
        proposal = Proposal.of(given)
        objective = proposal.objective_of(beta=settings["beta"], run_code=settings["run_code"])
        check(objective)
        found = fitness(objective)
        measures = {str(name): float(value) for name, value in found.items()} if isinstance(found, Mapping) else {}
        value = measures["fitness"] if measures else float(found)  # type: ignore[arg-type]
        if not all(map(math.isfinite, (value, *measures.values()))):
            return {"reason": "refused", "error": f"the fitness is no finite number: {measures or value}"}
    except MemoryError:
        return {"reason": "memory", "error": f"it needs more memory than {settings['limits']['memory_mib']} MiB"}
    except BaseException as error:
        if "allocate memory" in str(error):  # how torch says it
            return {"reason": "memory", "error": f"it needs more memory than {settings['limits']['memory_mib']} MiB"}
        return {"reason": "refused", "error": _told(error)}
    return {"fitness": value, "measures": measures}


def _confine(limits: Mapping[str, Any], mine: tuple[int, int]) -> None:
    """The limits of a copy, which it cannot raise again."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    os.setsid()
    for descriptor in mine:
        os.close(descriptor)
    _quiet(streams=(0, 1, 2))
    with open("/proc/self/statm", "rb") as held:
        pages = int(held.read().split()[0])
    memory = pages * resource.getpagesize() + limits["memory_mib"] * 2**20
    seconds = limits["processor_seconds"]
    for what, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, 64, 64),
    ):
        resource.setrlimit(what, (soft, hard))
    roots = {os.path.realpath(entry) for entry in (*sys.path, sys.prefix, sys.base_prefix) if entry}
    allowed = tuple(root.rstrip(os.sep) + os.sep for root in roots - {os.path.realpath(os.getcwd())})
    sys.addaudithook(_Guard(allowed))


class _Guard:
    """Refuses what a loss has no need of; where Python tells of it."""

    def __init__(self, readable: tuple[str, ...]) -> None:
        self.readable = readable

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes or not self._may_read(path):
                raise PermissionError(f"a proposal may not open {path!r}")
        elif event in _LOOKS:
            if not self._may_read(arguments[0]):
                raise PermissionError(f"a proposal may not list {arguments[0]!r}")
        elif event in _FORBIDDEN_OF_OS or event.startswith(_FORBIDDEN):
            raise PermissionError(f"a proposal may not use {event}")

    def _may_read(self, path: object) -> bool:
        if not isinstance(path, str | bytes):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return (real + os.sep).startswith(self.readable)


def _heard(reading: int, limits: Mapping[str, Any], questions: int) -> tuple[bytes, str]:
    """What the copy says until it ends, and which limit it passed before."""
    deadline = time.monotonic() + limits["wall_seconds"]
    said = b""
    while True:
        ready = select.select([reading, questions], [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            return said, "wall"
        if questions in ready:  # one question at a time: who asked is gone, and the copy dies with this process
            os._exit(0)
        part = os.read(reading, 65_536)
        if not part:
            break
        said += part
        if len(said) > limits["answer_bytes"]:
            return said, "answer"
    return said, _ends(reading, deadline)


def _ends(reading: int, deadline: float) -> str:
    """The copy has closed its pipe, which it does at its end; it is given until the deadline."""
    while time.monotonic() < deadline:
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return ""
        time.sleep(0.002)
    return "wall"


def _understood(said: bytes, reason: str, status: int, seconds: float, limits: Mapping[str, Any]) -> dict[str, Any]:
    if reason == "wall":
        return {"reason": reason, "error": f"it was stopped after {limits['wall_seconds']:g} seconds"}
    if reason == "answer":
        return {"reason": reason, "error": f"it said more than {limits['answer_bytes']} bytes"}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and seconds >= limits["processor_seconds"]):
            return {
                "reason": "processor",
                "error": f"it used more than {limits['processor_seconds']} seconds of processor",
            }
        return {"reason": "died", "error": f"its process was ended by {signal.Signals(number).name}"}
    try:
        answer = json.loads(said)
        if answer.get("reason"):
            return {"reason": str(answer["reason"]), "error": str(answer["error"])}
        measures = {str(name): float(value) for name, value in answer["measures"].items()}
        fitness = float(answer["fitness"])
        if all(map(math.isfinite, (fitness, *measures.values()))):
            return {"fitness": fitness, "measures": measures}
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    code = os.waitstatus_to_exitcode(status)
    return {"reason": "died", "error": f"its process ended with {code} and without an answer"}


def _told(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= _MOST_SAID else text[:_MOST_SAID] + " ..."


def _say(descriptor: int, answer: Mapping[str, Any]) -> None:
    left = json.dumps(answer).encode() + b"\n"
    while left:
        left = left[os.write(descriptor, left) :]


def _quiet(streams: tuple[int, ...]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(nothing, stream)
    os.close(nothing)
