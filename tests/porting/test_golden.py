"""Porting without torch: golden models, broken directories, names, adapters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from gmma.errors import UserError
from gmma.models.lora import LoraConfig, add_adapters, merge_adapters, without_adapters
from gmma.porting import (
    Pretrained,
    load_pretrained,
    reference_logits,
    save_adapters,
    save_pretrained,
)

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("gemma3", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
over_families = pytest.mark.parametrize("family", FAMILIES)


def golden_logits(family: str, pretrained: Pretrained) -> tuple[np.ndarray, np.ndarray]:
    """Ours and transformers' on the valid positions of the golden rows."""
    with np.load(GOLDEN / family / "logits.npz") as kept:
        rows: list[list[Image.Image]] = [[] for _ in kept["tokens"]]
        for name in sorted(kept.files):
            if name.startswith("image_"):
                rows[int(name.split("_")[1])].append(Image.fromarray(kept[name]))
        tokens, lengths, expected = kept["tokens"], kept["lengths"], kept["logits"]
    ours = reference_logits(pretrained, tokens, rows, lengths)
    assert ours.dtype == np.float32
    valid = np.arange(tokens.shape[1]) < lengths[:, None]
    return ours[valid], expected[valid]


@pytest.fixture(scope="module", params=FAMILIES)
def pretrained(request: pytest.FixtureRequest) -> Pretrained:
    return load_pretrained(GOLDEN / request.param)


def family_name(pretrained: Pretrained) -> str:
    return pretrained.source.directory.name


def copy_of(family: str, directory: Path) -> Path:
    """A golden directory that may be broken."""
    return Path(shutil.copytree(GOLDEN / family, directory / family))


def edit_config(directory: Path, section: str | None, key: str, value: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    (config[section] if section else config)[key] = value
    path.write_text(json.dumps(config))


def cut_in_two(directory: Path) -> list[Path]:
    """The same weights as two shards with an index."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [directory / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    for file, part in zip(files, parts, strict=True):
        save_file({n: tensors[n] for n in part}, file)
    weight_map = {n: f.name for f, part in zip(files, parts, strict=True) for n in part}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return files


def test_logits_are_transformers(pretrained: Pretrained) -> None:
    ours, expected = golden_logits(family_name(pretrained), pretrained)
    assert np.abs(ours - expected).max() <= 1e-4


def test_bfloat16_is_near(pretrained: Pretrained) -> None:
    """Eight bits of mantissa: within a few hundredths of the logits' size."""
    coarse = load_pretrained(pretrained.source.directory, "bfloat16")
    assert {str(x.dtype) for x in jax.tree.leaves(coarse.params)} == {"bfloat16"}
    ours, expected = golden_logits(family_name(pretrained), coarse)
    assert np.abs(ours - expected).mean() <= 0.02 * np.abs(expected).max()


@over_families
def test_shards_are_one_model(family: str, tmp_path: Path) -> None:
    directory = copy_of(family, tmp_path)
    cut_in_two(directory)
    whole, cut = load_pretrained(GOLDEN / family), load_pretrained(directory)
    jax.tree.map(np.testing.assert_array_equal, whole.params, cut.params)


def test_export_keeps_every_tensor(
    pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmma.huggingface.weights.SHARD_BYTES", 40_000)
    save_pretrained(tmp_path, pretrained)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    before = load_file(pretrained.source.directory / "model.safetensors")
    assert set(index["weight_map"]) == set(before)
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / file)[name], before[name])
    again = load_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, pretrained.params)
    assert (tmp_path / "preprocessor_config.json").is_file()


