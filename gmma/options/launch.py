"""The launch of a command: hosts, mesh and directories."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gmma.errors import UserError
from gmma.files import RunPath
from gmma.options.checks import require


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along the mesh axes; −1 on one of them takes all that are left."""

    data: int = -1  # copies of the parameters, each with its part of the batch
    fsdp: int = 1  # parts of the parameters, each with its part of the batch
    tensor: int = 1  # parts of every layer

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(s == -1 or s >= 1 for s in sizes), "mesh", sizes, "sizes of 1 or more, or −1")
        require(sizes.count(-1) <= 1, "mesh", sizes, "−1 on at most one axis")


@dataclass(frozen=True, kw_only=True)
class HostsConfig:
    """The processes that train together, one a host (`gmma/hardware/hosts.py`, `docs/tpu.md`)."""

    # alone: this process is the whole run; slice: JAX asks the TPU VM for the other hosts;
    # given: the three fields below say
    join: Literal["alone", "slice", "given"] = "alone"
    coordinator: str | None = None  # HOST:PORT, where the process with index 0 listens
    count: int | None = None  # processes of the run
    index: int | None = None  # of this process, from 0; 0 writes the files and prints
    start_seconds: int = 300  # to wait for the others at the start
    heartbeat_seconds: int = 30  # a host that is silent for so long is lost, and the others end
    stop_seconds: int = 15  # to wait for the others at the end, or for a failing host's clean-up

    def __post_init__(self) -> None:
        for name in ("start_seconds", "heartbeat_seconds", "stop_seconds"):
            value = getattr(self, name)
            require(value >= 1, f"hosts.{name}", value, "1 or more")
        given = (self.coordinator, self.count, self.index)
        if self.join == "given":
            found = re.fullmatch(r"\S+:([0-9]{1,5})", self.coordinator or "")
            whole = found is not None and 1 <= int(found[1]) <= 65535
            require(whole, "hosts.coordinator", self.coordinator, "HOST:PORT, a port up to 65535")
            require((self.count or 0) >= 1, "hosts.count", self.count, "1 or more")
            fits = self.index is not None and 0 <= self.index < (self.count or 0)
            require(fits, "hosts.index", self.index, f"from 0 and below hosts.count = {self.count}")
        elif given != (None, None, None):
            raise UserError(
                f"hosts.coordinator, count, index = {given} with hosts.join = {self.join}: set "
                "hosts.join to given"
            )


def check_local(field_name: str, path: Path) -> None:
    """Raise UserError for a path with a scheme, of which a `Path` keeps one slash: `gs:/BUCKET`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UserError(f"{field_name} = {path}: datasets are on this machine's disk; give a path")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, beside metrics.jsonl and TensorBoard (`pip install 'gmma[wandb]'`)."""

    project: str | None = None  # where the run's records go; None: to no place beyond its files
    entity: str | None = None  # the user or team; None: the account's own
    group: str | None = None  # runs that belong together; None: the folder part of the run's name
    # offline: files in runs/NAME/wandb, which `wandb sync` uploads later
    mode: Literal["online", "offline"] = "online"

    def __post_init__(self) -> None:
        for name in ("project", "entity", "group"):
            value = getattr(self, name)
            require(value is None or value != "", f"wandb.{name}", repr(value), "a name")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Launch of a run: its hosts, mesh and directories; no number of it depends on this.

    Each start of a run may have another: it is no part of the experiment that is saved.
    """

    hosts: HostsConfig = field(default_factory=HostsConfig)
    # Sums over devices are rounded as they are cut: numbers are equal bit for bit on one mesh.
    mesh: MeshConfig = field(default_factory=MeshConfig)
    data_dir: Path = Path("data")  # datasets are built and read here
    runs_dir: RunPath = Path("runs")  # every run has a directory here; also gs://BUCKET/FOLDER
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        check_local("data_dir", self.data_dir)


@dataclass(frozen=True, kw_only=True)
class MeshOverride:
    """Devices along mesh axes in place of the run's own; −1 on one of them takes all left."""

    data: int | None = None  # copies of the parameters; None: as in the run
    fsdp: int | None = None  # parts of the parameters; None: as in the run
    tensor: int | None = None  # parts of every layer; None: as in the run


@dataclass(frozen=True, kw_only=True)
class LaunchOverride:
    """Launch options of a command that reads a run, in place of the run's newest launch."""

    # None given: the run's own where it fits the devices
    mesh: MeshOverride = field(default_factory=MeshOverride)
    data_dir: Path | None = None  # where the datasets are; None: as in the run

    def __post_init__(self) -> None:
        if self.data_dir is not None:
            check_local("data_dir", self.data_dir)
