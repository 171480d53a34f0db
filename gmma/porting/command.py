"""`gmma port import|export|check`: what the command does with its arguments."""

from typing import TypeVar

from gmma.errors import UserError
from gmma.huggingface.chat import DIFFERENCE, TEMPLATE, write_chat_template
from gmma.options.arguments import CheckArguments, ExportArguments, ImportArguments
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
from gmma.remote.copies import here

T = TypeVar("T")
GB = 1e9


def check_command(given: CheckArguments) -> None:
    """Run `gmma port check DIR`: exit code 2 with all problems, or what the directory holds."""
    found = check_directory(here(given.directory), given.architecture)
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


def import_command(given: ImportArguments) -> None:
    """Run `gmma port import DIR OUT`: a checkpoint, and the host memory that it took."""
    report = import_directory(
        here(given.directory), given.output, given.dtype, given.mesh, given.architecture
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


def export_command(given: ExportArguments) -> None:
    """Run `gmma port export RUN_OR_CHECKPOINT OUT [--merge | --adapters]`."""
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
