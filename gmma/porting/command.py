"""`gmma port import|export|check`: what the command does with its arguments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import tyro

from gmma.config import MeshConfig
from gmma.errors import UserError
from gmma.huggingface.chat import DIFFERENCE, TEMPLATE, write_chat_template
from gmma.models.decoder import DType
from gmma.porting.adapters import save_adapters
from gmma.porting.check import check_directory
from gmma.porting.checkpoints import (
    HOST_ALLOWANCE,
    ImportReport,
    export_merged,
    import_directory,
    is_import,
    read_checkpoint,
)
from gmma.porting.pretrained import chat_of, copy_companions
from gmma.records.console import print_table

T = TypeVar("T")
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """List everything that is wrong with a Hugging Face directory."""

    directory: tyro.conf.Positional[Path]
    architecture: str | None = None  # your own family, as module:NAME; None: what config.json says


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Write a Hugging Face directory as a checkpoint that `--init-from` takes."""

    directory: tyro.conf.Positional[Path]
    output: tyro.conf.Positional[
        Path
    ]  # a new directory; its huggingface/ is then --model.directory
    dtype: DType = "bfloat16"  # of the parameters
    architecture: str | None = None  # your own family, as module:NAME; None: what config.json says
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(data=1, fsdp=-1))


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a run as a directory that transformers loads, or its adapters for peft."""

    source: tyro.conf.Positional[Path]  # runs/NAME, an import, or a checkpoint in either
    output: tyro.conf.Positional[Path]
    merge: bool = False  # the whole model, adapters added to the weights; so it is without a flag
    adapters: bool = False  # the adapters alone
    step: int | None = None  # of the checkpoint; None: the newest
    dtype: DType | None = None  # of the tensors; None: that of the run's activations


def parse(kind: type[T], name: str, arguments: Sequence[str]) -> T:
    """Parse arguments into a dataclass; a bare `--flag` is true."""
    config = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(kind, args=list(arguments), prog=f"gmma port {name}", config=config)


def check_command(arguments: Sequence[str]) -> None:
    """`gmma port check DIR`: exit code 2 with all problems, or what the directory holds."""
    given = parse(CheckArguments, "check", arguments)
    found = check_directory(given.directory, given.architecture)
    rows = [
        ["family", found.family],
        ["layers", str(found.layers)],
        ["vocabulary", str(found.vocab_size)],
        ["images", "yes" if found.sees_images else "no"],
        ["output head", "the embedding" if found.tied else "its own"],
        ["tensors", f"{found.tensors} in {len(found.shards)} files"],
    ]
    print_table("", ["", "found"], rows)
    print(f"nothing is wrong with {given.directory}")


def import_command(arguments: Sequence[str]) -> None:
    """`gmma port import DIR OUT`: a checkpoint, and what it took of the host's memory."""
    given = parse(ImportArguments, "import", arguments)
    report = import_directory(
        given.directory, given.output, given.dtype, given.mesh, given.architecture
    )
    print_table("", ["", "GB"], memory_rows(report))
    print(f"train from it: --model.directory {given.output}/huggingface --init-from {given.output}")


def memory_rows(report: ImportReport) -> list[list[str]]:
    """Return the peak beside its bound."""
    held = " + what the devices hold" if report.devices_in_host_memory else ""
    verdict = "within" if report.peak <= report.bound else "over"
    return [
        [f"largest of {report.shards} files", f"{report.largest_shard / GB:.2f}"],
        [f"parameters on {report.devices} devices", f"{report.params / GB:.2f}"],
        ["host memory before reading", f"{report.resident_before / GB:.2f}"],
        ["peak above that while reading", f"{report.peak_reading / GB:.2f}"],
        ["peak above that, writing included", f"{report.peak / GB:.2f}"],
        [f"bound: {HOST_ALLOWANCE} × largest file{held}", f"{report.bound / GB:.2f} ({verdict})"],
    ]


def export_command(arguments: Sequence[str]) -> None:
    """`gmma port export RUN_OR_CHECKPOINT OUT [--merge | --adapters]`."""
    given = parse(ExportArguments, "export", arguments)
    if given.merge and given.adapters:
        raise UserError("--merge and --adapters exclude each other; export twice to have both")
    pretrained, dtype = read_checkpoint(given.source, given.step)
    if given.adapters:
        save_adapters(given.output, pretrained)
        copy_companions(pretrained.source, given.output)
        print(f"adapters for peft: {given.output}")
    else:
        export_merged(pretrained, given.output, given.dtype or dtype)
        print(f"a directory for transformers: {given.output}")
    if not is_import(given.source):  # which nobody trained
        write_chat_template(given.output, chat_of(pretrained.source))
        print(f"its {TEMPLATE} asks as the run did. {DIFFERENCE}.")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "import": import_command,
    "export": export_command,
    "check": check_command,
}


def port_command(arguments: Sequence[str]) -> None:
    """`gmma port NAME …`."""
    if not arguments or arguments[0] not in COMMANDS:
        given = f"no command {arguments[0]!r}" if arguments else "which command?"
        raise UserError(f"{given}; gmma port {'|'.join(COMMANDS)} …, each with --help")
    COMMANDS[arguments[0]](arguments[1:])
