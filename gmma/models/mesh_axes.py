"""Names of the axes of a device mesh; `gmma/hardware/sharding.py` says what they mean."""

TENSOR_AXIS = "tensor"  # parts of every layer
BATCH_AXES = ("data", "fsdp")  # batches are cut over both
ALL_AXES = (*BATCH_AXES, TENSOR_AXIS)
