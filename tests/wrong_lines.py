"""Random command lines that are wrong in at least one way, for every command.

By construction none of them reaches work: each has a mistake that is found at the edge, or asks for
help. What they point at lies in a directory that `furnish` makes.
"""

import dataclasses
import json
import random

from tiny_run import TINY

from gmma.config import config_to_json
from gmma.run.experiments import load_experiment

EXPERIMENTS = {
    "syntax.py": "def experiment(:\n",
    "import.py": "import no_such_module_anywhere\n",
    "name.py": "def experiment():\n    return nowhere\n",
    "returns_none.py": "def experiment():\n    pass\ndef sweep():\n    return 3\n",
    "no_function.py": "experiment = 3\nsweep = None\n",
    "takes_one.py": "def experiment(x):\n    return x\nsweep = experiment\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "raises.py": "raise OSError(28, 'No space left on device')\n",
    "empty.py": "",
    "indent.py": "x = 1\n  y = 2\n",
    "text.txt": "def experiment(): pass\n",
    "no_suffix": "def experiment(): pass\n",
}
TYPED = """
from dataclasses import replace
import sys
sys.path.insert(0, {here!r})
from tiny_digits import experiment as tiny
from gmma.sweep.arms import Sweep, vary

def experiment():
    return replace(tiny(), {change})

def sweep():
    return Sweep(name="s", base=tiny(), arms={arms}, seeds={seeds})
"""
BAD_NAMES = (
    "",
    "..",
    "../over",
    "a/../../b",
    "x" * 300,
    "new\nline",
    "/absolute",
    "a//b",
    "\udc80",
)
NOWHERE = (
    "nowhere",
    "kein Ort/ß",
    "x" * 300,
    "a/" * 200,
    "no\nwhere",
    "~/x",
    "-",
    ".hidden",
    "日本",
)
NO_INT = (
    "many",
    "1.5",
    "",
    "nan",
    "1e3",
    "0x10",
    "½",
    "1" + "0" * 30,
    "-" + "9" * 40,
    "None!",
    "--",
)
NO_FLOAT = ("many", "nan", "inf", "-inf", "", "1e400", "1e39", "0,5", "½", "NaN", "Infinity")
NO_CHOICE = ("", "nothing", "GRPO ", "0", "…")
NO_FLAG = (
    "---x",
    "--no-such-flag",
    "--tree",
    "--tree.",
    "-x",
    "--tree.thoghts",
    "--=",
    "--ü",
    "–",
)
COMMANDS = (
    "train",
    "sweep",
    "variance",
    "advise",
    "eval",
    "sample",
    "report",
    "data",
    "plan",
    "bench",
    "port",
)


def furnish(home):
    """Files, directories and runs that are wrong, each in its way; one run is right but empty."""
    (home / "experiments").mkdir()
    for name, text in EXPERIMENTS.items():
        (home / "experiments" / name).write_text(text)
    (home / "experiments/binary.py").write_bytes(b"\xff\xfe\x00\x01")
    (home / "experiments/directory.py").mkdir()
    typed = [
        ('seed="one"', "vary('tree.answers', 1)", "(0,)"),
        ("seed=-1", "vary('tree.answers', 'x')", "(0,)"),
        ("tree=None", "()", "(0,)"),
        ("rl=3", "vary('tree.answers', 1)", "3"),
        ("name='a/../b'", "vary('no.field', 1)", "(0,)"),
        ("init_from=5", "vary('seed', 1)", "(-1,)"),
    ]
    for place, (change, arms, seeds) in enumerate(typed):
        source = TYPED.format(here=str(TINY.parent), change=change, arms=arms, seeds=seeds)
        (home / "experiments" / f"typed_{place}.py").write_text(source)
    values = config_to_json(load_experiment(TINY))
    runs = {
        "empty_run": json.dumps(values),
        "list": "[1, 2]",
        "number": "3",
        "cut": json.dumps(values)[:100],
        "nan": json.dumps(values | {"rl": values["rl"] | {"optimizer": {"learning_rate": 1}}}),
        "infinite": json.dumps(values | {"seed": float("inf")}),
        "deep": "[" * 100_000,
        "other": json.dumps({"name": "x"}),
        "typed": json.dumps(values | {"tree": {"thoughts": "four"}}),
        "negative": json.dumps(values | {"seed": -3}),
    }
    for name, text in runs.items():
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / "config.json").write_text(text)
    (home / "runs/binary").mkdir()
    (home / "runs/binary/config.json").write_bytes(b"\xff\xfe\x00")
    (home / "runs/directory/config.json").mkdir(parents=True)
    (home / "runs/sweep").mkdir()
    (home / "runs/sweep/sweep.json").write_text("[]")
    (home / "file").write_text("a file where a directory is wanted")


def wrong_lines(home, count, seed):
    """So many lines, the same for the same seed."""
    rng = random.Random(seed)
    return [wrong_line(rng, home) for _ in range(count)]


