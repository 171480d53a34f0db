"""`gmma COMMAND …`: the shell around everything.

    gmma train experiments/NAME.py [--field value …]     SFT warm start, then RL
    gmma sweep experiments/NAME.py --workers 2           many runs, resumable; tables and plots
    gmma variance [RUN_DIR]                              of the thought advantage, against K and M
    gmma advise RUN_DIR                                  which K and M a second is best spent on
    gmma eval RUN_DIR [--tasks all]                      greedy and sampled, with 95 % intervals
    gmma sample RUN_DIR                                  grow, print and draw one tree
    gmma report RUN_DIR                                  a run or a sweep as one HTML page
    gmma data experiments/NAME.py                        build a dataset and show it
    gmma fetch experiments/NAME.py                       copy what it reads elsewhere to here
    gmma plan experiments/NAME.py --topology v5e:2x4     whether it fits a TPU slice nobody has yet
    gmma bench                                           time the tree against flat rows
    gmma port import|export|check                        Hugging Face directories in and out
    gmma --version                                       of gmma, JAX and Python

Each has --help; behind an experiment file it lists that experiment's fields, too.

A mistake of the user's is one message on stderr and exit code 2, and so is a file that cannot be
read or written; nothing is written over. A run that SIGTERM or Ctrl-C has ended exits with code 75,
one that lost another host with 76, and `--resume` goes on with either; a second Ctrl-C ends it at
once, with 130. One that only computes NaN ends with 70, one whose answers get no reward with 69.
"""

import codecs
import io
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata

import gmma
from gmma.errors import CODE_USER_ERROR, DISK, UserError, os_error_text, printable
from gmma.hardware.preemption import CODE_INTERRUPTED, Ended


def command_train(arguments: Sequence[str]) -> None:
    """Train an experiment, or go on with a run."""
    from gmma.options.parsing import split_experiment

    split_experiment(arguments, "train")  # help without a file ends here, before JAX is imported
    from gmma.run.lines import train_line

    line = train_line(arguments)  # and here help and mistakes of the line
    from gmma.commands import train_command

    train_command(line)


def command_sweep(arguments: Sequence[str]) -> None:
    """Run a sweep's arms and seeds, and compare them."""
    from gmma.options.parsing import split_experiment

    split_experiment(arguments, "sweep")
    from gmma.sweep.command import sweep_command

    sweep_command(arguments)


def command_variance(arguments: Sequence[str]) -> None:
    """Compare the thought advantage's variance: formula, simulation, measurement."""
    from gmma.options.arguments import VarianceArguments
    from gmma.options.parsing import parse

    given = parse(VarianceArguments, arguments, prog="gmma variance")
    from gmma.variance.command import variance_command

    variance_command(given)


def command_advise(arguments: Sequence[str]) -> None:
    """Predict what a second buys with each K and M."""
    from gmma.options.arguments import AdviseArguments
    from gmma.options.parsing import parse

    given = parse(AdviseArguments, arguments, prog="gmma advise")
    from gmma.advise.command import advise_command

    advise_command(given)


def command_eval(arguments: Sequence[str]) -> None:
    """Evaluate a run's checkpoint."""
    from gmma.options.arguments import EvalArguments
    from gmma.options.parsing import parse

    given = parse(EvalArguments, arguments, prog="gmma eval")
    from gmma.commands import eval_command

    eval_command(given)


def command_sample(arguments: Sequence[str]) -> None:
    """Grow one tree from a run's checkpoint."""
    from gmma.options.arguments import SampleArguments
    from gmma.options.parsing import parse

    given = parse(SampleArguments, arguments, prog="gmma sample")
    from gmma.commands import sample_command

    sample_command(given)


def command_report(arguments: Sequence[str]) -> None:
    """Write a run or a sweep as one HTML page."""
    from gmma.options.arguments import ReportArguments
    from gmma.options.parsing import parse

    given = parse(ReportArguments, arguments, prog="gmma report")
    from gmma.report.command import report_command

    report_command(given)


def command_data(arguments: Sequence[str]) -> None:
    """Build an experiment's dataset and show some of it."""
    from gmma.options.parsing import split_experiment

    split_experiment(arguments, "data")
    from gmma.commands import data_command

    data_command(arguments)


def command_fetch(arguments: Sequence[str]) -> None:
    """Copy what an experiment reads elsewhere to this machine."""
    from gmma.options.parsing import split_experiment

    split_experiment(arguments, "fetch")
    from gmma.run.lines import fetch_line

    line = fetch_line(arguments)
    from gmma.run.sources import fetch_command

    fetch_command(line.given.base, line.given.own)


def command_bench(arguments: Sequence[str]) -> None:
    """Time the tree against prompt-shared and flat rows."""
    from gmma.options.arguments import BenchArguments
    from gmma.options.parsing import parse

    given = parse(BenchArguments, arguments, prog="gmma bench")
    from gmma.bench.command import bench

    bench(given)


