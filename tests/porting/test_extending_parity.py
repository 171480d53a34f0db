"""The family of `docs/extending.md` has the logits of transformers, and its export loads again."""

import sys
from pathlib import Path

import numpy as np
import pytest
from test_extending import FILES

from gmma.errors import UserError
from gmma.porting import load_pretrained, reference_logits, save_pretrained
from gmma.porting.check import check_directory
from tests.porting import theirs

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
OWN = "gemma1:GEMMA"
OPTIONS = [
    {"layers": 1, "heads": 4, "kv": 1, "width": 32, "head": 16},
    {"layers": 3, "heads": 6, "kv": 3, "width": 36, "head": 8, "tied": False},
    {"layers": 2, "heads": 2, "kv": 2, "width": 24, "head": 12, "base": 500.0},
]


@pytest.fixture(autouse=True)
def _own_family(tmp_path, monkeypatch):
    theirs.quiet()
    (tmp_path / "gemma1.py").write_text(FILES["gemma1.py"])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    sys.modules.pop("gemma1", None)


def gemma1(directory: Path, o: dict):
    from transformers import GemmaConfig, GemmaForCausalLM

    config = GemmaConfig(
        vocab_size=theirs.VOCAB,
        hidden_size=o["width"],
        intermediate_size=40,
        num_hidden_layers=o["layers"],
        num_attention_heads=o["heads"],
        num_key_value_heads=o["kv"],
        head_dim=o["head"],
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": o.get("base", 10_000.0)},
        tie_word_embeddings=o.get("tied", True),
    )
    return theirs.save_random(GemmaForCausalLM(config), directory, 0)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_family_from_a_folder_outside(options, tmp_path):
    rng = np.random.default_rng(0)
    model = gemma1(tmp_path / "model", options)
    tokens, lengths = rng.integers(3, 80, (3, 17)), np.array([17, 9, 2])
    pretrained = load_pretrained(tmp_path / "model", architecture=OWN)
    expected = theirs.logits(model, tokens, lengths)
    valid = np.arange(17) < lengths[:, None]
    for held in (pretrained, exported(pretrained, tmp_path / "again")):
        ours = reference_logits(held, tokens, lengths=lengths)
        assert np.abs(ours - expected)[valid].max() <= 1e-4
    with pytest.raises(UserError, match=r"model_type = 'gemma'.*module:NAME"):
        load_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="tokenizer"):  # nothing else is missing
        check_directory(tmp_path / "model", OWN)


def exported(pretrained, directory: Path):
    save_pretrained(directory, pretrained)
    return load_pretrained(directory, architecture=OWN)