def wrong_line(rng, home):
    """A command with one mistake or more, and sometimes with options that are right beside it."""
    if rng.random() < 0.04:
        return rng.choice([[], [""], ["trian"], ["--version"], ["TRAIN", "x"], ["ü\n"], ["-"]])
    command = rng.choice(COMMANDS)
    return [command, *globals()[f"wrong_{command}"](rng, home)]


def wrong_experiment(rng, home):
    """A path that is no experiment."""
    known = [str(path) for path in sorted((home / "experiments").iterdir())]
    return rng.choice([*known, *known, *NOWHERE, str(home / "file"), str(home), ""])


def wrong_run(rng, home):
    """A path that is no run."""
    known = [str(path) for path in sorted((home / "runs").iterdir()) if path.name != "empty_run"]
    return rng.choice([*known, *known, *NOWHERE, str(home / "file"), "gs://", "ftp://x/y", ""])


def options_of(config, prefix="--"):
    """(option, its value now) of every field of a config."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from options_of(value, name + ".")
        elif not isinstance(value, tuple):
            yield name, value


CONFIG = dict(options_of(load_experiment(TINY)))
RIGHT = (["--seed", "3"], ["--tree.answers", "2"], ["--rl.steps", "1"], ["--tree.thoughts=3"])


def wrong_option(rng, home):
    """An option of an experiment that is refused where it is read."""
    kind = rng.randrange(8)
    if kind == 0:
        return [rng.choice(NO_FLAG), *rng.choice([[], ["3"], [""]])]
    if kind == 1:
        return ["--name", rng.choice(BAD_NAMES)]
    if kind == 2:
        place = str(home / "file")
        bad = ("new\nline", "x" * 300, place, place + "/deeper", "/proc/none", "ftp://x")
        return ["--data-dir", rng.choice(bad)]  # every command that builds a dataset writes there
    name, value = rng.choice(sorted(CONFIG.items(), key=str))
    if isinstance(value, bool):
        return [name, rng.choice(["maybe", "", "2", "ja"])]
    if isinstance(value, int):
        return rng.choice([[name, rng.choice(NO_INT)], [name, "3", name, rng.choice(NO_INT)]])
    if isinstance(value, float):
        return [name, rng.choice(NO_FLOAT)]
    if kind == 3:
        return [name]  # its value is missing
    fixed = [
        ["--tree.thoughts", "0"],
        ["--model.kv-heads", "0"],
        ["--model.heads", "-2"],
        ["--seed", "-1"],
        ["--task.seed", "-1"],
        ["--rl.microbatches", "0"],
        ["--rl.optimizer.adam-b1", "1"],
        ["--rewards.timeout-seconds", "inf"],
        ["--rewards.terms.0.weight", "nan"],
        ["--rewards.terms.7.name", "x"],
        ["--objective.loss-type", rng.choice(NO_CHOICE)],
        ["--hosts.join", "given"],
        ["--hosts.join", "given", "--hosts.coordinator", "localhost:99999"],
        ["--hosts.count", "2"],
        ["--mesh.data", "0"],
        ["--logprob-chunk-slots", "0"],
        ["--objective.algorithm", "grpo"],
    ]
    return rng.choice(fixed)


def with_noise(rng, wrong):
    """Options that are right around one that is not; the last one of a name counts."""
    parts = [wrong, *rng.sample(RIGHT, rng.randrange(3))]
    parts = [part for part in parts if part is wrong or part[0].split("=")[0] not in wrong]
    if len(wrong) == 1:
        return [word for part in reversed(parts) for word in part]  # a missing value comes last
    rng.shuffle(parts)
    return [word for part in parts for word in part]


def wrong_train(rng, home):
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice([[], ["--help"], ["-h"], ["--resume"], ["--seed", "1"]])
    if kind < 4:
        return [wrong_experiment(rng, home), *rng.choice([[], ["--resume"], ["--seed", "1"]])]
    return [str(TINY), *with_noise(rng, wrong_option(rng, home))]


wrong_data = wrong_train


def wrong_plan(rng, home):
    line = wrong_train(rng, home)
    if rng.random() < 0.5:
        return [*line, "--topology", rng.choice(["", "v5e", "v9x:2x2", "2x2"])]
    return rng.choice(
        [
            [str(TINY)],
            [str(TINY), "--topology"],
            [str(TINY), "--topology", rng.choice(["", "v9x:2x2", "v5e:", "v5e:axb", "v5e:0x0"])],
            [str(TINY), "--topology", "v5e:2x2", "--program", "nothing"],
            [str(TINY), "--topology", "v5e:2x2", "--json", str(home)],
            [str(TINY), "--json"],
        ]
    )


def wrong_sweep(rng, home):
    if rng.random() < 0.6:
        return [wrong_experiment(rng, home), *rng.choice([[], ["--dry-run"], ["--workers", "2"]])]
    own = [
        ["--workers", rng.choice(["0", "-1", *NO_INT])],
        ["--share", rng.choice(["", "2/2", "x/y", "1", "-1/2", "1/0"])],
        ["--name", "other"],
        ["--seed", "5"],
        wrong_option(rng, home),
    ]
    return [str(TINY.with_name("tiny_sweep.py")), *rng.choice(own), "--dry-run"]


def wrong_of_run(rng, home, options):
    """A command on a run: a wrong run with anything, or an empty one with an option."""
    if rng.random() < 0.15:
        return rng.choice([[], ["--help"], ["a", "b"], ["--step"]])
    if rng.random() < 0.5:
        return [wrong_run(rng, home), *rng.choice([[], *options])]
    return [str(home / "runs/empty_run"), *rng.choice([[], *options])]


def wrong_eval(rng, home):
    options = [
        ["--step", rng.choice(["7", "-1", *NO_INT])],
        ["--split", rng.choice(NO_CHOICE)],
        ["--examples", rng.choice(["0", "-5", *NO_INT])],
        ["--temperature", rng.choice(["-1", *NO_FLOAT])],
        ["--top-p", rng.choice(["0", "2", *NO_FLOAT])],
        ["--tasks", rng.choice(["nothing", "", wrong_experiment(rng, home)])],
        ["--pictures", "-1"],
        ["--output", rng.choice([str(home), str(home / "file/x"), "a\nb", "x" * 300])],
        ["--mesh.data", "0"],
        ["--hosts.join", "given"],
        [rng.choice(NO_FLAG)],
    ]
    return wrong_of_run(rng, home, options)


def wrong_sample(rng, home):
    options = [
        ["--example", rng.choice(["-1", *NO_INT])],
        ["--seed", "-1"],
        ["--split", rng.choice(NO_CHOICE)],
        ["--output", str(home / "file")],
        [rng.choice(NO_FLAG)],
    ]
    return wrong_of_run(rng, home, options)


def wrong_variance(rng, home):
    numbers = [
        ["--answers", rng.choice(["0", "-1", *NO_INT])],
        ["--answers"],
        ["--thoughts", rng.choice(["0", "1", *NO_INT])],
        ["--thoughts-grid", "2"],
        ["--trees", rng.choice(["10", "0", *NO_INT])],
        ["--means", "0.5"],
        ["--means", "0.5", rng.choice(["2", *NO_FLOAT])],
        ["--means", "0.5", "0.6", "--variances", "0.1"],
        ["--means", "0.5", "0.6", "--variances", "-0.1", "0.1"],
        ["--law", "cauchy"],
        ["--seed", "-1"],
        ["--output", rng.choice([str(home / "file"), "a\nb", "x" * 300])],
        [rng.choice(NO_FLAG)],
    ]
    if rng.random() < 0.5:
        return rng.choice(numbers)
    return [wrong_run(rng, home), *rng.choice([[], ["--pool", "1"], ["--examples", "0"]])]


def wrong_advise(rng, home):
    options = [
        ["--thoughts", rng.choice(["0", "1", *NO_INT])],
        ["--answers", rng.choice(["0", "-1", *NO_INT])],
        ["--answers"],
        ["--pool", rng.choice(["1", "8", *NO_INT])],
        ["--examples", "0"],
        ["--repeats", rng.choice(["0", *NO_INT])],
        ["--split", rng.choice(NO_CHOICE)],
        ["--topology", rng.choice(["v5e", "v9:1x1", "v5e:0x4", ""])],
        ["--output", rng.choice([str(home), str(home / "file/x"), "a\nb", "x" * 300])],
        [rng.choice(NO_FLAG)],
    ]
    return wrong_of_run(rng, home, options)


def wrong_report(rng, home):
    paths = [*NOWHERE, str(home / "file"), str(home), "gs://nobody/x", "ftp://x/y", ""]
    broken = ("list", "number", "cut", "deep", "binary", "directory", "sweep")
    paths += [str(home / "runs" / name) for name in broken]
    outputs = ([], ["--output", str(home)], ["--output", str(home / "file/x")], ["--output"])
    return [rng.choice(paths), *rng.choice(outputs)]


def wrong_bench(rng, home):
    names = ("batch-prompts", "thoughts", "answers", "repeats", "cases", "microbatches")
    options = [
        [f"--{rng.choice(names)}", rng.choice(["0", "-1", *NO_INT])],
        ["--model", rng.choice(["7b", *NO_CHOICE])],
        ["--dtype", rng.choice(["float16", *NO_CHOICE])],
        ["--microbatches", "3"],
        ["--output", rng.choice([str(home), str(home / "file/x"), "a\nb", "x" * 300])],
        ["positional"],
        [rng.choice(NO_FLAG)],
    ]
    return rng.choice(options)


def wrong_port(rng, home):
    if rng.random() < 0.2:
        return rng.choice([[], [""], ["imprt"], ["--help"], ["check"], ["import", "x"], ["export"]])
    verb = rng.choice(["check", "import", "export"])
    source = rng.choice([wrong_run(rng, home), str(home / "runs/empty_run")])
    if source.startswith(("gs:", "ftp:")):
        source = str(home / "file")
    rest = {"check": [], "import": [str(home / "new")], "export": [str(home / "new")]}[verb]
    extra = [[], [rng.choice(NO_FLAG)], ["--dtype", "float8"], ["--step", rng.choice(NO_INT)]]
    return [verb, source, *rest, *rng.choice(extra)]
