"""Wrong command lines, drawn at random over all commands: one message, exit code 0 or 2."""

import os
import sys

import pytest
from nursery import open_nursery
from tiny_run import tree_of
from wrong_lines import furnish, wrong_lines

from gmma import cli, commands
from gmma.errors import CODE_USER_ERROR

SLOW = os.environ.get("GMMA_SLOW") == "1"
HERE, PROCESSES = (500, 40) if SLOW else (100, 8)  # lines in this process, and in one of their own


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The directory that wrong lines point at, which is where gmma runs."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    return tmp_path


def one_message(text):
    """Whether this is one message of gmma, or one box of the option parser's."""
    own = sum(line.startswith("gmma") for line in text.splitlines())
    boxes = text.count("For full helptext")
    return own + boxes == 1 and "Traceback" not in text


def test_random_wrong_lines_are_refused_with_one_message(home, capsys, monkeypatch):
    monkeypatch.setattr(commands, "use_compilation_cache", lambda config: None)
    before, wrong = tree_of(home), []
    path, modules = list(sys.path), set(sys.modules)
    for line in wrong_lines(home, HERE, seed=1):
        code = None
        try:
            cli.main(line)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
        printed = capsys.readouterr()
        helped = code == 0 and printed.out and not printed.err
        usage = line == [] and "gmma COMMAND" in printed.out
        if not (helped or usage or (code == CODE_USER_ERROR and one_message(printed.err))):
            wrong.append((line, code, printed.err[-300:]))
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name in ("tiny_digits", "tiny_sweep"):
                del sys.modules[name]
    assert not wrong, f"{len(wrong)} of {HERE}: " + "\n".join(map(str, wrong))
    assert tree_of(home) == before


def test_random_wrong_lines_in_processes_of_their_own(home):
    log = home.parent / "log"
    log.mkdir(exist_ok=True)
    before = tree_of(home)
    with open_nursery(log) as start:
        for line in wrong_lines(home, PROCESSES, seed=2):
            said = (log / "log.txt").stat().st_size
            words = [word.encode(errors="replace").decode() for word in line]
            code = start(*words).wait()
            text = (log / "log.txt").read_bytes()[said:].decode(errors="replace")
            assert code in (0, CODE_USER_ERROR), (line, code, text)
            assert "Traceback" not in text, (line, text)
    assert tree_of(home) == before