def test_large_tensors_come_in_pieces(
    pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmma.huggingface.weights.PIECE_BYTES", 1000)
    again = load_pretrained(pretrained.source.directory)
    jax.tree.map(np.testing.assert_array_equal, again.params, pretrained.params)


@pytest.mark.parametrize(
    ("family", "section", "key", "value"),
    [
        ("gemma3", "text_config", "use_bidirectional_attention", True),
        ("gemma3", "text_config", "num_experts", 8),
        ("gemma3", "text_config", "hidden_activation", "swiglu_oai"),
        ("gemma3", "vision_config", "attention_dropout", 0.5),
        ("gemma3", None, "audio_config", {"layers": 2}),
        ("qwen2_5_vl", "text_config", "rope_parameters", {"rope_type": "yarn", "factor": 4.0}),
        ("qwen2_5_vl", "vision_config", "deepstack_visual_indexes", [1]),
        ("qwen2_5_vl", None, "model_type", "qwen4_vl"),
        ("qwen2_5_vl", "text_config", "rope_parameters", {"mrope_interleaved": True}),
        ("qwen3_vl", "text_config", "rope_parameters", {"mrope_interleaved": False}),
        ("qwen3_vl", "vision_config", "deepstack_visual_indexes", [0, 3]),
        ("qwen3_vl", "vision_config", "deepstack_visual_indexes", [1, 0]),
        ("qwen3_vl", "vision_config", "num_position_embeddings", 10),
        ("qwen3_vl", "vision_config", "fullatt_block_indexes", [1]),
    ],
)
def test_config_that_we_do_not_implement_is_refused_by_name(
    family: str, section: str | None, key: str, value: Any, tmp_path: Path
) -> None:
    directory = copy_of(family, tmp_path)
    edit_config(directory, section, key, value)
    with pytest.raises(UserError, match=key):
        load_pretrained(directory)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    directory = copy_of("gemma3", tmp_path)
    cut_in_two(directory)[1].unlink()
    with pytest.raises(UserError, match=r"lacks model-00002-of-00002\.safetensors"):
        load_pretrained(directory)


def test_truncated_shard_is_named(tmp_path: Path) -> None:
    directory = copy_of("gemma3", tmp_path)
    file = cut_in_two(directory)[0]
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"model-00001-of-00002.*no whole safetensors"):
        load_pretrained(directory)


def test_no_weights_no_config(tmp_path: Path) -> None:
    directory = copy_of("gemma3", tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match="neither model"):
        load_pretrained(directory)
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*config\.json"):
        load_pretrained(directory)


def test_all_wrong_names_stand_in_one_message(tmp_path: Path) -> None:
    directory = copy_of("qwen2_5_vl", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"], tensors["visual.merger.mlp.0.bias"]
    tensors["visual.extra"] = np.zeros(3, np.float32)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_pretrained(directory)
    for part in (
        "2 missing: model.norm.weight, visual.merger.mlp.0.bias",
        "1 unused: visual.extra",
        "1 misshapen: lm_head.weight (95, 16), expected (96, 16)",
    ):
        assert part in str(caught.value)


def test_placeholders_must_match_images(pretrained: Pretrained) -> None:
    image = Image.new("RGB", (24, 24))
    tokens = np.array([[3, pretrained.policy.config.image_token, 5]])
    with pytest.raises(UserError, match="row 0 holds 1 image placeholders"):
        reference_logits(pretrained, tokens, [[image]])


def with_random_adapters(pretrained: Pretrained, *patterns: str) -> Any:
    config = LoraConfig(rank=3, alpha=6.0, patterns=patterns)
    params = add_adapters(pretrained.params, config, jax.random.key(0))
    rng = np.random.default_rng(0)
    lora = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(x.dtype), params["lora"])
    return {**params, "lora": lora}


def logits_with(pretrained: Pretrained, params: Any) -> np.ndarray:
    family = family_name(pretrained)
    return golden_logits(family, replace(pretrained, params=params))[0]


def test_adapters(pretrained: Pretrained) -> None:
    """They start without effect, then change the logits as the merged weights do."""
    patterns = ("blocks/(full/)?query", "blocks/(full/)?mlp/down", "vision/blocks/out")
    # XLA fuses the programs of these otherwise once there are adapters: their logits round anew.
    rounding = 1e-5 if family_name(pretrained) in ("qwen3_vl", "qwen3_5") else 0.0
    base = logits_with(pretrained, pretrained.params)
    start = add_adapters(pretrained.params, LoraConfig(patterns=patterns), jax.random.key(0))
    np.testing.assert_allclose(logits_with(pretrained, start), base, rtol=0, atol=rounding)
    adapted = with_random_adapters(pretrained, *patterns)
    changed = logits_with(pretrained, adapted)
    assert np.abs(changed - base).max() > 0.01
    merged = logits_with(pretrained, merge_adapters(adapted))
    assert np.abs(changed - merged).max() <= 1e-4
    assert without_adapters(adapted)["params"] is pretrained.params["params"]


def test_adapter_patterns_must_match(pretrained: Pretrained) -> None:
    with pytest.raises(
        UserError, match=r"'blocks/quarry' matches no linear layer; .*blocks/(full/)?query"
    ):
        add_adapters(pretrained.params, LoraConfig(patterns=("blocks/quarry",)), jax.random.key(0))


def test_adapters_that_peft_cannot_hold(pretrained: Pretrained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no collection `lora`"):
        save_adapters(tmp_path, pretrained)
    params = with_random_adapters(pretrained, "vision/patch_embedding")
    with pytest.raises(UserError, match="which peft cannot adapt"):
        save_adapters(tmp_path, replace(pretrained, params=params))
