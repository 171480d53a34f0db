"""`gmma port` on tiny directories, and what a user reads when a directory is broken."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gmma.cli import main
from gmma.config import config_to_json
from gmma.families.pretrained import PretrainedConfig
from gmma.hardware.sharding import make_mesh
from gmma.huggingface.chat import DIFFERENCE, TEMPLATE
from gmma.huggingface.weights import INDEX, SINGLE
from gmma.models.lora import LoraConfig, add_adapters
from gmma.porting import load_pretrained
from gmma.porting.pretrained import chat_of
from gmma.records.checkpoint import find_params, restore_params, save_params
from gmma.run.experiments import load_experiment
from tests.porting.directories import write_directory

FAMILIES = ("gemma3", "qwen2_5_vl")
TINY = Path(__file__).resolve().parents[1] / "tiny_digits.py"


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(request.param, tmp_path_factory.mktemp("whole") / request.param)


def copy_of(directory: Path, tmp_path: Path) -> Path:
    """A directory that may be broken."""
    copied = tmp_path / "copy"
    copied.mkdir()
    for path in directory.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


def edit(path: Path, change: Any) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def cut_in_two(directory: Path) -> list[Path]:
    """The weights as two shards with an index."""
    tensors = load_file(directory / SINGLE)
    (directory / SINGLE).unlink()
    names = sorted(tensors)
    files = [directory / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, file)
    weight_map = {n: f.name for f, part in zip(files, parts, strict=True) for n in part}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return files


def complaint(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What the command says on its way to exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gmma {arguments[0]}: ")
    assert "Traceback" not in said
    return said


def break_config(directory: Path) -> tuple[str, ...]:
    edit(directory / "config.json", lambda c: c["text_config"].update(num_experts=8))
    return ("text_config asks for num_experts", "remove the key")


def break_by_absence(directory: Path) -> tuple[str, ...]:
    missing = cut_in_two(directory)[1]
    missing.unlink()
    return (missing.name, "download the missing files")


def break_by_truncation(directory: Path) -> tuple[str, ...]:
    cut = cut_in_two(directory)[0]
    cut.write_bytes(cut.read_bytes()[:-10])
    return (cut.name, "no whole safetensors file", "download it again")


def break_tokenizer(directory: Path) -> tuple[str, ...]:
    """The end of a turn is gone."""
    if (directory / "tokenizer.json").is_file():
        token = "<|im_end|>"
        drop = lambda v: v.update(  # noqa: E731
            added_tokens=[t for t in v["added_tokens"] if t["content"] != token]
        )
        edit(directory / "tokenizer.json", drop)
    else:
        token = "<end_of_turn>"
        drop = lambda v: v.update(  # noqa: E731
            added_tokens_decoder={
                n: t for n, t in v["added_tokens_decoder"].items() if t["content"] != token
            }
        )
        edit(directory / "tokenizer_config.json", drop)
    return (f"lacks {token}", "add the special tokens")


BREAKS = (break_config, break_by_absence, break_by_truncation, break_tokenizer)


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda f: f.__name__)
def test_a_broken_directory_is_one_message(
    directory: Path, break_it: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = copy_of(directory, tmp_path), tmp_path / "out"
    expected = break_it(broken)
    for arguments in (("check", broken), ("import", broken, out)):
        said = complaint(capsys, "port", *arguments)
        assert str(broken) in said
        for part in expected:
            assert part in said
    assert not out.exists()


def test_training_says_the_same_and_writes_nothing(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All breaks of one directory, one after the other, by `gmma train`."""
    capsys.readouterr()
    for break_it in BREAKS:
        home = tmp_path / break_it.__name__
        home.mkdir()
        broken = copy_of(directory, home)
        expected = break_it(broken)
        experiment = home / "job.py"
        experiment.write_text(JOB.format(tiny=TINY, directory=broken))
        places = ("--data-dir", tmp_path / "data", "--runs-dir", home / "runs")
        said = complaint(capsys, "train", experiment, *places)
        for part in expected:
            assert part in said
        assert not list(home.glob("runs/job/*"))


def test_training_refuses_a_tokenizer_that_loses_a_tag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its answers none would ever close, and each would earn 0."""
    directory = write_directory("qwen2_5_vl", tmp_path / "model")
    capitals = {"type": "Replace", "pattern": {"String": "</answer>"}, "content": "</ANSWER>"}
    edit(directory / "tokenizer.json", lambda values: values.update(normalizer=capitals))
    experiment = tmp_path / "job.py"
    experiment.write_text(JOB.format(tiny=TINY, directory=directory))
    places = ("--data-dir", tmp_path / "data", "--runs-dir", tmp_path / "runs")
    assert "does not keep </answer>" in complaint(capsys, "train", experiment, *places)
    assert not list(tmp_path.glob("runs/job/*"))


JOB = """
from dataclasses import replace
from pathlib import Path

from gmma.run.experiments import load_experiment
from gmma.config import TreeConfig
from gmma.families.pretrained import PretrainedConfig


def experiment():
    tree = TreeConfig(
        thoughts=2, answers=2, prompt_tokens=160, thought_tokens=40, answer_tokens=40
    )
    config = replace(load_experiment(Path("{tiny}")), name="job", tree=tree)
    return replace(config, model=PretrainedConfig(directory=Path("{directory}")))
