"""Columns that other models than the policy fill: what the reference says, how prompts and responses are embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment import columns as names
from nearfar.alignment.inputs import Table
from nearfar.alignment.prepare import Prepared
from nearfar.alignment.reference import ReferenceScores, check_step_zero, reference_scores, without_adapters
from nearfar.alignment.scores import FlatScores, HiddenStates, response_scores
from nearfar.data.preferences.rows import plain
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.encode import evaluating
from nearfar.training import processes

CACHE = "reference"
BATCH_TOKENS = 8192
_COMPARED = 4

Say = Callable[[str], None]


def fill(run: Prepared, path: Path, say: Say) -> int | None:
    """Fill the columns of the run's tables that its objective needs; the width of the prompts' states, where there are
    any.

    The reference's log-probabilities are kept in the run folder and computed once; the policy's first ones are compared
    with them.
    """
    model = run.reference if run.reference is not None else run.policy
    tables = {"training": run.table}
    if run.evaluation_table is not None:
        tables["evaluation"] = run.evaluation_table
    with run.precision():
        for name, made in tables.items():
            if run.need.reference:
                made.of_responses[names.REFERENCE] = _reference(run, model, made.tokens, path, f"{name} data", say)
        if run.mismatched is not None:
            found = _reference(run, model, run.mismatched, path, "mismatched responses", say)
            run.table.of_rows[names.MISMATCHED] = found
        if run.need.token_reference:
            run.table.of_tokens[names.REFERENCE] = _in_batches(
                model, run.table, lambda scores: [scores.tokens], tokens=True, shared_prefix=_layout(run)
            )[0]
        if run.need.reference and run.reference is None:
            _agree(run, say)
    if "selection" in run.resolved.options:
        _select(run, model)
    if run.need.states != "prompts":
        return None
    states = _prompt_states(run, model)
    run.table.of_rows[names.STATE] = states
    return int(states.shape[1])


def _reference(
    run: Prepared, model: nn.Module, rows: Sequence[TokenisedRow], path: Path, what: str, say: Say
) -> Tensor:
    """The column of ``rows``; over several processes the main one computes it and the others read it, or, where weights
    are sharded, all compute it."""

    def scores() -> ReferenceScores:
        return reference_scores(
            model,
            rows,
            cache=path / CACHE,
            batch_tokens=BATCH_TOKENS,
            shared_prefix=_layout(run),
            only_reads=not processes.is_main(),
        )

    if run.sharded:
        processes.barrier()  # nobody reads the column while the main process still writes what came before
        found = scores()
        computed = found.computed
    else:
        computed = processes.on_main(lambda: scores().computed)
        found = scores()
    told = f"{computed:,} computed" if computed else "read from the run folder"
    say(f"reference: log-probabilities of {len(found.length):,} responses, {what} ({told})")
    return found.log_probability


def _agree(run: Prepared, say: Say) -> None:
    """Raise :class:`~nearfar.errors.TrainingError` where the policy differs from its reference before step 1."""
    order = np.argsort(run.table.sizes, kind="stable")
    rows = torch.from_numpy(np.unique(order[np.linspace(0, len(order) - 1, min(len(order), _COMPARED)).astype(int)]))
    reference = run.table.columns(rows).of_responses[names.REFERENCE]
    run.policy.train()  # as it will be trained: dropout, where it is left on, is part of the policy
    found = check_step_zero(
        run.policy,
        [run.table.tokens[row] for row in rows.tolist()],
        reference,
        shared_prefix=_layout(run),
        tolerance=float("inf") if run.settings.dropout or run.settings.lora_dropout else None,
    )
    apart = f"at most {found.difference:.1e} nats a token apart, of {found.responses} responses"
    say(f"step 0: policy and reference are {apart}")


def _select(run: Prepared, model: nn.Module) -> None:
    """AMPO's choice of the responses that are contrasted, once for each row."""
    from nearfar.alignment.online.selection import select_group

    options, made = run.resolved.options, run.table
    strategy = str(options["selection"])
    embeddings = _response_embeddings(run, model) if run.need.states == "responses" else None
    generator = torch.Generator().manual_seed(run.settings.seed)
    rewards = made.of_responses[names.SCORE]
    groups: list[list[Tensor]] = [[], []]
    for start, end in zip(made.first.tolist(), made.first[1:].tolist(), strict=False):
        found = select_group(
            rewards[None, start:end],
            int(options["negatives"]),
            strategy,
            embeddings=None if embeddings is None else embeddings[None, start:end],
            generator=generator,
        )
        for group, which in zip(groups, found, strict=True):
            group.append(which[0])
    made.of_responses[names.CHOSEN], made.of_responses[names.REJECTED] = map(torch.cat, groups)


def _response_embeddings(run: Prepared, model: nn.Module) -> Tensor:
    if run.settings.prompts != "model":
        texts = [plain(text) for place in run.table.tokens.index.tolist() for text in run.data[place].responses]
        return _encoded(run, texts)
    with run.precision():
        return _in_batches(model, run.table, lambda scores: [_hidden(scores).response], hidden=True)[0]


def _prompt_states(run: Prepared, model: nn.Module) -> Tensor:
    """What says how alike two prompts are: an encoder's embeddings, or means of the reference's last hidden states."""
    if run.settings.prompts != "model":
        return _encoded(run, [plain(run.data[place].prompt) for place in run.table.tokens.index.tolist()])
    with run.precision():
        return _in_batches(model, run.table, lambda scores: [_hidden(scores).prompt], hidden=True, of_rows=True)[0]


def _hidden(scores: FlatScores) -> HiddenStates:
    assert scores.hidden is not None
    return scores.hidden


def _encoded(run: Prepared, texts: list[str]) -> Tensor:
    from nearfar import encoders

    encoder = encoders.load(run.settings.prompts, device=str(run.device))
    return torch.as_tensor(encoders.encode(encoder, texts, normalize=True)).float().cpu()


def _in_batches(
    model: nn.Module,
    made: Table,
    wanted: Callable[[FlatScores], list[Tensor | None]],
    *,
    of_rows: bool = False,
    **asked: Any,
) -> list[Tensor]:
    """What ``model`` says of all rows, rows of like length together, without dropout and gradients, in the rows' order
    and on the CPU; values are of rows, or of responses (or their tokens)."""
    parts: dict[int, list[Tensor]] = {}
    with evaluating(model), torch.no_grad(), without_adapters(model):
        for rows in made.batches(BATCH_TOKENS):
            scores = response_scores(model, [made.tokens[row] for row in rows], **asked)
            values = [value.cpu() for value in wanted(scores) if value is not None]
            counts = made.of_rows[names.COUNT][rows] if not of_rows else torch.ones(len(rows), dtype=torch.long)
            if asked.get("tokens"):
                counts = made.first_token[made.first[1:][rows]] - made.first_token[made.first[:-1][rows]]
            split = [torch.split(value, counts.tolist()) for value in values]
            for number, row in enumerate(rows):
                parts[row] = [value[number] for value in split]
    return [torch.cat([parts[row][number] for row in range(len(made))]) for number in range(len(parts[0]))]


def _layout(run: Prepared) -> Any:
    return {"auto": "auto", "shared": True, "repeated": False}[run.settings.layout]
