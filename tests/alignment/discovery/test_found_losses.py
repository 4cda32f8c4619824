"""A loss that was found trains a language model as those of the catalogue do."""

import torch

from nearfar.alignment.discovery.expressions import WrittenPreference
from nearfar.alignment.run import align
from nearfar.alignment.settings import AlignmentSettings
from nearfar.data.preferences import PreferenceRow, PreferenceSet
from nearfar.encoders.language_model import language_model, symbol_tokenizer, tiny_language_model, write_language_model


def test_it_trains_as_the_same_loss_of_the_catalogue(tmp_path):
    tokenizer = symbol_tokenizer("abcdef")
    write_language_model(tiny_language_model(vocabulary=len(tokenizer)), tokenizer, tmp_path / "begin")
    rows = [PreferenceRow("a b", ("c d e", "f f")), PreferenceRow("b", ("c", "d e f")), PreferenceRow("e", ("a", "f"))]
    data = PreferenceSet.from_rows("pairs", rows)

    def trained(name, objective=None):
        settings = AlignmentSettings(
            model=str(tmp_path / "begin"), output=str(tmp_path / name), steps=3, learning_rate=1e-2, batch_size=3
        )
        align(settings, preferences=data, objective=objective)
        return language_model(tmp_path / name / "model")[0].state_dict()

    known, found = trained("dpo"), trained("found", WrittenPreference("softplus(-z)", beta=0.1))
    begin = language_model(tmp_path / "begin")[0].state_dict()
    for name, weight in known.items():
        assert torch.allclose(found[name], weight, atol=1e-6), name
    assert any(not torch.allclose(weight, begin[name], atol=1e-4) for name, weight in found.items())
