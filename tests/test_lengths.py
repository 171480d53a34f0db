"""Records that do not fit: all are found before anything is compiled, and refused or left out."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from porting.directories import write_directory
from tiny_digits import experiment

from gmma import commands
from gmma.cli import main
from gmma.config import LaunchConfig, job_to_json
from gmma.errors import CODE_USER_ERROR, UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.images.common import outline_of, rgb_array
from gmma.run.assembly import assemble, in_frame
from gmma.run.data_report import fit_lines, length_lines, measure_split, prompt_lines
from gmma.run.feed import demonstrated_source, read_examples, read_prompts, train_source
from gmma.run.preflight import check_fits_slots
from gmma.tasks.mixture import MixtureConfig, MixturePart
from gmma.tasks.vqa import VqaConfig, VqaFiles

LONG, STRIP, TALKATIVE = 7, 21, 30  # records of forty
EXIF_ORIENTATION = 0x0112
EXPERIMENT = """
import json

from gmma.config import config_from_json


def experiment():
    return config_from_json(json.loads({saved!r}), "mine.json")
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Forty records: one with a long question, one with a strip, one with a long trace."""
    folder = tmp_path_factory.mktemp("long")
    Image.fromarray(np.zeros((56, 56, 3), np.uint8)).save(folder / "square.png")
    Image.fromarray(np.zeros((4, 1000, 3), np.uint8)).save(folder / "strip.png")
    rows = [
        {"id": n, "question": "Who?", "image": "square.png", "answer": "me", "thought": "so"}
        for n in range(40)
    ]
    rows[LONG]["question"] = "Who? " * 100
    rows[STRIP]["image"] = "strip.png"
    rows[TALKATIVE]["thought"] = "so " * 60
    path = folder / "mine.json"
    path.write_text(json.dumps(rows))
    files = VqaFiles(train=path, validation=path, test=path)
    base = experiment()
    model = PretrainedConfig(directory=write_directory("qwen2_5_vl", folder / "model"))
    tree = replace(base.tree, prompt_tokens=300, thought_tokens=100, answer_tokens=60)
    return replace(
        base,
        task=VqaConfig(records=files, too_long="leave_out"),
        model=model,
        tree=tree,
        evaluation=replace(base.evaluation, examples=30),
        launch=LaunchConfig(data_dir=folder / "data"),
    )


@pytest.fixture(scope="module")
def parts(config):
    return assemble(config)


def refusing(parts):
    task = replace(parts.config.task, too_long="refuse")
    return replace(parts, config=replace(parts.config, task=task))


def test_both_are_named_at_once(parts):
    with pytest.raises(UserError) as error:
        check_fits_slots(refusing(parts))
    message = str(error.value)
    assert message.startswith("2 of 40 prompts of split train do not fit: ")
    assert f"the prompt of record {LONG} has" in message
    assert f"record {STRIP}: an image of 1000 × 4 pixels" in message
    assert "set tree.prompt_tokens to at least" in message
    assert "task.too_long = leave_out" in message


@pytest.mark.parametrize(("command", "code"), [("data", 0), ("train", CODE_USER_ERROR)])
def test_a_command_names_both_at_once(config, tmp_path, monkeypatch, capsys, command, code):
    """What is left out is counted by the commands in `tasks/test_vqa_run.py`."""
    refused = replace(config, task=replace(config.task, too_long="refuse"))
    saved = json.dumps(job_to_json(refused))
    (tmp_path / "mine.py").write_text(EXPERIMENT.format(saved=saved))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)
    try:
        main([command, "mine.py"])
        ended = 0
    except SystemExit as end:
        ended = end.code
    assert ended == code
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    words = " ".join(said.split())
    assert "2 of 40 prompts of " in words
    assert f"the prompt of record {LONG} has" in words
    assert f"record {STRIP}: an image of 1000 × 4 pixels" in words
    assert "set tree.prompt_tokens to at least" in words
    assert not (tmp_path / "runs" / config.name).exists()


def test_left_out_records_are_counted_and_never_read(parts):
    lines = check_fits_slots(parts)
    assert [line.partition(" are left out")[0] for line in lines] == [
        "2 of 40 prompts of split train",
        "1 of 38 demonstrations of split train",
        "2 of 30 prompts of split validation",
        "2 of 30 prompts of split test",
    ]
    assert f"the thought of record {TALKATIVE} has" in lines[1]
    kept, shown = train_source(parts), demonstrated_source(parts)
    ids = {kept[row].id for row in range(len(kept))}
    assert ids == {str(n) for n in range(40)} - {str(LONG), str(STRIP)}
    assert {shown[row].id for row in range(len(shown))} == ids - {str(TALKATIVE)}
    read_prompts(parts, [kept[row] for row in range(len(kept))])
    examples = read_examples(parts, "test", 30)
    assert len(examples) == 30
    assert not {str(LONG), str(STRIP)} & {example.id for example in examples}


def test_lengths_are_shown_with_what_does_not_fit(parts):
    found = measure_split(parts, "train")
    tokens = found.nodes()
    assert [len(tokens[node]) for node in ("prompt", "thought", "answer")] == [39, 39, 39]
    lines = length_lines(parts, found)
    assert all(len(line) <= 80 and line.isascii() for line in lines)
    table = {line.split()[0]: line.split()[1:] for line in lines[2:5]}
    for node, slots in (("prompt", 300), ("thought", 100), ("answer", 60)):
        own = sorted(tokens[node])
        assert table[f"{node}s"] == ["39", str(own[19]), str(own[-1]), str(slots)]
    bars = {node: [] for node in tokens}
    for line in lines[6:]:
        if "by tokens" in line:
            own = bars[line.split()[0].removesuffix("s")]
        elif line:
            own.append(line)
    for node, own in bars.items():
        assert sum(int(line.split()[-1]) for line in own) == 39
        assert len(own) <= 12
        assert sum("x" in line for line in own) == (node != "answer")
    fits = list(fit_lines(parts, found))
    assert fits[0].startswith("2 of 40 prompts of train do not fit, and a run leaves them out")
    assert f"record {STRIP}: an image" in fits[0]
    assert f"set tree.prompt_tokens to at least {max(tokens['prompt'])}" in fits[0]
    assert fits[1].startswith("1 of 39 demonstrations of train do not fit")
    assert f"set tree.thought_tokens to at least {max(tokens['thought'])}" in fits[1]
    roomy = replace(parts.config.tree, prompt_tokens=4000, thought_tokens=400)
    roomy = replace(parts, config=replace(parts.config, tree=roomy))
    assert next(fit_lines(roomy, measure_split(roomy, "test"))).startswith("1 of 40 prompts")


def test_a_prompt_is_shown_whole_with_its_image_slots_counted(parts):
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "train")
    head, text = prompt_lines(parts, in_frame(parts, source[0]))
    assert head.startswith("prompt of 0, ")
    (slots,) = parts.processor.view_tokens(source[0].images[0])
    assert f"<|vision_start|>[{slots} x <|image_pad|>]<|vision_end|>Who?" in text
    assert text.endswith("<think>")


def test_other_slots_keep_other_records(parts):
    tree = replace(parts.config.tree, prompt_tokens=4000)
    roomy = replace(parts, config=replace(parts.config, tree=tree))
    assert len(train_source(roomy)) == 39  # no slot is long enough for the strip


def test_nothing_left_is_refused(parts):
    tree = replace(parts.config.tree, prompt_tokens=3)
    with pytest.raises(UserError, match="left out every training record"):
        train_source(replace(parts, config=replace(parts.config, tree=tree)))


def test_a_mixture_leaves_out_for_all_its_parts(config):
    with pytest.raises(UserError, match=r"vqa has too_long = leave_out.*of the mixture"):
        MixtureConfig(parts=(MixturePart(task=config.task),))
    mixed = MixtureConfig(parts=(MixturePart(task=config.task),), too_long="leave_out")
    parts = assemble(replace(config, task=mixed))
    assert len(train_source(parts)) == 38


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_header_says_the_upright_size(form, turn):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[EXIF_ORIENTATION] = turn
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, form, exif=exif)
    found = outline_of(buffer.getvalue())
    assert found.shape == rgb_array(Image.open(buffer)).shape
