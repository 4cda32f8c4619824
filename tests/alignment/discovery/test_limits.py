"""Proposals that hang, allocate, crash, print, lie or pry: each costs itself alone, and says why."""

import os
import re
import time
from pathlib import Path

import pytest

from nearfar.alignment.discovery.limits import LimitedProcess, Limits, Outcome
from nearfar.alignment.discovery.proposals import Proposal
from nearfar.errors import TrainingError, UsageError
from support import discovery_task

TASK = "support.discovery_task:"
HEAD = "def loss(a, b, c, d):\n    "
EVERYWHERE = "for i in range(3, 60):\n        try: os.write(i, b'said')\n        except OSError: pass\n    os._exit(0)"
GOOD = "return F.softplus(-beta * (a - b - c + d))"
DPO = Proposal("dpo", expression="softplus(-z)")


def code(text: str, before: str = "import os, time") -> Proposal:
    return Proposal("code", code=f"{before}\n{HEAD}{text}")


@pytest.fixture(scope="module")
def tried():
    limits = Limits(processor_seconds=1, memory_mib=300, wall_seconds=60)
    with LimitedProcess(TASK + "make", {"scale": 2.0}, limits=limits, run_code=True) as process:
        yield process


@pytest.fixture(scope="module")
def impatient():
    with LimitedProcess(TASK + "make", limits=Limits(wall_seconds=1.0), run_code=True) as process:
        yield process


@pytest.fixture(autouse=True)
def it_goes_on(request):
    """After whatever a test proposed, the next proposal is measured as if nothing had been."""
    yield
    for name in ("tried", "impatient"):
        if name in request.fixturenames:
            outcome = request.getfixturevalue(name)(DPO)
            assert outcome.reason == ""
            assert outcome.fitness is not None
            assert outcome.fitness > 0


def test_the_three_ways_to_propose_are_one_loss(tried):
    ways = [DPO, Proposal("named", objective="dpo", parameters={"beta": 0.05}), code(GOOD)]
    found = [tried(way) for way in ways]
    assert all(outcome.reason == "" and outcome.error == "" for outcome in found)
    assert found[0].measures["drawn"] == found[1].measures["drawn"] == found[2].measures["drawn"]
    assert all(outcome.fitness == pytest.approx(found[0].fitness, rel=1e-5) for outcome in found)
    here = discovery_task.make(2.0)(DPO.objective_of())
    assert found[0].fitness == pytest.approx(here["fitness"], rel=1e-6)
    other = tried(Proposal("dpo", expression="softplus(-z)", parameters={"beta": 0.5}))
    assert other.fitness != pytest.approx(found[0].fitness, rel=1e-2)


def test_it_is_stopped_when_it_computes_for_ever(tried):
    outcome = tried(code("while True: pass"))
    assert outcome.reason == "processor"
    assert "1 seconds" in outcome.error
    assert 0.9 <= outcome.seconds <= 2.5


def test_a_signal_handler_does_not_save_it(tried):
    outcome = tried(code("signal.signal(signal.SIGXCPU, lambda *_: None)\n    while True: pass", "import signal"))
    assert outcome.reason == "processor"


@pytest.mark.parametrize("text", ["time.sleep(600)", "os.closerange(3, 60); time.sleep(600)"])
def test_it_is_stopped_when_it_waits_for_ever(impatient, text):
    began = time.monotonic()
    outcome = impatient(code(text))
    assert outcome.reason == "wall"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "text",
    [
        "return sum(x.sum() for x in [torch.ones(10**7) for _ in range(100)])",
        "x = [bytearray(10**6) for _ in range(1000)]",
        "x = 'a' * 10**9",
        "return torch.ones(10**6, 10**6)",
    ],
)
def test_it_is_stopped_when_it_allocates(tried, text):
    outcome = tried(code(text))
    assert outcome.reason == "memory"
    assert "300 MiB" in outcome.error


def test_memory_within_the_limit_is_given(tried):
    assert tried(code(f"x = torch.ones(2 * 10**7); {GOOD}")).reason == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("os._exit(0)", "ended with 0"),
        ("os._exit(7)", "ended with 7"),
        ("signal.raise_signal(11)", "SIGSEGV"),
        ("signal.raise_signal(9)", "SIGKILL"),
        (EVERYWHERE.replace("said", "{garbage"), ""),
        (EVERYWHERE.replace("said", "[1, 2]"), ""),
        (EVERYWHERE.replace("said", '{"fitness": "high"}'), ""),
    ],
)
def test_it_dies(tried, text, says):
    outcome = tried(code(text, "import os, signal"))
    assert outcome.reason == "died"
    assert says in outcome.error
    assert outcome.fitness is None


def test_it_says_too_much(tried):
    flood = "while True:\n        for i in range(3, 60):\n            try: os.write(i, b'x' * 10000)\n"
    assert tried(code(flood + "            except OSError: pass")).reason == "answer"


