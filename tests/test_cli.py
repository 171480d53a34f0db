"""The command line: what users get wrong is one message and exit code 2; the commands work."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_digits import experiment
from tiny_run import TINY, open_tiny, tree_of

import gmma
from gmma import cli, commands
from gmma.commands import placed
from gmma.config import LaunchConfig, MeshConfig, config_to_json, with_launch
from gmma.errors import CODE_USER_ERROR
from gmma.options.arguments import EvalArguments, SampleArguments
from gmma.options.launch import LaunchOverride
from gmma.options.parsing import parse
from gmma.records.console import print_table
from gmma.records.resuming import save_config
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import run_scorer
from gmma.run.data import batch_demonstrations
from gmma.run.evaluate import load_evaluation
from gmma.run.lines import changed_fields, difference_lines, train_line
from gmma.tasks.task import Demonstration
from gmma.types import TreeRollout

ROOT = Path(__file__).resolve().parent.parent
OWN_REWARDS = """
def crashes(answers, *, thoughts, answer, **columns):
    return [1.0 / len(label) for label in answer[0][5:]] or [answers[0].nothing]

def too_many(answers, *, thoughts, **columns):
    return [0.0, 1.0]

def cannot_read(answers, *, thoughts, **columns):
    return [None for _ in answers]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(directory with a finished run, function that runs gmma there in a process of its own)."""
    with open_tiny(tmp_path_factory) as opened:
        yield opened


@pytest.fixture
def refuse(tiny, capsys, monkeypatch):
    """Run gmma where the finished run is; it must end with code 2, a message, and no new file."""
    directory, _ = tiny
    monkeypatch.chdir(directory)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)

    def run(*arguments):
        before = tree_of(directory / "runs/whole")
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        assert end.value.code == CODE_USER_ERROR
        assert before == tree_of(directory / "runs/whole")
        assert not (directory / "runs/refused").exists()  # others are made beside it meanwhile
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return " ".join(message.split())

    return run


def train(*arguments):
    return ("train", TINY, "--name", "refused", "--rewards.workers", "0", *arguments)


WRONG_OPTIONS = [
    ("--tree.thoghts 3", "Unrecognized options: --tree.thoghts", "--tree.thoughts INT"),
    ("--tree.thoughts many", "Error parsing --tree.thoughts", "'many'"),
    ("--tree.thoughts 0", "tree.thoughts = 0; it must be 1 or more"),
    ("--tree.answers 0", "tree.answers = 0; it must be 1 or more"),
    ("--objective.algorithm grpo", "tree.answers = 2", "set tree.answers to 1"),
    ("--sft.batch-prompts 12", "sft.batch_prompts = 12", "8 devices; set it to a multiple of 8"),
    ("--rl.microbatches 2", "rl.batch_prompts = 8", "8 devices × 2 microbatches", "of 16"),
    ("--rl.microbatches 3", "batch_prompts = 8 is not divisible by microbatches = 3"),
    ("--evaluation.batch-prompts 6", "evaluation.batch_prompts = 6", "8 devices"),
    ("--mesh.data 3", "mesh (data, fsdp, tensor) = (3, 1, 1)", "8 devices"),
    (
        "--tree.prompt-tokens 20",
        "prompt of record train/",
        "21 tokens (16 of images: 16 of 48 × 48 pixels)",
        "20 prompt",
    ),
    ("--tree.prompt-tokens 20", "set tree.prompt_tokens to at least 21"),
    ("--tree.answer-tokens 5", "answer of record train/", "set tree.answer_tokens to at least"),
    ("--rewards.terms.0.name box_uoi", "reward 'box_uoi' is unknown; choose one of", "box_iou"),
    ("--rewards.terms.0.name nowhere:reward", "'nowhere:reward' cannot be imported"),
    ("--sampling.temperature 0", "sampling.temperature = 0", "every advantage 0"),
    ("--init-from runs/nowhere", "runs/nowhere has no checkpoint yet"),
    ("--init-from runs/whole --model.width 32", "belongs to another model", "(and 15 more)"),
]


@pytest.mark.parametrize(("options", "messages"), [(o, m) for o, *m in WRONG_OPTIONS])
def test_a_wrong_option_is_refused(refuse, options, messages):
    found = refuse(*train(*options.split()))
    for message in messages:
        assert message in found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crashes", "failed on 8 and exceeded its time limit on 0 of 8 trial answers"),
        ("too_many", "returned 2 values for 1 answer"),
        ("cannot_read", "scored none of 8 trial answers"),
    ],
)
def test_an_own_reward_is_tried_on_real_records_before_anything_is_written(
    refuse, tmp_path, monkeypatch, name, message
):
    (tmp_path / "tried_rewards.py").write_text(OWN_REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    assert message in refuse(*train("--rewards.terms.0.name", f"tried_rewards:{name}"))
    del sys.modules["tried_rewards"]


def test_a_run_is_not_written_over(refuse):
    whole = ("train", TINY, "--name", "whole", "--rewards.workers", "0")
    assert "already holds a run; give --resume to go on with it" in refuse(*whole)
    found = refuse(*whole, "--resume", "--rl.optimizer.learning-rate", "1e-3", "--seed", "1")
    assert "rl.optimizer.learning_rate was 0.0001, is 0.001; seed was 0, is 1" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "gmma COMMAND"),
        ("trian x.py", "no command 'trian'; choose one of train, sweep"),
        ("train", "which experiment? gmma train experiments/NAME.py"),
        ("train nowhere.py", "no experiment file nowhere.py"),
        ("data nowhere.py", "no experiment file nowhere.py"),
        ("eval runs/nowhere", "runs/nowhere is no run: it has no config.json; give runs/NAME"),
        ("eval data", "data is no run: it has no config.json"),
        ("sample runs/nowhere", "runs/nowhere is no run"),
        ("eval runs/whole --step 7", "has no checkpoint 7, but 9, 13, 14; choose one"),
        ("eval runs/whole --split exam", "no split 'exam'; choose one of train, validation, test"),
        ("eval runs/whole --examples 0", "evaluation.examples = 0; it must be 1 or more"),
        ("sample runs/whole --example 8", "example 8 is not among the 8 of test"),
    ],
)
def test_a_wrong_command_is_refused(refuse, capsys, arguments, message):
    if not arguments:
        with pytest.raises(SystemExit) as end:
            cli.main([])
        assert end.value.code == CODE_USER_ERROR
        assert message in capsys.readouterr().out
    else:
        assert message in refuse(*arguments.split())


def test_a_broken_run_is_refused(refuse, tmp_path):
    (tmp_path / "config.json").write_text('{"name": ')
    assert "config.json is not JSON" in refuse("eval", tmp_path)
    (tmp_path / "config.json").write_text('{"name": "x"}')
    assert "holds no config of this version: task" in refuse("eval", tmp_path)


@pytest.mark.parametrize("line", [["--help"], ["report", "--help"]])
def test_a_pipe_that_nobody_reads_is_no_mistake(line):
    """As in `gmma … | head`: no traceback, and the code that shells have for it."""
    reads, writes = os.pipe()
    os.close(reads)
    child = subprocess.run(
        [sys.executable, "-m", "gmma", *line],
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    os.close(writes)
    assert (child.returncode, child.stderr) == (141, "")


def test_help_is_no_error(capsys):
    own = (["--help"], ["train", "--help"], ["train", str(TINY), "--help"], ["eval", "--help"])
    for arguments in own:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("train", ("--resume",)),
        ("plan", ("--topology", "--program", "--json", "--until-memory")),
        ("sweep", ("--workers", "--share", "--dry-run", "--one-program")),
    ],
)
def test_help_lists_the_commands_own_options_with_and_without_a_file(command, own, capsys):
    file = ROOT / "tests" / ("tiny_sweep.py" if command == "sweep" else "tiny_digits.py")
    for arguments in ([command, "--help"], [command, str(file), "--help"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
        printed = capsys.readouterr().out
        assert not [name for name in own if name not in printed]
    assert "--rl.steps" in printed


def test_help_of_an_experiment_waits_for_nothing_that_works():
    """What trains is imported when the line has been read; torch and scikit-learn by none."""
    code = (
        "import sys; from gmma.cli import main\n"
        "try: main(['train', 'tests/tiny_digits.py', '--help'])\n"
        "finally: print(*(set(sys.modules) & {'gmma.train', 'orbax', 'torch', 'sklearn'}), 'held')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "held"


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(
        rf"gmma {re.escape(gmma.__version__)}, jax \S+, jaxlib \S+, Python 3\S+\n",
        capsys.readouterr().out,
    )


def test_only_what_differs_from_the_file_is_printed(tmp_path):
    line = train_line([str(TINY), "--seed", "7", "--rewards.terms.1.weight", "0.5"])
    assert difference_lines(line) == [
        f"{TINY}, with",
        "  rewards.terms.1.weight = 0.5 (the file has 0.1)",
        "  seed = 7 (the file has 0)",
    ]
    assert difference_lines(train_line([str(TINY)])) == [f"{TINY}, as it stands"]
    assert list(changed_fields({"key": ""}, {"key": "q"})) == ["key = q (the file has '')"]
    digits = train_line([str(ROOT / "experiments/digits.py"), "--variant", "grpo"])
    assert difference_lines(digits) == [
        f"{ROOT / 'experiments/digits.py'} --variant=grpo, as it stands"
    ]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"LC_ALL": "C"}, "3 x 4 ... \\u65e5"),
        ({"LC_ALL": "POSIX"}, "3 x 4 ... \\u65e5"),
        ({"LC_ALL": "C", "PYTHONUTF8": "1"}, "3 × 4 … 日"),
        ({"LC_ALL": "C.UTF-8"}, "3 × 4 … 日"),
        ({}, "3 × 4 … 日"),
    ],
)
def test_a_terminal_that_says_it_has_ascii_gets_ascii(monkeypatch, settings, shown):
    """Python itself writes UTF-8 under LC_ALL=C."""
    for name in ("LC_ALL", "PYTHONUTF8", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    cli.print_anywhere()
    print("3 × 4 … 日")
    assert stream.buffer.getvalue().decode().strip() == shown


def test_an_ascii_terminal_shows_what_it_can(monkeypatch):
    """Help, tables and messages have signs that it has not."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    for arguments in (["train", "--help"], ["bench", "--help"], ["train", "nö.py"], ["ü…"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    print_table("≥ 2", ["K × M", "β"], [["σ²", "−1"], ["日", "0.1 … 0.2"]])
    text = shown.buffer.getvalue().decode("ascii")
    for part in ("[--field value ...]", "n\\xf6.py", ">= 2", "K x M", "sigma^2", "-1"):
        assert part in text
    assert r"\u65e5" in text


