"""Generated scenes for `trajectory` with exact truth: an arm and blocks on photographs.

A scene is a square part of a photograph, faded; on it an arm that reaches in from an edge, and
blocks of distinct colours. Gripper and blocks stand wholly inside cells of a grid, at most one in
each. The path from gripper to block is an arc of known waypoints that lifts off and comes down:

    p(t) = (1 − t)·gripper + t·block − (0, 4 t (1 − t)·lift·‖block − gripper‖),   t = 0 … 1

kept on the image. Without a folder of photographs the background is smooth noise. Photographs are
dealt out among the splits, so that no held-out scene shows one that was trained on. Coordinates are
pixels of the scene, x right and y down.
"""

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gmma.errors import UserError
from gmma.files import SourcePath
from gmma.images.common import rgb_array
from gmma.tasks.manifest import FEATURES, stored_form
from gmma.tasks.records import fingerprint
from gmma.tasks.storage import SPLITS, Storage
from gmma.tasks.task import Patches

COLOURS = {
    "red": (230, 25, 30),
    "green": (20, 190, 60),
    "blue": (25, 70, 240),
    "yellow": (250, 225, 20),
    "purple": (175, 30, 220),
}
_THING_SHARE = 0.062  # of the scene's side: half the side of a block, the radius of a gripper
_DEAL = ("train", "train", "train", "validation", "test")  # photographs go round in this order
_PATCH_CLASSES = 2 + len(COLOURS)  # nothing, the gripper, a block of each colour


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """The drawing, and the number of scenes."""

    backgrounds: SourcePath | None = None  # folder with 5 photographs or more; None: smooth noise
    background_share: float = 0.25  # of a photograph's own colours; the rest of them is grey
    scene_pixels: int = 96  # side of a stored scene
    cells_per_side: int = 4  # of the grid
    blocks_min: int = 2  # blocks in a scene, all of distinct colours; the number is uniform
    blocks_max: int = 3
    waypoints: int = 4  # of a path, both ends included
    lift: float = 0.25  # height of the arc, as a share of the way
    train_scenes: int = 8192
    validation_scenes: int = 256
    test_scenes: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        most = min(len(COLOURS), self.cells_per_side**2 - 1)
        rules = {
            "background_share": (0 <= self.background_share <= 1, "within 0 … 1"),
            "scene_pixels": (32 <= self.scene_pixels <= 1024, "within 32 … 1024"),
            "cells_per_side": (2 <= self.cells_per_side <= 8, "within 2 … 8"),
            "blocks_max": (2 <= self.blocks_min <= self.blocks_max <= most, f"≤ {most}, min ≥ 2"),
            "waypoints": (2 <= self.waypoints <= 32, "within 2 … 32"),
            "lift": (0 <= self.lift <= 1, "within 0 … 1"),
            **{
                f"{split}_scenes": (getattr(self, f"{split}_scenes") >= 1, "at least 1")
                for split in SPLITS
            },
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"scenes: {name} is {getattr(self, name)}; it must be {rule}")


@dataclass(frozen=True, kw_only=True)
class PathScene:
    """One drawn scene."""

    image: np.ndarray  # uint8[side, side, 3]
    gripper: np.ndarray  # float64[2]
    blocks: dict[str, np.ndarray]  # colour → float64[2]; the first is the one to go to
    path: np.ndarray  # float64[waypoints, 2]


def background_files(folder: Path) -> list[Path]:
    """Return the photographs of a folder in order of their names."""
    suffixes = {".jpg", ".jpeg", ".png"}
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes)
    if len(files) < len(_DEAL):
        raise UserError(
            f"{folder} has {len(files)} photographs (jpg or png); scenes need {len(_DEAL)} or more "
            "so that every split has its own; set scenes.backgrounds to None for drawn ones"
        )
    return files


@functools.cache
def photographs(folder: Path, split: str) -> tuple[np.ndarray, ...]:
    """Return the photographs of a split, each uint8[H, W, 3]."""
    files = background_files(folder)
    own = [path for number, path in enumerate(files) if _DEAL[number % len(_DEAL)] == split]
    return tuple(rgb_array(Image.open(path)) for path in own)


def draw_background(config: SceneConfig, split: str, rng: np.random.Generator) -> Image.Image:
    """Return a square part of a photograph, or smooth noise, faded towards grey."""
    side = config.scene_pixels
    if config.backgrounds is None:
        noise = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        picture = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    else:
        own = photographs(config.backgrounds, split)
        photograph = own[int(rng.integers(len(own)))]
        height, width = photograph.shape[:2]
        cut = int(min(height, width) * rng.uniform(0.5, 1.0))
        x, y = int(rng.integers(width - cut + 1)), int(rng.integers(height - cut + 1))
        part = Image.fromarray(photograph[y : y + cut, x : x + cut])
        picture = part.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Image.blend(
        Image.new("RGB", (side, side), (128, 128, 128)), picture, config.background_share
    )


