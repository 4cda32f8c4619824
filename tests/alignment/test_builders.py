"""Built preferences: what six strategies, revisions and candidates give, what is dropped, how alike pairs are."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from nearfar.alignment.builders import (
    STRATEGIES,
    BeamCandidates,
    BuiltPairs,
    DemonstrationContrast,
    ElicitiveContrast,
    ModelContrast,
    PolicyWriter,
    PrefixContrast,
    RefineContrast,
    SampledCandidates,
    WrittenRevision,
    both_ways,
    by_score,
    clair,
    contrastiveness,
    edit_distance,
    off_policy_judge,
    on_policy_judge,
    popalign,
    ranked_candidates,
    stronger_preferred,
    token_overlap,
)
from nearfar.alignment.builders.contrastiveness import DISTANCE, LONGER, OVERLAP
from nearfar.alignment.builders.pairs import EMPTY, IDENTICAL, UNDECIDED, UNPARSED, binomial_share
from nearfar.alignment.builders.writing import after_marker, answered, demonstrated, filled, prefixed, written
from nearfar.alignment.language import LanguagePolicy
from nearfar.data.preferences import Text, read_preferences
from nearfar.data.preferences.rows import plain
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model
from nearfar.errors import DataError, UsageError

PROMPTS: list[Text] = ["where is it ?", ({"role": "user", "content": "who is it ?"},), "when was it {prompt} ?"]


def writer(prompt: Text) -> str:
    """Answers politely where the prompt asks for good, rudely where it asks for bad."""
    text = plain(prompt)
    name = next(word for word in ("where", "who", "when") if word in text)
    good = "(helpful" in text or "as helpful" in text or "please" in text or "Improve" in text
    words = f"{name}, {'thank you' if good else 'go away' if 'unhelpful' in text or 'never' in text else 'hm'}"
    return f"let me think. Answer: {words}" if "Answer:" in text else words


def politeness(prompt: Text, response: str) -> float:
    return float("thank" in response) - float("away" in response)


def six() -> list[object]:
    return [
        PrefixContrast(writer),
        DemonstrationContrast(writer, good=[("why ?", "please")], bad=[("why ?", "never")]),
        ElicitiveContrast(writer),
        ModelContrast(lambda prompt: "thank you for it", writer, "parameters"),
        ModelContrast(lambda prompt: "thank you", lambda prompt: "go away"),
        RefineContrast(writer),
    ]


def test_six_strategies_build_clean_pairs() -> None:
    pairs = popalign(PROMPTS, six())  # type: ignore[arg-type]
    assert pairs.strategies == STRATEGIES
    assert len(pairs) == 6 * len(PROMPTS)
    assert all(pair.prompt is PROMPTS[pair.index] for pair in pairs), "a prompt keeps what brought the contrast about"
    assert not any("think" in pair.chosen + pair.rejected for pair in pairs), "thoughts are no part of an answer"
    assert {pair.rejected for pair in pairs.of("refine")} == {"where, hm", "who, hm", "when, hm"}
    judged = pairs.accuracy(by_score(politeness))
    assert all(share.value == 1 and share.n == 3 for share in judged.values())
    turned = pairs.accuracy(by_score(lambda prompt, response: -politeness(prompt, response)))
    assert all(share.value == 0 for share in turned.values())


def test_pairs_without_a_contrast_are_dropped_and_counted() -> None:
    texts = iter(["same", "", "no marker", "Answer: good", "same", "b"])
    prompts: list[Text] = ["p", "q"]

    def scripted(prompt: Text) -> str:
        return next(texts)

    # the writer is asked for all good ones first, then for all bad ones
    first = popalign(prompts, [ModelContrast(scripted, lambda prompt: "same")])
    second = popalign(prompts, [ElicitiveContrast(scripted)])
    assert (len(first), len(second)) == (0, 0)
    assert first.dropped == {("leaderboard", IDENTICAL): 1, ("leaderboard", EMPTY): 1}
    assert second.dropped == {("elicitive", UNPARSED): 2}
    assert (first + second).dropped == {**first.dropped, **second.dropped}
    assert "2 not in the form asked for" in (first + second).describe()
    with pytest.raises(DataError):
        first.accuracy(by_score(politeness))
    for wrong in ([], [PrefixContrast(writer), PrefixContrast(writer)]):
        with pytest.raises(UsageError):
            popalign(prompts, wrong)
    with pytest.raises(UsageError):
        DemonstrationContrast(writer, [], [("a", "b")])


def test_prompts_with_something_said_around_them() -> None:
    chat: Text = ({"role": "system", "content": "s"}, {"role": "user", "content": "q"})
    assert prefixed("(good)", "q") == "(good)\nq"
    assert prefixed("(good)", chat) == (chat[0], {"role": "user", "content": "(good)\nq"})
    assert filled("<{prompt}>", "a {prompt} b") == "<a {prompt} b>"
    assert filled("<{prompt}>", chat)[-1]["content"] == "<q>"  # type: ignore[index]
    shown = demonstrated([("a", "b")], chat)
    assert [turn["content"] for turn in shown] == ["s", "a", "b", "q"]  # type: ignore[index]
    assert [turn["role"] for turn in shown] == ["system", "user", "assistant", "user"]  # type: ignore[index]
    assert demonstrated([("a", "b"), ("c", "d")], "q") == "a\nb\n\nc\nd\n\nq\n"
    assert [turn["content"] for turn in answered(chat, "r", "better")] == ["s", "q", "r", "better"]  # type: ignore[index]
    assert answered("q", "r", "better") == "q\n\nr\n\nbetter\n"
    with pytest.raises(UsageError):
        filled("no place", "q")
    with pytest.raises(DataError):
        prefixed("(good)", ({"role": "assistant", "content": "q"},))
    assert after_marker("a Answer: b Answer:  c ", "Answer:") == "c"
    assert after_marker("a Answer: ", "Answer:") is None
    assert after_marker("a", "Answer:") is None
    with pytest.raises(DataError, match="texts"):
        written(lambda prompt: 3, ["q"])  # type: ignore[arg-type, return-value]


def test_pairs_are_read_again_as_preferences(tmp_path: Path) -> None:
    pairs = popalign(PROMPTS, [PrefixContrast(writer), RefineContrast(writer)])
    made = pairs.preferences()
    assert made.kind == "pairs"
    assert [row.where for row in made][:2] == ["prefix, prompt 0", "prefix, prompt 1"]
    assert made[1].responses == tuple(
        ({"role": "assistant", "content": f"who, {end}"},) for end in ("thank you", "go away")
    )
    pairs.write(tmp_path / "pairs.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["strategy"] for line in lines] == ["prefix"] * 3 + ["refine"] * 3
    read = read_preferences(tmp_path / "pairs.jsonl")
    assert [(row.prompt, row.responses) for row in read] == [(row.prompt, row.responses) for row in made]


def test_revisions_and_the_ways_that_revise_nothing() -> None:
    answers = {"a": "it is small red and round", "b": "", "c": "it is fine", "d": "it is cold"}
    prompts: list[Text] = list(answers)

    def model(prompt: Text) -> str:
        return answers[str(prompt)]

    def reviser(prompt: Text, answer: str) -> str | None:
        return {"c": None, "d": answer}.get(str(prompt), answer.replace("red", "blue"))

    pairs = clair(prompts, model, reviser)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("it is small blue and round", answers["a"])]
    assert pairs.dropped == {("clair", EMPTY): 1, ("clair", UNPARSED): 1, ("clair", IDENTICAL): 1}

    stronger = stronger_preferred(prompts, lambda prompt: f"nothing like that, {prompt}, blue", model)
    assert len(stronger) == 3
    assert all(pair.chosen.startswith("nothing") for pair in stronger)
    ours, theirs = contrastiveness(pairs), contrastiveness(stronger)
    assert ours[OVERLAP].value > theirs[OVERLAP].value
    assert ours[DISTANCE].value < theirs[DISTANCE].value
    assert ours[LONGER].value == len("it is small blue and round") / len(answers["a"])
    with pytest.raises(DataError):
        contrastiveness(BuiltPairs(()))


def test_judges_pick_and_may_not_decide() -> None:
    texts = iter(["thank you", "hm", "x", "go away", "ok", "x"])
    prompts: list[Text] = ["p", "q", "r"]
    pairs = on_policy_judge(prompts, lambda prompt: next(texts), by_score(politeness))
    assert [(pair.chosen, pair.rejected, pair.index) for pair in pairs] == [("thank you", "go away", 0)]
    assert pairs.dropped == {("on-policy judge", UNDECIDED): 1, ("on-policy judge", IDENTICAL): 1}
    off = off_policy_judge(prompts, lambda prompt: "go away", lambda prompt: "thank you", by_score(politeness))
    assert {(pair.chosen, pair.rejected) for pair in off} == {("thank you", "go away")}
    leaning = both_ways(lambda prompt, first, second: 1.0)
    assert leaning("p", "a", "b") == 0
    assert both_ways(by_score(politeness))("p", "thank", "away") == 4


def test_a_model_that_revises_in_writing() -> None:
    asked: list[Text] = []

    def model(prompt: Text) -> str:
        asked.append(prompt)
        return "because. Revised answer: better" if "{prompt}" in prompt else "I would rather not"

    revise = WrittenRevision(model)
    assert revise("a", "is {prompt} and {answer}") == "better"
    assert revise("a {answer}", "b") is None
    assert "Task:\na\n\nAnswer:\nis {prompt} and {answer}\n" in asked[0]
    assert "Task:\na {answer}\n\nAnswer:\nb\n" in asked[1]
    assert clair(["q"], lambda prompt: "has {prompt}", revise)[0].chosen == "better"


def plain_distance(one: str, other: str) -> int:
    """Levenshtein by the textbook's table."""
    table = [[row + column for column in range(len(other) + 1)] for row in range(len(one) + 1)]
    for row in range(1, len(one) + 1):
        for column in range(1, len(other) + 1):
            changed = table[row - 1][column - 1] + (one[row - 1] != other[column - 1])
            table[row][column] = min(table[row - 1][column] + 1, table[row][column - 1] + 1, changed)
    return table[-1][-1]


