"""`gmma eval` and `gmma sample` of Hugging Face directories that were never trained here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from bucket import fetched, open_bucket
from PIL import Image
from porting.directories import write_directory
from tiny_run import TINY

from gmma import cli, commands
from gmma.errors import CODE_USER_ERROR
from gmma.families.pretrained import PretrainedConfig
from gmma.options.arguments import DirectoryOptions
from gmma.options.networks import LoraConfig
from gmma.porting import load_pretrained, reference_logits
from gmma.remote.copies import look
from gmma.run.backbone import trained_by
from gmma.run.subject import directory_config
from gmma.tasks.digits import DIGITS
from gmma.text.prompt import prompt_tokens

SLOTS = ("--thought-tokens", "40", "--answer-tokens", "40")


@pytest.fixture(scope="module", autouse=True)
def _compiled_in_a_hurry():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a text model, one that sees images, and a picture."""
    folder = tmp_path_factory.mktemp("models")
    write_directory("llama", folder / "llama")
    write_directory("qwen2_5_vl", folder / "qwen2_5_vl")
    Image.fromarray(np.zeros((56, 84, 3), np.uint8)).save(folder / "cup.png")
    return folder


@pytest.fixture
def gmma(tmp_path, monkeypatch, capsys):
    """Run gmma in a folder of its own; returns what it printed, and its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("GMMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)

    def run(*arguments):
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out if code == 0 else " ".join(said.err.split())

    return run


def greedy_text(directory, question, count):
    """So many greedy tokens by the plain forward of whole sequences."""
    model = load_pretrained(directory)
    row = prompt_tokens(question, [], model.tokenizer, model.template)
    asked = len(row)
    tokens = np.zeros((1, asked + count), np.int32)
    for at in range(asked, asked + count):
        tokens[0, :at] = row
        logits = reference_logits(model, tokens, lengths=np.array([at]))
        row.append(int(logits[0, at - 1].argmax()))
    return model.tokenizer.decode(row[asked:])


def test_a_text_model_is_asked_a_question(models, gmma, tmp_path):
    """Greedy thoughts begin as the plain forward of whole sequences says."""
    question = "Where is the cup?"
    code, printed = gmma(
        *("sample", models / "llama", "--question", question, "--temperature", "0"),
        *("--thoughts", "2", "--answers", "3", *SLOTS),
    )
    assert code == 0
    assert question in printed
    assert "picture: evaluated/llama/question/image.png" in printed
    tree = json.loads((tmp_path / "evaluated/llama/question/tree.json").read_text())
    assert [len(thought["answers"]) for thought in tree["thoughts"]] == [3, 3]
    said = {thought["thought"] for thought in tree["thoughts"]}
    assert len(said) == 1
    assert said.pop().startswith(greedy_text(models / "llama", question, 4))


def test_a_question_about_a_picture_is_shown_as_it_is_asked(models, gmma):
    code, printed = gmma(
        *("sample", models / "qwen2_5_vl", "--question", "<image> What is it?"),
        *("--image", models / "cup.png", "--system", "Be brief.", "--prompt"),
    )
    assert code == 0
    assert printed.startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_"
    )
    assert "<|vision_end|> What is it?" in printed
    assert printed.count("<|image_pad|>") > 1
    assert printed.rstrip().endswith("tokens")
    experiment = (
        f"{TINY} --task.instruction Point! --task.system Look. --prompt.tags.answer <a> </a>"
    )
    _, printed = gmma(
        *("sample", models / "qwen2_5_vl", "--task", experiment, "--question", "Where?"),
        *("--image", models / "cup.png", "--prompt"),
    )
    assert printed.startswith("<|im_start|>system\nLook.<|im_end|>")
    assert "Where? Point!" in printed
    assert "<a>" in printed


def test_a_model_with_images_is_evaluated_on_an_experiment_file(models, gmma, tmp_path):
    settings = ("--examples", "8", "--batch-prompts", "8", "--samples", "1", "--pictures", "1")
    code, printed = gmma(
        *("eval", models / "qwen2_5_vl", "--tasks", TINY, *settings, *SLOTS),
        *("--prompt-tokens", "224"),
    )
    assert code == 0
    assert "qwen2_5_vl, test" in printed
    found = json.loads((tmp_path / "evaluated/qwen2_5_vl/test.json").read_text())["tasks"]["tiny"]
    assert len(found["values"]["greedy"]["iou"]) == 8
    assert len(list((tmp_path / "evaluated/qwen2_5_vl/test/tiny").glob("*.png"))) == 2


def test_a_model_and_a_picture_in_a_bucket_are_asked_as_those_on_a_disk(models, gmma, tmp_path):
    """And nothing of them is fetched twice."""
    lab = open_bucket(tmp_path / "bucket")
    shutil.copytree(models, lab / "lab/models")
    question = ("--question", "<image> What is it?", "--prompt")
    _, told = gmma("sample", models / "qwen2_5_vl", *question, "--image", models / "cup.png")
    line = ("sample", "gs://lab/models/qwen2_5_vl", *question)
    for _ in range(2):
        look.cache_clear()  # as a process that begins
        code, printed = gmma(*line, "--image", "gs://lab/models/cup.png")
        assert code == 0, printed
        assert printed == told
    files = ["cup.png", *(f"qwen2_5_vl/{one.name}" for one in (models / "qwen2_5_vl").iterdir())]
    assert sorted(fetched(lab)) == sorted(f"lab/models/{name}" for name in files)
    code, said = gmma("sample", "gs://lab/models/typo", "--question", "?")
    assert code == CODE_USER_ERROR
    assert "gs://lab/models/typo is no run" in said


def test_what_was_trained_is_held_as_it_was_saved_though_no_step_is_to_come():
    """Taken for frozen, a run's adapters would be drawn anew, and the base would be evaluated."""
    model = PretrainedConfig(directory=Path("models/x"), freeze_vision=True)
    looked = directory_config(model.directory, DirectoryOptions(), None, DIGITS.config())
    adapted = replace(model, lora=LoraConfig())
    paths = ("params/blocks/query", "params/vision/blocks/out", "lora/blocks/query/a")

    def trained(config, model):
        return [path for path in paths if trained_by(config, model)(path)]

    assert trained(looked, model) == []
    assert trained(replace(looked, init_from=Path("runs/a")), model) == [paths[0], paths[2]]
    assert trained(looked, adapted) == [paths[2]]
    assert trained(replace(looked, rl=replace(looked.rl, steps=1)), model) == [paths[0], paths[2]]


WRONG = [
    (("eval",), "has no task of its own; give --tasks"),
    (("sample",), "has no records of its own; give --question"),
    (("sample", "--image", "cup.png"), "--image and --system belong to a --question"),
    (("sample", "--question", "?", "--example", "3"), "leave --example and --split"),
    (("sample", "--question", "?", "--image", "none.png"), "none.png is no whole picture"),
    (("sample", "--question", "?", "--thought-tokens", "2"), "leaves no room beside the closing"),
    (("sample", "--task", "nothing"), "no task 'nothing'"),
    (("eval", "--tasks", "mixture"), "task mixture has no default config"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_what_says_too_little_is_one_message(models, gmma, line, message):
    verb, *rest = line
    code, said = gmma(verb, models / "llama", *rest)
    assert code == CODE_USER_ERROR
    assert message in said
    assert "Traceback" not in said


def test_images_of_a_text_model_are_refused(models, gmma):
    code, said = gmma(
        *("sample", models / "llama", "--question", "?", "--image", models / "cup.png")
    )
    assert code == CODE_USER_ERROR
    assert "image" in said