def draw_path_scene(config: SceneConfig, split: str, rng: np.random.Generator) -> PathScene:
    """Draw a scene of a split; consumes `rng`."""
    picture = draw_background(config, split, rng)
    count = int(rng.integers(config.blocks_min, config.blocks_max + 1))
    cells = rng.choice(config.cells_per_side**2, count + 1, replace=False)
    gripper, *points = place_things(config, cells, rng)
    colours = rng.permutation(list(COLOURS))[:count].tolist()
    blocks = dict(zip(colours, points, strict=True))
    draw_gripper_arm(picture, gripper, rng)
    half = _THING_SHARE * config.scene_pixels
    pen = ImageDraw.Draw(picture)
    for colour, (x, y) in blocks.items():
        pen.rectangle((x - half, y - half, x + half, y + half), COLOURS[colour], "black")
    return PathScene(
        image=np.asarray(picture),
        gripper=gripper,
        blocks=blocks,
        path=arc(gripper, points[0], config),
    )


def place_things(
    config: SceneConfig, cells: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return a point in each cell, a thing's extent away from its walls."""
    cell = config.scene_pixels / config.cells_per_side
    room = min(_THING_SHARE * config.scene_pixels + 1, cell / 2)
    corners = np.stack([cells % config.cells_per_side, cells // config.cells_per_side], axis=1)
    return list(corners * cell + rng.uniform(room, cell - room, corners.shape))


def draw_gripper_arm(picture: Image.Image, gripper: np.ndarray, rng: np.random.Generator) -> None:
    """Draw two links from an edge of the image to the gripper, a white ring with a black core."""
    side = picture.width
    base = np.array([rng.uniform(0, side), side]) if rng.random() < 0.5 else np.array([0.0, side])
    elbow = (base + gripper) / 2 + rng.uniform(-0.15, 0.15, 2) * side
    joints = [tuple(joint.tolist()) for joint in (base, elbow, gripper)]
    pen = ImageDraw.Draw(picture)
    width = max(2, round(0.05 * side))
    pen.line(joints, fill=(40, 40, 40), width=width + 2, joint="curve")
    pen.line(joints, fill=(170, 170, 175), width=width, joint="curve")
    x, y = gripper
    for share, colour in ((1.0, "black"), (0.85, "white"), (0.4, "black")):
        radius = share * _THING_SHARE * side
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def arc(start: np.ndarray, end: np.ndarray, config: SceneConfig) -> np.ndarray:
    """Return the waypoints of the formula above."""
    t = np.linspace(0, 1, config.waypoints)[:, None]
    lift = config.lift * np.hypot(*(end - start))
    path = (1 - t) * start + t * end - np.array([0.0, lift]) * 4 * t * (1 - t)
    return np.clip(path, 0, config.scene_pixels)


def scene_storage(config: SceneConfig, data_dir: Path) -> Storage:
    """Describe the scenes on disk, named after all that they depend on."""
    files = [] if config.backgrounds is None else background_files(config.backgrounds)

    def records(split: str) -> Iterator[dict[str, Any]]:
        for index in range(getattr(config, f"{split}_scenes")):
            rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
            yield scene_record(draw_path_scene(config, split, rng), f"{split}/{index}")

    return Storage(
        name="trajectory_scenes",
        directory=Path(data_dir) / f"trajectory_scenes_{fingerprint(config, *files)}",
        features=FEATURES,
        records=records,
        description=__doc__ or "",
    )


def scene_record(scene: PathScene, name: str) -> dict[str, Any]:
    """Return a scene as it is stored on disk."""
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG", compress_level=1)
    objects = [{"label": c, "point": p.round(2).tolist()} for c, p in scene.blocks.items()]
    return stored_form(
        id=name,
        question=f"Move the gripper to the {objects[0]['label']} block.",
        answer={"path": scene.path.round(2).tolist(), "objects": objects},
        images=[buffer.getvalue()],
    )


def label_patches(
    config: SceneConfig, rng: np.random.Generator, count: int, image_pixels: int, patch_pixels: int
) -> Patches:
    """Patches of training scenes at the size that the network sees, and what stands in each.

    Targets: the thing whose middle is in the patch (0: none), and the middle's pixel in it.
    """
    across = image_pixels // patch_pixels
    pixels, labels = [], []
    for _ in range(-(-count // across**2)):
        scene = draw_path_scene(config, "train", rng)
        small = Image.fromarray(scene.image).resize(
            (image_pixels, image_pixels), Image.Resampling.BOX
        )
        grid = np.asarray(small)[: across * patch_pixels, : across * patch_pixels]
        cut = grid.reshape(across, patch_pixels, across, patch_pixels, 3).swapaxes(1, 2)
        pixels.append(cut.reshape(-1, patch_pixels, patch_pixels, 3))
        labels.append(label_scene(scene, config.scene_pixels / image_pixels, across, patch_pixels))
    return Patches(
        pixels=np.concatenate(pixels)[:count],
        labels=np.concatenate(labels)[:count],
        classes=(_PATCH_CLASSES, patch_pixels, patch_pixels),
    )


def label_scene(scene: PathScene, scale: float, across: int, patch_pixels: int) -> np.ndarray:
    """Return thing, x, y of every patch, int32[across², 3]; −1 where there is none."""
    found = np.full((across * across, 3), -1, np.int32)
    found[:, 0] = 0
    things = [(1, scene.gripper)]
    things += [(2 + list(COLOURS).index(name), point) for name, point in scene.blocks.items()]
    for thing, point in things:
        x, y = np.floor(point / scale).astype(int)
        column, row = x // patch_pixels, y // patch_pixels
        if column < across and row < across:
            found[row * across + column] = (thing, x % patch_pixels, y % patch_pixels)
    return found