def command_plan(arguments: Sequence[str]) -> None:
    """Compile an experiment for TPU slices that are not there."""
    from gmma.options.parsing import split_experiment

    split_experiment(arguments, "plan")  # help without a file ends here, before JAX is imported
    from gmma.run.lines import plan_line

    line = plan_line(arguments)
    from gmma.commands import plan_command

    plan_command(line)


def command_port(arguments: Sequence[str]) -> None:
    """Read and write Hugging Face directories."""
    verb, *rest = arguments or [""]
    if verb in ("-h", "--help"):
        print(f"gmma port {'|'.join(VERBS)} …, each with --help")
        raise SystemExit(0)
    if verb not in VERBS:
        problem = f"no command {verb!r}" if verb else "which command?"
        raise UserError(f"{problem}; gmma port {'|'.join(VERBS)} …, each with --help")
    VERBS[verb](rest)


def port_import(arguments: Sequence[str]) -> None:
    """Write a Hugging Face directory as a checkpoint."""
    from gmma.options.arguments import ImportArguments
    from gmma.options.parsing import parse

    given = parse(ImportArguments, arguments, prog="gmma port import")
    from gmma.porting.command import import_command

    import_command(given)


def port_export(arguments: Sequence[str]) -> None:
    """Write a run as a Hugging Face directory, or its adapters."""
    from gmma.options.arguments import ExportArguments
    from gmma.options.parsing import parse

    given = parse(ExportArguments, arguments, prog="gmma port export")
    from gmma.porting.command import export_command

    export_command(given)


def port_check(arguments: Sequence[str]) -> None:
    """List what is wrong with a Hugging Face directory."""
    from gmma.options.arguments import CheckArguments
    from gmma.options.parsing import parse

    given = parse(CheckArguments, arguments, prog="gmma port check")
    from gmma.porting.command import check_command

    check_command(given)


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "import": port_import,
    "export": port_export,
    "check": port_check,
}


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": command_train,
    "sweep": command_sweep,
    "variance": command_variance,
    "advise": command_advise,
    "eval": command_eval,
    "sample": command_sample,
    "report": command_report,
    "data": command_data,
    "fetch": command_fetch,
    "bench": command_bench,
    "plan": command_plan,
    "port": command_port,
}


CODE_BROKEN_PIPE = 141  # 128 + SIGPIPE
# What an ASCII terminal shows of the signs that gmma and its libraries print.
PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━╌┄═", "-"),
        **dict.fromkeys("│┃║", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇╈", "+"),
        **{"…": "...", "−": "-", "–": "-", "×": "x", "÷": "/", "·": "*", "≥": ">=", "≤": "<="},
        **{"→": "->", "±": "+-", "²": "^2", "μ": "mu", "σ": "sigma", "β": "beta", "α": "alpha"},
    }
)


def in_plain(error: UnicodeError) -> tuple[str, int]:
    """Encode for `codecs` what a stream cannot encode, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


def print_anywhere() -> None:
    """Let no text of ours stop a terminal or a pipe that lacks its signs.

    Under LC_ALL=C Python writes UTF-8 all the same, which such a terminal garbles.
    """
    codecs.register_error("gmma.plain", in_plain)
    asked = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8") == "1"
    ascii_alone = os.environ.get("LC_ALL") in ("C", "POSIX") and not asked
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = "ascii" if ascii_alone else stream.encoding
            stream.reconfigure(encoding=encoding, errors="gmma.plain")


def version() -> str:
    """Return the versions that a report of a fault needs, without importing JAX."""
    found = [f"gmma {gmma.__version__}"]
    for name in ("jax", "jaxlib"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join([*found, f"Python {platform.python_version()}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command `gmma`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Libraries below print hints meant for their own developers; a user can still ask for them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print_anywhere()
    name, *rest = given or ["--help"]
    try:
        if name in ("-h", "--help"):
            print(__doc__, flush=True)
            raise SystemExit(0 if given else CODE_USER_ERROR)
        if name == "--version":
            print(version(), flush=True)
            raise SystemExit(0)
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; choose one of {', '.join(COMMANDS)}")
        COMMANDS[name](rest)
    except UserError as error:
        print(printable(f"gmma {name}: {error}"), file=sys.stderr)
        raise SystemExit(CODE_USER_ERROR) from None
    except Ended as notice:
        print(f"gmma {name}: {notice}", file=sys.stderr)
        raise SystemExit(notice.code) from None
    except KeyboardInterrupt:
        print(f"gmma {name}: interrupted", file=sys.stderr)
        raise SystemExit(CODE_INTERRUPTED) from None
    except BrokenPipeError:  # as in `gmma … | head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        raise SystemExit(CODE_BROKEN_PIPE) from None
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            raise  # of no file: a mistake of gmma's own
        print(f"gmma {name}: {os_error_text(error)}", file=sys.stderr)
        raise SystemExit(CODE_USER_ERROR) from None
