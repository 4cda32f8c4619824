"""What is masked, the heads, the loss, and the heads of transformers' masked LMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nearfar import encoders
from nearfar.encoders.masked_language import (
    MaskedLanguageHead,
    MaskedLanguageModel,
    PretrainedHead,
    embedding_table,
    is_word,
    load_masked_language_model,
    mask_tokens,
    masked_language_loss,
    pretrained_head,
)
from nearfar.encoders.states import SpecialTokens
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import ModelError, UsageError
from support.sentence_models import bert

SPECIAL = SpecialTokens(padding=0, first=1, last=2, mask=3, all=frozenset((0, 1, 2, 3, 9)))
VOCABULARY = 40


def texts(n: int = 600, width: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (n, width), generator=generator)
    ids[:, 0], ids[:, -1] = 1, 0
    return ids


def test_shares_of_what_is_masked() -> None:
    ids = texts(4000)
    masked, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, generator=torch.Generator().manual_seed(1))
    words = torch.tensor([[token not in SPECIAL.all for token in row] for row in ids.tolist()])
    assert torch.equal(is_word(ids, SPECIAL), words)
    assert not chosen[~words].any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    count = int(words.sum())

    def near(found: torch.Tensor, of: int, chance: float) -> None:
        deviation = (of * chance * (1 - chance)) ** 0.5
        assert abs(int(found.sum()) - of * chance) < 5 * deviation

    near(chosen, count, 0.15)
    picked = int(chosen.sum())
    near(masked[chosen] == 3, picked, 0.8)
    same = 1 / (VOCABULARY - 5)  # a random word may be the one that stood there
    near(masked[chosen] == ids[chosen], picked, 0.1 + 0.1 * same)
    others = masked[chosen & (masked != 3) & (masked != ids)]
    assert sorted(others.unique().tolist()) == [token for token in range(VOCABULARY) if token not in SPECIAL.all]


def test_masking_to_its_limits() -> None:
    ids = texts(50)
    words = is_word(ids, SPECIAL)
    masked, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=1.0, masked=1.0, random=0.0)
    assert torch.equal(chosen, words)
    assert (masked[words] == 3).all()
    kept, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=1.0, masked=0.0, random=0.0)
    assert chosen.sum() == words.sum()
    assert torch.equal(kept, ids)
    there = torch.zeros_like(ids, dtype=torch.bool)
    there[:, :3] = True
    _, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=1.0, mask=there)
    assert torch.equal(chosen, words & there)
    _, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=0.0)
    assert not chosen.any()


def test_masking_is_drawn_from_the_generator_given() -> None:
    ids = texts(20)
    one, two, three = (
        mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_what_cannot_be_masked() -> None:
    ids = texts(2)
    for wrong in ({"share": 1.5}, {"masked": -0.1}, {"masked": 0.8, "random": 0.3}):
        with pytest.raises(UsageError, match="probabilities"):
            mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no token for what is masked"):
        mask_tokens(ids, SpecialTokens(padding=0), vocabulary=VOCABULARY)
    with pytest.raises(ModelError, match="no words"):
        mask_tokens(ids, SpecialTokens(padding=0, mask=1), vocabulary=1)


def test_the_loss_is_the_cost_of_the_chosen_words() -> None:
    encoder = TokenTransformer(VOCABULARY, 8, heads=2, special=SPECIAL).double().eval()
    head = MaskedLanguageHead(encoder.table).double()
    ids = texts(30)
    loss = masked_language_loss(encoder, head, ids, generator=torch.Generator().manual_seed(2))
    masked, chosen = mask_tokens(
        ids, SPECIAL, vocabulary=VOCABULARY, mask=ids != 0, generator=torch.Generator().manual_seed(2)
    )
    states = encoder.states(masked, ids != 0).hidden
    costs = []
    for row, column in chosen.nonzero().tolist():
        x = head.dense.weight @ states[row, column] + head.dense.bias
        x = F.layer_norm(F.gelu(x), (8,), head.norm.weight, head.norm.bias)
        logits = encoder.table @ x + head.bias
        costs.append(logits.logsumexp(0) - logits[ids[row, column]])
    torch.testing.assert_close(loss, torch.stack(costs).mean(), rtol=1e-10, atol=1e-10)
    loss.backward()
    assert encoder.table.grad is not None
    assert encoder.table.grad.abs().sum() > 0
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[:, 4] = True
    alone = masked_language_loss(encoder, head, ids, share=0.0, asked=asked)
    logits = head(encoder.states(ids.masked_fill(asked, 3), ids != 0).hidden[:, 4])
    torch.testing.assert_close(alone, F.cross_entropy(logits, ids[:, 4]))
    nothing = masked_language_loss(encoder, head, ids, share=0.0)
    assert nothing.item() == 0
    nothing.backward()


def test_the_new_head_shares_the_table() -> None:
    encoder = TokenTransformer(VOCABULARY, 8, heads=2)
    method = nn.ModuleDict({"encoder": encoder, "head": MaskedLanguageHead(encoder.table, 12)})
    assert sum(parameter is encoder.table for parameter in method.parameters()) == 1
    assert method["head"](torch.zeros(3, 5, 12)).shape == (3, 5, VOCABULARY)


KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32},
    "mpnet": {},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta-v2": {},
    "modernbert": {"pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_every_architecture_without_its_layers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, vocab_size=50, max_position_embeddings=30, **sizes, **KINDS[kind])
    torch.manual_seed(0)
    whole: Any = AutoModelForMaskedLM.from_config(config).eval()
    whole.save_pretrained(bert(tmp_path / "whole"))  # in the place of its weights, beside its tokenizer
    ids, mask = torch.randint(5, 50, (3, 7)), torch.ones(3, 7, dtype=torch.bool)
    loaded = load_masked_language_model(tmp_path / "whole")
    generator = nn.ModuleList([MaskedLanguageModel(loaded)]).train()[0]
    with torch.no_grad():
        wanted = whole(input_ids=ids, attention_mask=mask.long()).logits
        states = whole.base_model(ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(generator(ids, mask), wanted)
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    table = nn.Parameter(whole.get_input_embeddings().weight.detach().clone())
    head = PretrainedHead(load_masked_language_model(tmp_path / "whole"), table).eval()
    torch.testing.assert_close(head(states), wanted)
    torch.testing.assert_close(head(states[0, :3]), wanted[0, :3])
    assert any(parameter is table for parameter in head.parameters())
    head(states).sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum() > 0
    with pytest.raises(ModelError, match="the encoder embeds"):
        PretrainedHead(load_masked_language_model(tmp_path / "whole"), nn.Parameter(torch.zeros(49, 8)))
    AutoModel.from_pretrained(tmp_path / "whole").save_pretrained(bert(tmp_path / "bare"))
    with pytest.raises(ModelError, match="no head that predicts masked tokens") as caught:
        load_masked_language_model(tmp_path / "bare")
    assert "simcse" in str(caught.value)


def test_the_head_is_found_in_every_kind_of_folder(tmp_path: Path) -> None:
    plain = bert(tmp_path / "plain", masked_lm=True)
    encoder = encoders.load(plain, device="cpu")
    head = pretrained_head(plain, encoder)
    assert any(parameter is embedding_table(encoder) for parameter in head.parameters())
    encoders.save(encoder, tmp_path / "saved")  # sentence-transformers keeps the layers alone
    with pytest.raises(ModelError, match="no head that predicts masked tokens"):
        pretrained_head(tmp_path / "saved", encoder)
    with pytest.raises(ModelError, match="neither modules"):
        load_masked_language_model(tmp_path)
    static = encoders.load("static", texts=["ka lo"] * 9, dimension=8, vocabulary_size=400, device="cpu")
    with pytest.raises(ModelError, match="no transformer"):
        pretrained_head(plain, static)


def test_another_architecture_is_no_masked_language_model(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    special = {"bos_token_id": 2, "eos_token_id": 3}
    config = GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, **special)
    GPT2Model(config).save_pretrained(bert(tmp_path / "model"))
    with pytest.raises(ModelError, match="no masked language model"):
        load_masked_language_model(tmp_path / "model")
