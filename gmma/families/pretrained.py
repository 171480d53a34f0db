"""Select which ported backbone a run trains, and which of its parameters."""

from dataclasses import dataclass
from typing import Literal

from gmma.files import SourcePath
from gmma.options.networks import Attention, LoraConfig, Remat, Resolution
from gmma.options.resuming import ChangesNoNumber


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """A Hugging Face directory; its config.json says the family, unless `architecture` does.

    Trained parameters are float32, and so is their optimiser state; frozen ones have the type of
    the activations. A tower is frozen together with what Qwen calls its mergers; Gemma's projector
    is trained.
    """

    family: Literal["pretrained"] = "pretrained"  # read from a directory
    # config.json, *.safetensors, the tokenizer's and the processor's files: on this machine, in a
    # bucket (gs://BUCKET/FOLDER), or on the Hub (hf://OWNER/NAME)
    directory: SourcePath
    # The family: a model_type of gmma's, or your own as module:NAME; None: what config.json says
    architecture: str | None = None
    # Passed to the directory's chat template as enable_thinking; None: as the template has it.
    # A template that then closes an empty thought before the reply is refused.
    thinking: bool | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of activations and frozen parameters
    lora: LoraConfig | None = None  # train low-rank adapters alone; None: the parameters themselves
    freeze_vision: bool = True  # the image tower is not trained
    # Parts of a layer to compute again in the backward pass
    remat: ChangesNoNumber[Remat] = "full"
    # Of packed trees: a kernel on TPU, by levels elsewhere
    attention: ChangesNoNumber[Attention] = "auto"
    # Sizes that the images of a prompt are padded to, each compiled once: windows of 4×4
    # tokens for Qwen2.5-VL, tokens for Qwen3-VL, images for Gemma; 0 is the program without a
    # tower. None: one size, that of a prompt full of images, or (0,) where the task has none.
    image_buckets: ChangesNoNumber[tuple[int, ...] | None] = None
    # Qwen: an image is resized to this many pixels at least and at most, so that its tokens are
    # bounded (`docs/tasks.md` has a table). None: as the processor's file has it.
    min_pixels: int | None = None
    max_pixels: int | None = None
    # Gemma: crops of a long image are seen beside the whole. None: as the processor's file has it.
    pan_and_scan: bool | None = None

    @property
    def resolution(self) -> Resolution:
        """The fields that are laid over the processor's file."""
        return Resolution(
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            pan_and_scan=self.pan_and_scan,
        )