def test_distances_and_overlaps() -> None:
    drawn = random.Random(0)
    for _ in range(60):
        one, other = ("".join(drawn.choices("abc ", k=drawn.randrange(12))) for _ in range(2))
        longer = max(len(one), len(other))
        assert edit_distance(one, other) == (plain_distance(one, other) / longer if longer else 0)
        assert edit_distance(one, other) == edit_distance(other, one)
        assert token_overlap(one, other) == token_overlap(other, one)
    assert edit_distance("a b c d", "a x c", unit="words") == 0.5
    assert edit_distance("", "") == 0
    assert edit_distance("", "ab") == 1
    assert token_overlap("a b b", "b c") == 1 / 3
    assert token_overlap("", "") == 1
    assert token_overlap("", "a") == 0
    with pytest.raises(UsageError):
        edit_distance("a", "b", unit="lines")


def test_shares_have_wilsons_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, n in ((0, 3), (7, 9), (200, 200), (45, 100)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        found = binomial_share("share", hits, n)
        assert found.low == pytest.approx(expected.low, abs=1e-12)
        assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_candidates_are_ranked_by_a_metric() -> None:
    proposed = {"p": ["b", " b", "", "aaa", "aa", "cc"], "q": ["x", "x "]}
    found = ranked_candidates(["p", "q"], lambda prompt: proposed[str(prompt)], lambda prompt, each: float(len(each)))
    assert found.kind == "lists"
    assert [row.responses for row in found] == [("aaa", "aa", "cc", "b")]
    assert found[0].scores == (3.0, 2.0, 2.0, 1.0)
    assert found.notes == [
        "3 candidates were empty or repeated",
        "1 prompts had fewer than two candidates and were dropped",
    ]
    once = ranked_candidates(
        ["p"], lambda prompt: proposed["p"], lambda prompt, each: float(len(each)), distinct_scores=True
    )
    assert once[0].responses == ("aaa", "aa", "b")
    assert len(found.pairs_of_lists()) == 5
    with pytest.raises(DataError, match="nan"):
        ranked_candidates(["p"], lambda prompt: ["a", "b"], lambda prompt, each: float("nan"))
    with pytest.raises(DataError, match="none of 1"):
        ranked_candidates(["q"], lambda prompt: proposed["q"], lambda prompt, each: 0.0)


def test_language_models_write_and_propose() -> None:
    tokenizer = symbol_tokenizer("abcdefgh")
    model = tiny_language_model(vocabulary=len(tokenizer), width=16)
    policy = LanguagePolicy(model, tokenizer, max_new_tokens=6)

    def built(seed: int) -> BuiltPairs:
        return popalign(
            ["a b", "c d", "e"],
            [PrefixContrast(PolicyWriter(policy, torch.Generator().manual_seed(seed), batch_size=2), "a", "h")],
        )

    pairs = built(0)
    assert len(pairs) + sum(pairs.dropped.values()) == 3
    assert len(pairs)
    assert built(0) == pairs
    assert built(1) != pairs

    def metric(prompt: Text, response: str) -> float:
        return float(response.count("a"))

    sampled = ranked_candidates(["a b", "c"], SampledCandidates(policy, 8, torch.Generator().manual_seed(0)), metric)
    assert all(row.scores is not None and list(row.scores) == sorted(row.scores, reverse=True) for row in sampled)
    searched = ranked_candidates(["a b", "c"], BeamCandidates(model, tokenizer, 4, max_new_tokens=5), metric)
    assert len(searched) == 2
    assert all(2 <= len(row.responses) <= 4 for row in searched)
    with pytest.raises(UsageError):
        BeamCandidates(model, tokenizer, 4, beams=2)
