"""Judge one compiled program on one slice: whether it fits, how long it takes, what would help."""

from dataclasses import dataclass
from typing import get_args

from gmma.config import ExperimentConfig
from gmma.options.networks import Remat
from gmma.plan.chips import GIB, Chip
from gmma.plan.hlo import BETWEEN_SLICES, Cost
from gmma.plan.lengths import FULL_TREES, Expected
from gmma.plan.programs import ProgramFacts
from gmma.plan.serial import SMALL_SECONDS, Serial, serial_estimate
from gmma.plan.tpu_compiler import Buffer, Compiled, Slice
from gmma.rollout import ANSWERS, THOUGHTS


@dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """One program on one slice; bytes and costs are per device."""

    program: str
    compile_seconds: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    resident_bytes: int  # of the run, beside the program
    waiting_bytes: int  # of these, minibatches that wait for their update
    need_bytes: int  # all of these
    usable_bytes: int
    fits_alone: bool  # the compiler found room for it
    fits: bool  # and for what is resident beside it
    flops: float
    hbm_traffic_bytes: float
    sent_bytes: dict[str, float]  # by kind of collective
    bound_seconds: dict[str, float]  # by what bounds
    serial: Serial  # seconds of one instruction after another
    of_peak: float  # FLOPs a serial second ÷ the chip's peak
    mfu: float  # of it, what is not computed again, on slots that hold a token
    expected: Expected  # of the lengths of trees
    tokens_per_second: float  # a chip, by serial seconds; none for slots without a token
    uncounted_kernels: float  # runs
    rows: int  # prompts at a time, on a device
    tokens: int  # sampled on the device, or packed and trained on
    bytes_per_token: float  # of the decoding loops; of the whole program where nothing is decoded
    nodes: int  # whose states a device holds at a time in a rollout, in layers that have no keys
    node_bytes: int  # of one node's state; 0: every layer has keys
    buffers: tuple[Buffer, ...]
    advice: str | None

    @property
    def spare(self) -> float:
        """Share of the usable memory that is left."""
        return 1 - self.need_bytes / self.usable_bytes

    @property
    def bound(self) -> tuple[str, float]:
        """Return the name and the seconds of the largest lower bound on a step's time."""
        return max(self.bound_seconds.items(), key=lambda item: item[1])


def bounds(cost: Cost, chip: Chip, devices_per_chip: int) -> dict[str, float]:
    """Return the seconds that a device of the chip takes at least, by each of its limits."""
    between = cost.sent.get(BETWEEN_SLICES, 0.0)
    seconds = {
        "compute": cost.flops / chip.peak_flops,
        "HBM": cost.bytes / chip.hbm_bytes,
        "ICI": (sum(cost.sent.values()) - between) / chip.ici_bytes,
    }
    if between:
        assert chip.dcn_bytes is not None  # asked of the topology
        seconds["DCN"] = between / chip.dcn_bytes
    return {limit: length * devices_per_chip for limit, length in seconds.items()}


def plan_program(
    facts: ProgramFacts,
    compiled: Compiled,
    config: ExperimentConfig,
    on: Slice,
    expected: Expected = FULL_TREES,
    *,
    largest: Compiled | None = None,
) -> ProgramPlan:
    """Judge one program, which meets trees of the lengths that are expected.

    `largest` is the branch that needs most memory, where that is another than the one that is
    compiled for its time.
    """
    largest = largest or compiled
    cost, per_chip = compiled.program.cost, on.devices_per_chip
    serial = serial_estimate(compiled.program, on.chip, per_chip)
    length = max(serial.seconds, SMALL_SECONDS)  # of a program that computes nothing
    need = largest.total_bytes + facts.resident_bytes
    usable = int(on.chip.program_gib * GIB / on.devices_per_chip)
    fits = largest.fits_alone and need <= usable
    decoding = compiled.program.loops_named((THOUGHTS, ANSWERS))
    moved = decoding.bytes if facts.name == "rollout" else cost.bytes
    peak = on.chip.peak_flops * length / per_chip
    return ProgramPlan(
        program=facts.name,
        compile_seconds=round(compiled.seconds, 1),
        argument_bytes=largest.argument_bytes,
        output_bytes=largest.output_bytes,
        temporary_bytes=largest.temporary_bytes,
        resident_bytes=facts.resident_bytes,
        waiting_bytes=facts.waiting_bytes,
        need_bytes=need,
        usable_bytes=usable,
        fits_alone=largest.fits_alone,
        fits=fits,
        flops=cost.flops,
        hbm_traffic_bytes=cost.bytes,
        sent_bytes=dict(cost.sent),
        bound_seconds=bounds(cost, on.chip, per_chip),
        serial=serial,
        of_peak=cost.flops / peak,
        mfu=(cost.flops - cost.recomputed) * expected.useful / peak,
        expected=expected,
        tokens_per_second=facts.tokens * expected.filled * per_chip / length,
        uncounted_kernels=cost.uncounted,
        rows=facts.rows,
        tokens=facts.tokens,
        bytes_per_token=moved / facts.tokens,
        nodes=facts.nodes,
        node_bytes=facts.node_bytes,
        buffers=largest.buffers,
        advice=None if fits else advise(facts, config, largest, usable),
    )


def advise(facts: ProgramFacts, config: ExperimentConfig, compiled: Compiled, usable: int) -> str:
    """Return the next change that makes a program smaller, the cheapest in time first."""
    rows = facts.rows
    if facts.name == "rollout":
        whole = config.rollout_params == "gathered"
        share = (
            "rollout_params = sharded, rollout_tensor = 2 or more: the whole copy of the "
            f"parameters on each device takes {facts.copy_bytes / GIB:.1f} GiB"
        )
        if whole and facts.copy_bytes > usable // 3:
            return share
        if rows > 1:
            field = "batch_prompts" if config.rl.rollout_prompts is None else "rollout_prompts"
            return f"a smaller rl.{field}: each device grows {rows} trees at a time"
        if whole:
            return share
        return "a larger rollout_tensor, so that a device holds less of the copy and of the caches"
    phase = "sft" if facts.name == "sft" else "rl"
    settings = getattr(config, phase)
    if compiled.total_bytes + facts.resident_bytes - facts.waiting_bytes <= usable:
        waiting = facts.waiting_bytes / GIB
        return f"a smaller rl.rollout_prompts: minibatches that wait take {waiting:.1f} GiB"
    held = facts.resident_bytes - facts.waiting_bytes + compiled.argument_bytes
    if held > 0.8 * usable:
        return (
            f"parameters and optimiser alone take {held / GIB:.1f} GiB a device: more devices "
            "along mesh.fsdp, or adapters (model.lora)"
        )
    if facts.name != "scoring" and rows > 1:
        return f"{phase}.microbatches = {settings.microbatches * rows}: a row of a device at a time"
    remat = getattr(config.model, "remat", "none")
    if remat != "full" and facts.name != "scoring":
        less = get_args(Remat)[get_args(Remat).index(remat) + 1]
        return f"model.remat = {less}: a layer keeps less for the backward pass"
    if config.logprob_chunk_slots is None or config.logprob_chunk_slots > 128:
        return "logprob_chunk_slots = 128: logits of fewer slots at a time"
    if rows > 1:
        return f"a smaller {phase}.batch_prompts: each device holds {rows} rows at a time"
    return "a larger mesh.tensor: the activations of one row are cut too"
