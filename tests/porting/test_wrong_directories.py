"""What is wrong with a directory is one message that names the file, the key and what helps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from gmma.errors import UserError
from gmma.families.gemma3.tokenizer import read_gemma
from gmma.families.qwen2_5_vl.tokenizer import read_qwen
from gmma.huggingface.weights import INDEX, SINGLE
from gmma.porting.check import check_directory
from gmma.porting.pretrained import describe_pretrained, image_processor
from gmma.text.prompt import TAGS
from tests.porting.directories import GOLDEN, write_directory, write_gemma_tokenizer

FAMILIES = ("gemma3", "qwen2_5_vl")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(request.param, tmp_path_factory.mktemp("whole") / request.param)


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    """A directory that may be broken."""
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path: Path, change: Change) -> None:
    values = json.loads(path.read_text()) if path.is_file() else {}
    change(values)
    path.write_text(json.dumps(values))


def text_keys(**keys: Any) -> Change:
    return lambda config: config["text_config"].update(keys)


WRONG_CONFIGS: Sequence[tuple[Change, str]] = (
    (text_keys(num_hidden_layers=10**9), "num_hidden_layers = 1000000000; .* from 1 to 1024"),
    (text_keys(vocab_size=10**9), "vocab_size = 1000000000; .* whole number"),
    (text_keys(hidden_size=10**9), "hidden_size = 1000000000"),
    (text_keys(hidden_size="many"), "hidden_size = 'many'; it must be a whole number"),
    (text_keys(num_key_value_heads=0), "num_key_value_heads = 0"),
    (text_keys(num_attention_heads=-4), "num_attention_heads = -4"),
    (text_keys(rms_norm_eps=float("nan")), "rms_norm_eps = nan; it must be a number above 0"),
    (lambda c: c.update(text_config=[1]), r"text_config = \[1\]; it must be a JSON object"),
    (lambda c: c.update(vision_config="x"), "vision_config = 'x'; it must be a JSON object"),
    (
        lambda c: (
            c["text_config"].pop("rope_parameters", None),
            c["text_config"].update(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        ),
        "rope_scaling = {'rope_type': 'yarn', 'factor': 4.0}; gmma implements",
    ),
)


@pytest.mark.parametrize(("change", "message"), WRONG_CONFIGS)
def test_configs_that_no_model_has(copied: Path, change: Change, message: str) -> None:
    edit(copied / "config.json", change)
    for read in (describe_pretrained, check_directory):
        with pytest.raises(UserError, match=message):
            read(copied)


LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
WRONG_LLAMAS: Sequence[tuple[dict[str, Any], str]] = (
    ({"rope_scaling": [1]}, r"rope_scaling = \[1\]; it must be a JSON object"),
    ({"rope_parameters": "linear"}, "rope_parameters = 'linear'; it must be a JSON object"),
    ({"rope_scaling": {"rope_type": ["x"]}}, r"rope_scaling = .*gmma implements rope_type default"),
    (
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        "implements rope_type default with no other key; linear with factor; llama3 with factor, ",
    ),
    ({"rope_scaling": {"type": "yarn", "unknown": 4.0}}, "gmma implements rope_type"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor = '2'; it must be a number"),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor = 0; it must be a number above 0"),
    ({"rope_scaling": {"type": "linear", "factor": None}}, "factor = 0; it must be a number"),
    ({"rope_parameters": LLAMA3 | {"low_freq_factor": True}}, "low_freq_factor = True"),
    ({"rope_parameters": {"rope_theta": "a"}}, "rope_theta = 'a'; it must be a number"),
    ({"rope_theta": "a"}, "rope_theta = 'a'; it must be a number"),
    ({"sliding_window": 0}, "sliding_window = 0; it must be a whole number"),
    ({"sliding_window": "all"}, "sliding_window = 'all'; it must be a whole number"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no'; it must be true or false"),
    ({"attention_bias": 1}, "attention_bias = 1; it must be true or false"),
)


@pytest.mark.parametrize(("keys", "message"), WRONG_LLAMAS)
def test_configs_that_no_llama_has(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    for more in ({}, {"rope_parameters": LLAMA3}, {"sliding_window": 8, "rope_theta": 5e5}):
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | more))
        describe_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | keys))
    with pytest.raises(UserError, match=message):
        describe_pretrained(tmp_path)


WRONG_QWENS: Sequence[tuple[dict[str, Any], str]] = (
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'.*implements rope_type default"),
    ({"use_sliding_window": 1}, "use_sliding_window = 1; it must be true or false"),
    ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window = 0; it must be a whole"),
    ({"max_window_layers": "all"}, "max_window_layers = 'all'; gmma implements a whole number"),
    (
        {"layer_types": ["sliding_attention"] * 2},
        "sliding_attention only beside use_sliding_window",
    ),
    ({"layer_types": ["full_attention"]}, "layer_types = .*; gmma implements 2 entries"),
    ({"layer_types": [["x"], "full_attention"]}, "layer_types = .*; gmma implements 2 entries"),
    ({"num_key_value_heads": 3}, "num_key_value_heads = 3, .*must be a multiple of the second"),
    ({"head_dim": 7}, "heads of 7; .* even"),
    ({"mlp_bias": True}, "asks for mlp_bias, which gmma does not implement"),
)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize(("keys", "message"), WRONG_QWENS)
def test_configs_that_no_qwen_has(
    tmp_path: Path, kind: str, keys: dict[str, Any], message: str
) -> None:
    qwen = {**LLAMA, "model_type": kind, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(qwen))
    describe_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(qwen | keys))
    with pytest.raises(UserError, match=message):
        describe_pretrained(tmp_path)


def qwen3_vl(directory: Path) -> Path:
    """The files of the golden Qwen3-VL, without a tokenizer."""
    for path in (GOLDEN / "qwen3_vl").glob("*.json"):
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("vision_config", {"num_heads": 3}, r"num_heads = 3; hidden_size must be a multiple of 4"),
        ("text_config", {"rope_parameters": {"mrope_section": [-1, 4, 1]}}, "none below 0"),
    ],
)
def test_configs_that_no_qwen3_vl_has(
    tmp_path: Path, section: str, keys: dict[str, Any], message: str
) -> None:
    edit(qwen3_vl(tmp_path) / "config.json", lambda config: config[section].update(keys))
    with pytest.raises(UserError, match=message):
        describe_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("text_config", {"layer_types": ["linear_attention"] * 4}, "one full_attention or more"),
        ("text_config", {"layer_types": ["full_attention"] * 3}, "gmma implements 4 entries there"),
        (
            "text_config",
            {"linear_num_value_heads": 3},
            "= 3 is no multiple of linear_num_key_heads",
        ),
        ("text_config", {"attn_output_gate": False}, "attn_output_gate = False"),
        ("text_config", {"rope_parameters": {"partial_rotary_factor": 0}}, "factor = 0 with heads"),
        ("text_config", {"rope_parameters": {"partial_rotary_factor": "x"}}, "factor = 'x' with"),
        ("text_config", {"rope_scaling": {"partial_rotary_factor": 2}}, "factor = 2 with heads"),
        ("vision_config", {"deepstack_visual_indexes": [0]}, r"deepstack_visual_indexes = \[0\]"),
    ],
)
def test_configs_that_no_qwen3_5_has(
    tmp_path: Path, section: str, keys: dict[str, Any], message: str
) -> None:
    for path in (GOLDEN / "qwen3_5").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    edit(tmp_path / "config.json", lambda config: config[section].update(keys))
    with pytest.raises(UserError, match=message):
        describe_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_mean": 0.5}, "image_mean = 0.5; it must be three numbers"),
        ({"image_mean": ["a", 0, 0]}, "image_mean = .*; it must be three numbers"),
        ({"image_std": [0.5]}, "image_std = .*; it must be three numbers, each above 0"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std = .*; it must be three numbers, each above 0"),
        ({"image_std": [float("nan")] * 3}, "image_std = .*; it must be three numbers"),
        ({"rescale_factor": "1/255"}, "rescale_factor = '1/255'; it must be a number above 0"),
        ({"resample": 77}, "resample = 77; gmma implements numbers of PIL's filters"),
        ({"resample": "bicubic"}, "resample = 'bicubic'; .* 3 BICUBIC"),
        ({"size": {"height": 9, "width": 9}}, "size = .*implements shortest_edge and longest_edge"),
    ],
)
def test_values_that_no_picture_is_computed_with(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    described = describe_pretrained(qwen3_vl(tmp_path))
    assert image_processor(described, None) is not None
    edit(tmp_path / "preprocessor_config.json", lambda values: values.update(keys))
    with pytest.raises(UserError, match=message):
        image_processor(described, None)


def test_a_joint_processor_that_is_no_object(tmp_path: Path) -> None:
    described = describe_pretrained(qwen3_vl(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": [1]}))
    with pytest.raises(UserError, match=r"image_processor = \[1\]; it must be a JSON object"):
        image_processor(described, None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"vocab.json": b'{"a": "x"}', "merges.txt": b"a b c"},
            "vocab.json and merges.txt: no byte",
        ),
        ({"vocab.json": b'{"a": 0}', "merges.txt": b"a b"}, "merges.txt: no byte pairs"),
        ({"vocab.json": b'{"a": 0}', "merges.txt": b"\xff"}, "merges.txt: no byte pairs"),
        ({"qwen.tiktoken": b"abc"}, "qwen.tiktoken: no byte pairs of a tokenizer"),
    ],
)
def test_damaged_byte_pairs(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_qwen(tmp_path)


@pytest.mark.parametrize("tied", ["no", 0])
def test_whether_heads_are_tied_is_true_or_false(copied: Path, tied: Any) -> None:
    edit(copied / "config.json", lambda config: config.update(tie_word_embeddings=tied))
    with pytest.raises(UserError, match=r"tie_word_embeddings = .*; it must be true or false"):
        describe_pretrained(copied)


def test_a_config_that_is_a_list(copied: Path) -> None:
    (copied / "config.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"config.json holds list, not a JSON object"):
        check_directory(copied)


@pytest.mark.parametrize("ends", [10**6, [1, -1], "</s>", [True], [1.5]])
def test_end_tokens_that_do_not_exist(copied: Path, ends: Any) -> None:
    edit(copied / "generation_config.json", lambda values: values.update(eos_token_id=ends))
    with pytest.raises(UserError, match=r"generation_config.json: eos_token_id = .* is no token"):
        describe_pretrained(copied)


def test_index_files_that_point_elsewhere(copied: Path) -> None:
    names = list(load_file(copied / SINGLE))
    for outside in ("../other/model.safetensors", "/etc/passwd"):
        index = {"weight_map": dict.fromkeys(names, outside)}
        (copied / INDEX).write_text(json.dumps(index))
        with pytest.raises(UserError, match=rf"names {outside}, which is outside"):
            check_directory(copied)
    (copied / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(UserError, match="weight_map is no table of tensors and files"):
        check_directory(copied)


def test_tensors_that_are_stored_as_integers(copied: Path) -> None:
    tensors = load_file(copied / SINGLE)
    name = next(name for name in sorted(tensors) if tensors[name].ndim == 2)
    rounded = np.zeros(tensors[name].shape, np.int8)
    save_file({**tensors, name: rounded}, copied / SINGLE)
    with pytest.raises(UserError, match=rf"stores 1 tensors .*{name} \(I8\); gmma reads F64"):
        check_directory(copied)


def test_files_with_another_head_than_a_tied_config_are_not_tied(copied: Path) -> None:
    """As in transformers 5: equal heads are tied, others are not, whatever config.json says."""
    edit(copied / "config.json", lambda c: c.update(tie_word_embeddings=False))
    edit(copied / "config.json", text_keys(tie_word_embeddings=True))
    edit(copied / "config.json", lambda c: c.pop("tie_word_embeddings"))
    tensors = load_file(copied / SINGLE)
    tensors.pop("lm_head.weight", None)
    embedding = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    save_file(tensors, copied / SINGLE)
    assert describe_pretrained(copied).policy.config.tied
    save_file({**tensors, "lm_head.weight": tensors[embedding]}, copied / SINGLE)
    assert describe_pretrained(copied).policy.config.tied
    save_file({**tensors, "lm_head.weight": tensors[embedding] + 1}, copied / SINGLE)
    described = describe_pretrained(copied)
    assert not described.policy.config.tied
    assert described.config["tie_word_embeddings"] is False
    assert described.config["text_config"]["tie_word_embeddings"] is False
    assert not check_directory(copied).tied


# Added tokens


def test_added_tokens_that_are_no_special_ones_are_text(tmp_path: Path) -> None:
    """Gemma's own are new lines, runs of spaces and HTML; tags are text even where special."""
    write_gemma_tokenizer(tmp_path)
    plain = read_gemma(tmp_path)
    assert plain is not None
    at, new_line = plain.vocab_size, plain.encode("\n\n")[0]
    beside = {"normalized": False}
    added = {
        str(new_line): {"content": "\n\n", "special": False, **beside},
        str(at): {"content": "▁▁", "special": False, **beside},
        str(at + 1): {"content": "<table>", "special": False, **beside},
        str(at + 2): {"content": "</think>", "special": True, **beside},
        str(at + 3): {"content": "</answer>", "special": False, **beside},
        str(at + 4): {"content": "<unused>", "special": True, **beside},
    }
    edit(
        tmp_path / "tokenizer_config.json",
        lambda values: values["added_tokens_decoder"].update(added),
    )
    tokenizer = read_gemma(tmp_path)
    assert tokenizer is not None
    text = "def f():\n\n  x<table>12</think><answer>12</answer>"
    tokens = tokenizer.encode(text)
    assert {new_line, at + 1, at + 2, at + 3} <= set(tokens)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.decode([at]) == "  "
    assert tokenizer.decode(tokenizer.encode("a<unused>b<end_of_turn>")) == "ab"
    edit(tmp_path / "tokenizer_config.json", lambda v: v.update(added_tokens_decoder=[1]))
    with pytest.raises(UserError, match="added_tokens_decoder is no table of ids and tokens"):
        read_gemma(tmp_path)