@pytest.mark.parametrize(
    ("number", "help_"), [(errno.ENOSPC, "make room"), (errno.EROFS, "read-only: give another")]
)
def test_a_disk_that_fails_is_one_message(monkeypatch, capsys, number, help_):
    def fails(arguments):
        raise OSError(number, os.strerror(number), "runs/x/metrics.jsonl")

    monkeypatch.setitem(cli.COMMANDS, "train", fails)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == CODE_USER_ERROR
    said = capsys.readouterr().err
    assert said.startswith(f"gmma train: runs/x/metrics.jsonl: {os.strerror(number)}; ")
    assert help_ in said


def test_an_error_of_gmma_itself_keeps_its_traceback(monkeypatch):
    def fails(arguments):
        raise ConnectionResetError(104, "reset")

    monkeypatch.setitem(cli.COMMANDS, "train", fails)
    with pytest.raises(ConnectionResetError):
        cli.main(["train"])


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def waits(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", waits)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == cli.CODE_INTERRUPTED
    assert capsys.readouterr().err == "gmma train: interrupted\n"


def finish(tiny, *arguments):
    """Run gmma in a process of its own; what it prints."""
    directory, start = tiny
    log = directory / "log.txt"
    before = log.stat().st_size
    code = start(*arguments).wait()
    printed = log.read_bytes()[before:].decode()
    assert code == 0, printed
    return printed


def test_eval_repeats_the_figures_of_the_run(tiny):
    """The same checkpoint, examples and keys in another process, with every value kept."""
    directory, _ = tiny
    printed = finish(tiny, "eval", "runs/whole", "--output", "again.json")
    assert "whole, step 14, test" in printed
    assert "sampled/iou" in printed
    again = load_evaluation(directory / "again.json")
    assert again == load_evaluation(directory / "runs/whole/evaluation/after_rl.json")
    summary = json.loads((directory / "again.json").read_text())["summary"]
    assert summary["greedy/iou"].keys() == {"mean", "low", "high"}
    assert len(again.values["sampled"]["format"]) == 8


def test_sample_prints_a_tree_and_draws_it(tiny):
    directory, _ = tiny
    printed = finish(tiny, "sample", "runs/whole", "--example", "3", "--output", "tree")
    assert printed.count("advantage") == 2 + 2 * 2  # thoughts and answers
    assert "picture: tree/image.png" in printed
    with Image.open(directory / "tree/image.png") as picture:
        assert picture.width == 720  # with question, truth and rewards below
        assert picture.height > 384 + 200
    assert json.loads((directory / "tree/tree.json").read_text())["id"] == "test/3"


def test_a_run_of_another_mesh_works_on_the_devices_that_are_there(capsys):
    assert jax.device_count() == 8
    config = with_launch(experiment(), mesh=MeshConfig(data=1, fsdp=2))
    assert placed(config, LaunchOverride()).launch.mesh == MeshConfig(data=1, fsdp=-1)
    assert "the run's mesh (1, 2, 1) does not make up 8 devices" in capsys.readouterr().out
    fitting = with_launch(config, mesh=MeshConfig(data=4, fsdp=2))
    assert placed(fitting, LaunchOverride()) is fitting
    for tensor, kept in ((2, 2), (8, 8), (4, None), (16, None)):
        cut = replace(fitting, rollout_params="sharded", rollout_tensor=tensor)
        assert placed(cut, LaunchOverride()).rollout_tensor == kept
    printed = " ".join(capsys.readouterr().out.split())
    assert "is left out: rollout_tensor = 16 does not divide the devices of a slice, 8;" in printed
    assert "is left out: rollout_tensor = 4 does not nest with a mesh of 4 × 2 × 1" in printed
    for kind in (EvalArguments, SampleArguments):
        given = parse(kind, ["runs/x", "--mesh.fsdp", "4", "--mesh.tensor", "2"], prog="gmma")
        found = placed(config, given.launch).launch.mesh
        assert found == MeshConfig(data=1, fsdp=4, tensor=2)
    assert (
        parse(EvalArguments, ["runs/x", "--batch-prompts", "24"], prog="gmma").batch_prompts == 24
    )
    assert not capsys.readouterr().out


def half_closed(parts, examples):
    """Two thoughts with the same two answers, right and wrong; the second thought is unclosed."""
    truth = [str(example.columns["answer"]) for example in examples]
    said = [
        [Demonstration(thought="7 at 1, 2", answer=answer) for answer in answers]
        for answers in (truth, ["[1, 1, 1, 1]"] * len(examples))
    ]
    right, wrong = (
        batch_demonstrations(examples, shown, parts.tokenizer, thought_slots=13, answer_slots=20)
        for shown in said
    )
    answers = ("answers", "answer_lengths", "answer_logprobs", "finished")
    fields = {
        name: np.concatenate([own, getattr(wrong, name)], axis=2) if name in answers else own
        for name, own in vars(right).items()
    }
    fields = {name: np.repeat(own, 2, axis=1) for name, own in fields.items()}
    fields["closed"] = np.tile([True, False], (len(examples), 1))
    return TreeRollout(**fields)


def test_sample_counts_and_scores_answers_as_training_does(tmp_path, monkeypatch, capsys):
    """With unfinished = drop, answers to a thought that did not close earn nothing; limits hold."""
    config = experiment()
    config = replace(
        config,
        tree=replace(config.tree, answer_tokens=20, unfinished="drop"),
        rewards=replace(config.rewards, workers=0, timeout_seconds=7.0),
        launch=LaunchConfig(data_dir=tmp_path / "data", runs_dir=tmp_path / "runs"),
    )
    save_config(config.run_dir, config_to_json(config))
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)
    monkeypatch.setattr(commands, "find_step", lambda run_dir, step: 0)
    monkeypatch.setattr(commands, "load_params", lambda parts, run_dir, step: None)
    monkeypatch.setattr(
        commands,
        "grow_examples",
        lambda parts, grow, params, examples, step: half_closed(parts, examples),
    )
    limits = []
    monkeypatch.setattr(
        commands, "run_scorer", lambda own: limits.append(own.rewards) or run_scorer(own)
    )
    cli.main(["sample", str(config.run_dir), "--output", str(tmp_path / "tree")])
    thoughts = json.loads((tmp_path / "tree/tree.json").read_text())["thoughts"]
    earned = [[answer["advantage"] for answer in thought["answers"]] for thought in thoughts]
    assert earned == [[1.0, -1.0], [0.0, 0.0]]
    assert limits == [config.rewards]
    capsys.readouterr()
    cli.main(["sample", str(config.run_dir), "--prompt"])  # which needs no checkpoint
    prompt, count = capsys.readouterr().out.splitlines()
    images, question = prompt.rsplit("<image>", 1)
    assert re.fullmatch(r"Where is the \d\?<think>", question)
    assert set(images.split("<image>")) == {""}
    assert re.fullmatch(rf"\d+ of {config.tree.prompt_tokens} tokens", count)
    assert int(count.split()[0]) > prompt.count("<image>")