def test_what_it_prints_is_nobody_s(tried, capfd):
    outcome = tried(code("print('{}' * 100000); os.write(1, b'x'); os.write(2, b'x'); " + GOOD))
    assert outcome.reason == ""
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("proposal", "says"),
    [
        (code("return (a - b - c + d) / 0"), "not finite"),
        (code("return (a - b - c + d).mean()"), r"\[10\]"),
        (code("return (a - b - c + d)[:, None]"), r"\[10\]"),
        (code("return 1.0"), "no tensor"),
        (code("return None"), "no tensor"),
        (code("return F.softplus(-beta * (a - b))"), "reference_chosen"),
        (code("return F.softplus(-beta * (a - b - c + d)).detach()"), "no gradient"),
        (code("return torch.sqrt((a - b - c + d).abs())"), "where policy and reference agree"),
        (code("return loss(a, b, c, d)"), "RecursionError"),
        (code("raise ValueError('no idea')"), "no idea"),
        (code("return a +"), "SyntaxError"),
        (code(GOOD, "raise SystemExit"), "SystemExit"),
        (code(f"{GOOD}\n\ndef other(a, b, c, d):\n    {GOOD}"), "it defines 2"),
        (Proposal("none", code="x = 1"), "it defines 0"),
        (Proposal("two", code="def loss(a, b):\n    return a - b"), "takes 2"),
        (Proposal("constant", expression="1"), "no gradient"),
        (Proposal("log", expression="log(z)"), "not finite"),
        (Proposal("syntax", expression="softplus("), "cannot be read"),
        (Proposal("unknown", objective="no-such-loss"), "no-such-loss"),
        (Proposal("rows", objective="infonce"), "no objective of pairs"),
        (Proposal("option", objective="dpo", parameters={"gamma": 1}), "gamma"),
    ],
)
def test_it_is_refused_with_what_to_mend(tried, proposal, says):
    outcome = tried(proposal)
    assert outcome.reason == "refused", outcome
    assert re.search(says, outcome.error)


def test_it_reaches_neither_files_nor_processes_nor_the_network(tried, tmp_path):
    secret, written = tmp_path / "secret", tmp_path / "written"
    secret.write_text("x")
    for text in (
        f"open({str(secret)!r}).read()",
        f"os.listdir({str(tmp_path)!r})",
        f"open({str(written)!r}, 'w').write('x')",
        f"os.open({str(written)!r}, os.O_CREAT | os.O_WRONLY)",
        f"os.remove({str(secret)!r})",
        "os.fork()",
        "os.system('true')",
        "os.kill(os.getppid(), 9)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
    ):
        outcome = tried(code(f"{text}; {GOOD}"))
        assert outcome.reason == "refused", (text, outcome)
        assert "may not" in outcome.error or "Operation not permitted" in outcome.error, (text, outcome)
    assert secret.exists()
    assert not written.exists()
    # C++ opens files without telling Python; the limit of their size is 0
    assert tried(code(f"torch.save(a, {str(written)!r}); {GOOD}")).reason != ""
    assert not written.exists() or written.stat().st_size == 0


def test_code_is_not_run_unless_asked_for():
    with LimitedProcess(TASK + "plain") as process:
        assert process(Proposal("a", expression="softplus(-z)", parameters={"beta": 2.0})).fitness == 3.0
        outcome = process(code(GOOD))
        assert outcome.reason == "refused"
        assert "code" in outcome.error
    with pytest.raises(UsageError, match="process of its own"):
        code(GOOD).objective_of()


@pytest.mark.parametrize("task", ["not_finite", "no_fitness", "no_number"])
def test_a_fitness_that_is_no_number(task):
    with LimitedProcess(TASK + task) as process:
        outcome = process(DPO)
        assert outcome.reason == "refused"
        assert outcome.fitness is None


@pytest.mark.parametrize(
    ("task", "arguments", "says"),
    [
        ("support.discovery_task:broken", {}, "no data here"),
        ("support.discovery_task:nothing", {}, "nothing"),
        ("support.no_such_module:make", {}, "no_such_module"),
        ("support.discovery_task:make", {"size": 3}, "size"),
    ],
)
def test_a_task_that_cannot_be_made(task, arguments, says):
    with pytest.raises(TrainingError, match=says):
        LimitedProcess(task, arguments)


def test_settings_that_make_no_sense():
    for task, arguments in (("module", {}), (TASK + "make", {"scale": float("nan")}), (TASK + "make", {"x": object()})):
        with pytest.raises(UsageError):
            LimitedProcess(task, arguments)
    for limits in ({"processor_seconds": 0}, {"processor_seconds": 1.5}, {"wall_seconds": float("inf")}):
        with pytest.raises(UsageError):
            Limits(**limits)


def test_it_starts_again_when_it_was_killed():
    with LimitedProcess(TASK + "plain") as process:
        assert process(DPO).fitness == 1.05
        os.kill(process._process.pid, 9)
        process._process.wait()
        assert process(DPO).fitness == 1.05


def test_nothing_is_left_behind():
    process = LimitedProcess(TASK + "make", limits=Limits(wall_seconds=30), run_code=True)
    pid, folder = process._process.pid, process._folder.name
    assert isinstance(process(DPO), Outcome)
    process.close()
    process.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).exists()