@pytest.mark.parametrize("special", [False, True])
def test_tags_that_are_tokens_of_their_own_pass_the_check(copied: Path, special: bool) -> None:
    """As text, added or special: `port check` verifies that all four come back."""
    read = read_qwen if (copied / "tokenizer.json").is_file() else read_gemma
    before = read(copied)
    assert before is not None
    if (copied / "tokenizer.json").is_file():
        library = Library.from_file(str(copied / "tokenizer.json"))
        library.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in TAGS])
        library.save(str(copied / "tokenizer.json"))
    else:
        entries = {
            str(before.vocab_size + n): {"content": tag, "special": special}
            for n, tag in enumerate(TAGS)
        }
        edit(
            copied / "tokenizer_config.json",
            lambda values: values["added_tokens_decoder"].update(entries),
        )
    tokenizer = read(copied)
    assert tokenizer is not None
    text = "<think>7</think><answer>7</answer>"
    assert len(tokenizer.encode(text)) == 6
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_that_loses_a_tag_is_refused(copied: Path) -> None:
    """It writes `answer` in capitals."""
    if not (copied / "tokenizer.json").is_file():
        pytest.skip("only a file of the library can say so")
    replace_ = {"type": "Replace", "pattern": {"String": "</answer>"}, "content": "</ANSWER>"}
    edit(copied / "tokenizer.json", lambda values: values.update(normalizer=replace_))
    with pytest.raises(UserError, match=r"does not keep </answer>: .* '</ANSWER>'"):
        check_directory(copied)
