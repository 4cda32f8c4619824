"""Texts rewritten by a model: translated there and back, paraphrased, summarised, continued.

No model comes with nearfar: give a callable, or the folder of an encoder-decoder of the transformers library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import torch

from nearfar.errors import DataError, ModelError
from nearfar.views.text.base import TextView, share_of, whole

Rewrite: TypeAlias = Callable[[list[str]], Sequence[str]]
"""Texts -> as many texts."""

_HINT = "name the folder of an encoder-decoder saved by transformers (T5, BART, Marian), with safetensors"


class SequenceToSequence:
    """An encoder-decoder of transformers as a function of texts: ``model(texts, seed=0) -> texts``.

    Only safetensors are read and no code that comes with a model is run. The model stays in evaluation mode without
    gradients. The same seed, texts and machine give the same texts; nothing outside is disturbed.

    Arguments: ``folder``; ``prefix``: what is put before every text ("paraphrase: "); ``max_length``: of input and
    output in tokens, default 128; ``sample``: draw the output's tokens instead of taking the likeliest, default True;
    ``temperature``: of the draws, default 1; ``top_p``: the share of probability that is drawn from, default 0.9;
    ``batch_size``: texts at once, default 16; ``device``: default the CPU.

    Raises :class:`~nearfar.errors.ModelError` for a folder that is no such model.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        prefix: str = "",
        max_length: int = 128,
        sample: bool = True,
        temperature: float = 1.0,
        top_p: float = 0.9,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        from nearfar.encoders.pretrained import quiet
        from nearfar.encoders.safety import check_model_folder

        self.prefix, self.sample = prefix, bool(sample)
        self.max_length, self.batch_size = whole("max_length", max_length), whole("batch_size", batch_size)
        self.temperature = share_of("temperature", temperature, least=1e-3, most=100)
        self.top_p = share_of("top_p", top_p, least=1e-6)
        place = Path(folder)
        check_model_folder(place)
        auto: Any = AutoModelForSeq2SeqLM
        shared: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with quiet(), torch.random.fork_rng(devices=[]):  # what is missing would be drawn
            try:
                made, report = auto.from_pretrained(place, use_safetensors=True, output_loading_info=True, **shared)
                self.tokenizer: Any = AutoTokenizer.from_pretrained(place, **shared)
            except Exception as error:  # whatever a damaged file or a foreign architecture makes the library raise
                reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
                raise ModelError(f"this is no encoder-decoder: {reason}", where=str(place), hint=_HINT) from error
        if report["missing_keys"]:
            lacking = ", ".join(sorted(report["missing_keys"])[:2])
            raise ModelError(f"the weights of the encoder-decoder lack {lacking}", where=str(place), hint=_HINT)
        self.model: Any = made.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, texts: list[str], *, seed: int = 0) -> list[str]:
        """As many texts as there are ``texts``; an empty output where the model gives none."""
        said: list[str] = []
        how: dict[str, Any] = {"do_sample": False}
        if self.sample:
            how = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for start in range(0, len(texts), self.batch_size):
                part = [self.prefix + text for text in texts[start : start + self.batch_size]]
                features = self.tokenizer(
                    part, return_tensors="pt", padding=True, truncation=True, max_length=self.max_length
                ).to(self.model.device)
                given = {name: features[name] for name in ("input_ids", "attention_mask")}
                found = self.model.generate(**given, num_beams=1, max_new_tokens=self.max_length, **how)
                said += self.tokenizer.batch_decode(found, skip_special_tokens=True)
        return said


class Rewriting(TextView):
    """Texts as a model writes them anew: a paraphrase, a summary, a continuation, another style, a counterfactual.

    What the model makes of a text is what the view is: nothing here checks that the meaning stays. Where it gives
    nothing, the text stays as it is. All texts of a call are given to the model at once; a :class:`SequenceToSequence`
    gets a seed with them, any other callable has to draw by itself.

    Arguments: ``model``: a callable ``texts -> texts`` or the folder of an encoder-decoder (:class:`SequenceToSequence`
    with its defaults); ``prefix``: for a folder, what is put before every text, default none; ``p``: default 1.
    """

    def __init__(self, model: Rewrite | str | os.PathLike[str], *, prefix: str = "", p: float = 1.0) -> None:
        super().__init__(p)
        self.model = _loaded(model, prefix)

    def change_all(self, texts: list[str], draws: list[Random]) -> list[str]:
        if not texts:
            return []
        return _kept(texts, _rewritten(self.model, texts, draws[0]))


class BackTranslation(TextView):
    """Texts translated into another language and back (CERT, Fang et al., 2020: German and Chinese; UDA).

    Arguments: ``there``, ``back``: callables ``texts -> texts`` or folders of translation models (Marian, T5 with its
    prefixes); ``p``: default 1. Empty translations leave the text as it is.
    """

    def __init__(
        self, there: Rewrite | str | os.PathLike[str], back: Rewrite | str | os.PathLike[str], *, p: float = 1.0
    ) -> None:
        super().__init__(p)
        self.there, self.back = _loaded(there, ""), _loaded(back, "")

    def change_all(self, texts: list[str], draws: list[Random]) -> list[str]:
        if not texts:
            return []
        foreign = _rewritten(self.there, texts, draws[0])
        return _kept(texts, _rewritten(self.back, foreign, draws[0]))


def _loaded(model: Rewrite | str | os.PathLike[str], prefix: str) -> Rewrite:
    return model if callable(model) else SequenceToSequence(model, prefix=prefix)


def _rewritten(model: Rewrite, texts: list[str], draw: Random) -> list[str]:
    if isinstance(model, SequenceToSequence):
        return model(texts, seed=draw.getrandbits(62))
    found = list(model(list(texts)))
    if len(found) != len(texts) or not all(isinstance(text, str) for text in found):
        raise DataError(f"the model was given {len(texts)} texts and gave {len(found)}; it must give a text for each")
    return found


def _kept(texts: list[str], rewritten: list[str]) -> list[str]:
    return [new if new.strip() else old for old, new in zip(texts, rewritten, strict=True)]