def test_a_reward_that_cannot_be_imported_is_said_before_parameters_are_loaded(
    tmp_path, monkeypatch, capsys
):
    """In a terminal of its own that lacks the folder of the run's rewards."""
    config = experiment()
    config = replace(
        config,
        rewards=replace(config.rewards, terms=(RewardTerm("moved_away:score"),)),
        launch=LaunchConfig(data_dir=tmp_path / "data", runs_dir=tmp_path / "runs"),
    )
    save_config(config.run_dir, config_to_json(config))
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)
    monkeypatch.setattr(commands, "find_step", lambda run_dir, step: 0)
    monkeypatch.setattr(commands, "load_params", lambda *_: pytest.fail("loaded"))
    for command in ("sample", "eval"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, str(config.run_dir)])
        assert end.value.code == 2
        assert "'moved_away:score' cannot be imported" in capsys.readouterr().err


def test_data_shows_records_and_draws_them(tiny):
    directory, _ = tiny
    printed = finish(tiny, "data", TINY)
    assert "train: 24 examples" in printed
    assert printed.count("question  Where is the ") == 4
    pictures = [line.split()[1] for line in printed.splitlines() if "picture" in line]
    assert all((directory / picture).exists() for picture in pictures)
    assert re.search(r"prompt of train/\d+, 21 tokens of 21 slots:\n\[16 x <image>\]Where", printed)
    assert re.search(r"prompts +24 +21 +21 +21\n", printed)
    assert "all 24 demonstrations of train that were looked at fit their slots" in printed


def test_a_finished_run_that_is_resumed_prints_its_table_again(tiny):
    directory, _ = tiny
    shutil.copytree(directory / "runs/whole", directory / "runs/again")
    saved = directory / "runs/again/config.json"
    saved.write_text(saved.read_text().replace('"whole"', '"again"'))
    before = tree_of(directory / "runs/again")
    del before["lock"]  # says which process had it last
    arguments = ("train", TINY, "--name", "again", "--resume", "--rewards.workers", "0")
    printed = finish(tiny, *arguments)
    assert "after SFT" in printed
    assert "where the time went" in printed
    assert re.search(r"trees of RL, .*\n +first 4 steps  last 4 steps\n", printed)
    assert re.search(r"\ntokens of a thought +[\d.]+ +[\d.]+\n", printed)
    after = tree_of(directory / "runs/again")
    assert before == {name: content for name, content in after.items() if name in before}
    shutil.rmtree(directory / "runs/again")
