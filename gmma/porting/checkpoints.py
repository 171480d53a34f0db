"""A Hugging Face directory into a checkpoint of gmma, and a run back into such a directory.

An import is a directory like a run's: `checkpoints/0` holds all parameters, so `init_from` takes
it, and `huggingface/` the config, tokenizer and processor, so it needs the original no more.
"""

import json
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from gmma.config import MeshConfig, config_from_json
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.files import read_json, write_whole
from gmma.hardware.sharding import make_mesh, param_shardings
from gmma.huggingface.tokenizers import WORDS
from gmma.huggingface.weights import shard_files, tensor_shapes
from gmma.models.decoder import DType
from gmma.models.lora import merge_adapters
from gmma.options.prompt import PromptConfig
from gmma.porting.pretrained import (
    Pretrained,
    Source,
    copy_companions,
    describe_pretrained,
    match_names,
    read_weights,
    save_pretrained,
    source_of,
    write_config,
)
from gmma.records.checkpoint import restore_all_params, save_params
from gmma.records.resuming import CONFIG_FILE
from gmma.remote.copies import here

IMPORT_FILE, COMPANIONS = "import.json", "huggingface"
HOST_ALLOWANCE = 1.3  # of the largest shard


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Size of an import and its peak memory, in bytes."""

    shards: int
    largest_shard: int
    params: int
    devices: int
    resident_before: int
    peak_reading: int  # above what was resident before
    peak: int  # of reading and writing
    devices_in_host_memory: bool

    @property
    def bound(self) -> float:
        """1.3 × the largest shard, and what the devices hold where that is host memory."""
        held = self.params if self.devices_in_host_memory else 0
        return HOST_ALLOWANCE * self.largest_shard + held


def import_directory(
    directory: Path,
    output: Path,
    dtype: DType,
    mesh: MeshConfig,
    architecture: str | None = None,
) -> ImportReport:
    """Write `directory` as a checkpoint under `output`; parameters in `dtype`, cut over the mesh.

    UserError for whatever is wrong with the directory, and where `output` is in use.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; give a directory that does not exist yet")
    described = describe_pretrained(directory, dtype, architecture=architecture)
    devices = make_mesh(mesh)
    abstract = jax.eval_shape(described.policy.init, jax.random.key(0))
    shardings = param_shardings(described.policy, abstract, devices)
    before = reset_peak_bytes()
    params, source = read_weights(described, lambda path: dtype, shardings)
    peak_reading = peak_bytes() - before
    keep_companions(output, source)
    save_params(output, params)
    write_whole(
        output / IMPORT_FILE,
        json.dumps(
            {
                "directory": str(directory),
                "dtype": dtype,
                "architecture": architecture,
                "prefixes": dict(source.prefixes),
            }
        ),
    )
    files = shard_files(directory)
    return ImportReport(
        shards=len(files),
        largest_shard=max(path.stat().st_size for path in files),
        params=sum(
            shard.data.nbytes for x in jax.tree.leaves(params) for shard in x.addressable_shards
        ),
        devices=devices.size,
        resident_before=before,
        peak_reading=peak_reading,
        peak=peak_bytes() - before,
        devices_in_host_memory=jax.default_backend() == "cpu",
    )


def keep_companions(output: Path, source: Source) -> None:
    """Copy config.json, tokenizer and processor beside the checkpoint."""
    kept = output / COMPANIONS
    kept.mkdir(parents=True)
    write_config(kept, source.config)
    copy_companions(source, kept)


def peak_bytes() -> int:
    """Return the most memory this process has had resident, mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_bytes() -> int:
    """Begin to measure the peak anew, where the system can forget the old one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def home_of(path: Path) -> Path:
    """Return the directory of a run or an import, of which `path` may be a checkpoint."""
    inside = path.parent.name == "checkpoints" and path.name.isdecimal()
    return path.parent.parent if inside else path


def is_import(path: Path) -> bool:
    """Return whether a path was written by `import_directory`, or is a checkpoint in it."""
    return (home_of(path) / IMPORT_FILE).is_file()


def read_checkpoint(path: Path, step: int | None = None) -> tuple[Pretrained, DType]:
    """Read a run's or an import's parameters as a ported model, and the type it computed in.

    `path` is the directory of a run or an import, or one of its checkpoints. A run with adapters
    keeps them alone; its base is read from its model's directory.
    """
    home = home_of(path)
    if home != path:
        path, step = home, int(path.name)
    if (path / IMPORT_FILE).is_file():
        values = read_json(path / IMPORT_FILE)
        return read_import(path, values, step), values["dtype"]
    if not (path / CONFIG_FILE).is_file():
        raise UserError(
            f"{path} is neither a run nor an import: it has no {CONFIG_FILE} and no {IMPORT_FILE}; "
            "give runs/NAME, what `gmma port import` wrote, or a checkpoint in either"
        )
    config = config_from_json(read_json(path / CONFIG_FILE), path / CONFIG_FILE)
    model = config.model
    if not isinstance(model, PretrainedConfig):
        raise UserError(
            f"{path} trained the family {model.family}, which transformers does not have; only "
            "runs of a ported directory can be exported"
        )
    return read_trained(path, model, step, config.prompt), model.dtype


def read_import(path: Path, values: dict[str, Any], step: int | None) -> Pretrained:
    """Read what `import_directory` wrote."""
    described = describe_pretrained(
        path / COMPANIONS, values["dtype"], architecture=values.get("architecture")
    )
    return Pretrained(
        policy=described.policy,
        params=restore_all_params(path, step),
        tokenizer=described.tokenizer,
        processor=None,
        template=described.template,
        source=source_of(described, values["prefixes"]),
    )


def read_trained(
    path: Path, model: PretrainedConfig, step: int | None, words: PromptConfig = WORDS
) -> Pretrained:
    """Return the newest or given checkpoint of a run, and the words of its prompts."""
    described = describe_pretrained(
        here(model.directory),
        model.dtype,
        architecture=model.architecture,
        thinking=model.thinking,
        words=words,
    )
    held = restore_all_params(path, step)
    if model.lora is not None:
        base, source = read_weights(described, lambda name: model.dtype)
        held = {**base, **held}
    else:
        source, _ = match_names(described, tensor_shapes(shard_files(described.directory)))
    source = replace(source, resolution=model.resolution)
    return Pretrained(
        policy=described.policy,
        params=held,
        tokenizer=described.tokenizer,
        processor=None,
        template=described.template,
        source=source,
    )


def export_merged(pretrained: Pretrained, output: Path, dtype: DType) -> None:
    """Write a directory that transformers loads; adapters are added to the weights."""
    params = pretrained.params
    merged = merge_adapters(params) if "lora" in params else params
    save_pretrained(output, replace(pretrained, params=merged), dtype)