"""


def test_check_lists_every_problem(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = copy_of(directory, tmp_path)
    break_tokenizer(broken)
    tensors = load_file(broken / SINGLE)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file({**tensors, "extra": np.zeros(3, np.float32)}, broken / SINGLE)
    edit(broken / "preprocessor_config.json", lambda v: v.update(do_resize=False))
    said = complaint(capsys, "port", "check", broken)
    for part in ("3 problems", "lacks <", f"1 missing: {gone}", "1 unused: extra", "do_resize"):
        assert part in said
    edit(broken / "config.json", lambda c: c["text_config"].update(num_experts=8))
    edit(broken / "config.json", lambda c: c["vision_config"].update(hidden_act="swiglu"))
    said = complaint(capsys, "port", "check", broken)
    for part in ("num_experts", "hidden_act = 'swiglu'", "were not checked"):
        assert part in said


def test_check_of_a_whole_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["port", "check", str(directory)])
    assert "nothing is wrong" in capsys.readouterr().out


def test_import_then_export_is_the_same_model(
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over two devices in, out again, tensor by tensor."""
    two = partial(make_mesh, devices=jax.devices()[:2])
    monkeypatch.setattr("gmma.porting.checkpoints.make_mesh", two)
    held, back = tmp_path / "imported", tmp_path / "back"
    main(["port", "import", str(directory), str(held), "--dtype", "float32"])
    said = capsys.readouterr().out
    assert "bound: 1.3 × largest file" in said
    assert f"--init-from {held}" in said
    main(["port", "export", str(held), str(back)])
    before, after = (load_file(d / SINGLE) for d in (directory, back))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)
    main(["port", "check", str(back)])
    assert "not empty" in complaint(capsys, "port", "import", directory, held)


def test_an_import_is_an_origin_whatever_is_trained(directory: Path, tmp_path: Path) -> None:
    """`init_from` takes it for a run that freezes the tower and for one that does not."""
    pretrained = load_pretrained(directory)
    save_params(tmp_path, pretrained.params)
    leaves = pretrained.params["params"]
    frozen = {"params": {"vision": leaves["vision"]}}
    trained = {"params": {name: leaf for name, leaf in leaves.items() if name != "vision"}}
    for groups in (
        {"params": trained, "frozen": frozen},
        {"params": pretrained.params, "frozen": {}},
    ):
        find_params(tmp_path, groups)
        found = restore_params(tmp_path, groups)
        jax.tree.map(np.testing.assert_array_equal, found, groups)


def test_export_says_what_it_cannot(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "neither a run nor an import" in complaint(capsys, "port", "export", tmp_path, out)
    both = complaint(capsys, "port", "export", tmp_path, out, "--merge", "--adapters")
    assert "exclude each other" in both
    assert "no command 'inport'; gmma port import|export|check" in complaint(
        capsys, "port", "inport"
    )


def fake_run(directory: Path, run: Path, lora: LoraConfig) -> Any:
    """A run with adapters as `gmma train` leaves it: its config, and the adapters alone."""
    model = PretrainedConfig(directory=directory, dtype="float32", lora=lora)
    run.mkdir()
    config = replace(load_experiment(TINY), model=model)
    (run / "config.json").write_text(json.dumps(config_to_json(config)))
    pretrained = load_pretrained(directory)
    rng = np.random.default_rng(0)
    adapters = add_adapters(pretrained.params, lora, jax.random.key(0))["lora"]
    noise = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), adapters)
    save_params(run, {"lora": noise})
    return {**pretrained.params, "lora": noise}


def test_a_run_with_adapters_is_exported_merged_and_apart(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, merged, apart = (tmp_path / name for name in ("run", "merged", "apart"))
    lora = LoraConfig(rank=2, alpha=4.0, patterns=("blocks/query",))
    params = fake_run(directory, run, lora)
    main(["port", "export", str(run / "checkpoints" / "0"), str(merged), "--merge"])
    found = load_pretrained(merged).params["params"]["blocks"]["query"]["kernel"]
    pair = params["lora"]["blocks"]["query"]
    base = np.asarray(params["params"]["blocks"]["query"]["kernel"])
    expected = base + np.matmul(pair["a"], pair["b"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    main(["port", "export", str(run), str(apart), "--adapters"])
    assert json.loads((apart / "adapter_config.json").read_text())["r"] == 2
    tensors = load_file(apart / "adapter_model.safetensors")
    layers, _, rank = pair["a"].shape
    assert len(tensors) == 2 * layers
    assert all(rank in tensor.shape for tensor in tensors.values())


def test_an_exported_run_asks_as_it_was_trained(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole or as adapters: the base's template goes, and the export says how it differs."""
    base, run = copy_of(directory, tmp_path), tmp_path / "run"
    published = Path(__file__).parent / "chat_templates" / f"{directory.name}.jinja"
    (base / TEMPLATE).write_text(published.read_text())
    fake_run(base, run, LoraConfig(rank=2, alpha=4.0, patterns=("blocks/query",)))
    trained = chat_of(load_pretrained(base).source)
    for form in ("merge", "adapters"):
        main(["port", "export", str(run), str(tmp_path / form), f"--{form}"])
        assert (tmp_path / form / TEMPLATE).read_text() == trained
        assert DIFFERENCE in capsys.readouterr().out
