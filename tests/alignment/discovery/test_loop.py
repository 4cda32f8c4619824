"""The search: what proposers see and are forgiven, what is written down, and that learning from fitness helps."""

import json

import pytest

from nearfar.alignment.discovery.limits import LimitedProcess, Outcome
from nearfar.alignment.discovery.loop import SEEDS, Archive, Entry, discover, table
from nearfar.alignment.discovery.proposals import Proposal
from nearfar.alignment.discovery.proposers import GrammarProposer, TextProposer, question, read_answer
from nearfar.errors import DataError, UsageError
from support import discovery_task


def length(proposal: Proposal) -> Outcome:
    if "tanh" in proposal.written:
        return Outcome(reason="refused", error="no tanh today")
    return Outcome(fitness=float(len(proposal.written)))


def test_seeds_come_first_and_the_proposer_sees_all_before_it():
    seen = []

    def proposer(archive):
        seen.append([entry.outcome for entry in archive.entries])
        return f"softplus(-z) + {len(archive.entries)}"

    archive = discover(proposer, length, evaluations=3)
    assert [entry.proposal for entry in archive.entries[:4]] == list(SEEDS)
    assert [len(of) for of in seen] == [4, 5, 6]
    assert seen[2][:4] == [length(seed) for seed in SEEDS]
    assert archive.best().fitness == max(entry.fitness for entry in archive.entries)
    assert "softplus(-z) + 4" in table(archive.entries)


def test_a_bad_proposer_costs_an_evaluation_and_is_told():
    answers = iter(
        [
            RuntimeError("no answer"),
            {"name": "x"},
            {"expression": "z", "code": "1"},
            {"expression": "z", "size": "1"},
            {"expression": 3},
            {"expression": "z", "parameters": {"a b": 1}},
            3,
            "tanh(z)",
            "softplus(-z)",
            "softplus(-z)",
        ]
    )
    told = []

    def proposer(archive):
        told.append(archive.entries[-1].outcome.error)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    archive = discover(proposer, length, evaluations=10, seeds=SEEDS[:1])
    errors = [entry.outcome.error for entry in archive.entries[1:]]
    assert told[1:] == errors[:-1]
    assert "no answer" in errors[0]
    assert errors[7] == "no tanh today"
    assert errors[8] == ""
    assert "tried already" in errors[9]
    assert all(errors[place] for place in range(7))
    assert len(archive.scored()) == 2


def test_nothing_with_a_fitness_has_no_best():
    with pytest.raises(DataError, match="no proposal"):
        Archive().best()
    entry = Entry(Proposal("a", expression="z"), Outcome(reason="wall", error="too slow"))
    with pytest.raises(DataError, match="too slow"):
        Archive([entry]).best()
    with pytest.raises(UsageError):
        discover(lambda archive: "z", length, evaluations=-1)


def test_a_search_goes_on_where_it_was_broken_off(tmp_path):
    file = tmp_path / "search" / "archive.jsonl"
    whole = discover(GrammarProposer(seed=1, learns=False), length, evaluations=6, file=file)
    lines = file.read_text().splitlines()
    assert len(lines) == 10
    file.write_text("\n".join(lines[:7]) + "\n" + lines[7][:20])
    proposer = GrammarProposer(seed=1, learns=False)
    for entry in whole.entries[4:7]:
        assert proposer(Archive()) == entry.proposal
    again = discover(proposer, length, evaluations=6, file=file)
    assert again == whole
    assert file.read_text().splitlines() == lines
    with pytest.raises(DataError, match="other seeds"):
        discover(proposer, length, evaluations=6, seeds=SEEDS[1:], file=file)
    file.write_text('{"proposal": 3}\n')
    with pytest.raises(DataError, match=r"archive\.jsonl:1"):
        discover(proposer, length, evaluations=6, file=file)


def test_the_grammar_proposes_what_can_be_trained_with_and_nothing_twice():
    from nearfar.alignment.discovery.validate import check

    archive = discover(GrammarProposer(seed=3), length, evaluations=60)
    texts = [entry.proposal.expression for entry in archive.entries[4:]]
    assert len(set(texts)) == 60
    for text in texts:
        check(Proposal.of(text).objective_of(beta=1.0))
    again = discover(GrammarProposer(seed=3), length, evaluations=60)
    assert again == archive
    with pytest.raises(UsageError):
        GrammarProposer(fresh=2)


def test_learning_from_fitness_finds_more_than_drawing():
    """Of a fitness with a peak: two links of certain stretches."""

    def peak(proposal):
        objective = proposal.objective_of(beta=1.0)
        import torch

        margins = torch.linspace(-2, 2, 41)
        goal = 0.7 * torch.nn.functional.softplus(-0.4 * margins) + 0.3 * (1 - 2 * margins).relu()
        return Outcome(fitness=-float((objective.link(margins) - goal).square().mean()))

    found = {
        learns: [
            discover(GrammarProposer(seed=seed, learns=learns), peak, evaluations=80, seeds=()).best().fitness
            for seed in range(8)
        ]
        for learns in (True, False)
    }
    assert sum(found[True]) > sum(found[False])


def test_a_writer_of_text_is_told_everything_and_answers_in_json():
    asked = []

    def write(text):
        asked.append(text)
        return f"""Let me think {{about}} it. ```json
        {{"thought": "less {{sharp}}", "name": "n{len(asked)}", "expression": "softplus(-z / {len(asked)})"}}```"""

    archive = discover(TextProposer(write), length, evaluations=2, seeds=SEEDS[:1])
    assert [entry.proposal.expression for entry in archive.entries[1:]] == ["softplus(-z / 1)", "softplus(-z / 2)"]
    assert '"dpo"' in asked[0]
    assert "softplus(-z / 1)" in asked[1]
    assert "fitness" in asked[1]
    assert "def" not in asked[0]
    assert "Python" in question(archive, code=True)
    refused = Archive([Entry(Proposal("a", expression="z"), Outcome(reason="refused", error="mend it"))])
    assert "mend it" in question(refused)
    for text in ("no JSON here", "[1, 2]", "{", "{" * 5000):
        with pytest.raises(DataError):
            read_answer(text)


def test_long_archives_are_told_by_the_best_and_the_latest():
    entries = [Entry(Proposal(f"p{i}", expression=f"z + {i}"), Outcome(fitness=float(-i))) for i in range(100)]
    shown = [line for line in question(Archive(entries), shown=10).splitlines() if line.startswith("{")]
    names = [json.loads(line)["name"] for line in shown]
    assert names == ["p0", "p1", "p2", "p3", "p4", "p95", "p96", "p97", "p98", "p99"]


def test_a_whole_search_in_a_process_of_its_own():
    with LimitedProcess("support.discovery_task:make") as process:
        archive = discover(GrammarProposer(seed=0), process, evaluations=5)
    assert len(archive.entries) == 9
    assert len(archive.scored()) >= 5
    best = archive.best()
    here = discovery_task.make()(best.proposal.objective_of())
    assert here["fitness"] == pytest.approx(best.fitness, rel=1e-5)
