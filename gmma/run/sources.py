"""Sources of an experiment that do not lie on this machine: listed, compared, copied."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from gmma.config import ExperimentConfig
from gmma.errors import gather
from gmma.files import spell_bytes
from gmma.options.arguments import FetchOptions
from gmma.remote.copies import bring, look, place_of, places_in, with_paths


def read_paths(config: ExperimentConfig) -> dict[str, Any]:
    """Return the parts of a config whose paths are read, by the names of its fields."""
    return {"task": config.task, "model": config.model}


def remote_sources(config: ExperimentConfig) -> dict[str, str]:
    """Return the places elsewhere that are copied, by the fields that name them."""
    return dict(places_in(read_paths(config)))


def with_copies(config: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment with this machine's copies in the place of paths that lead elsewhere.

    What of them is not here is fetched. Raises UserError where that fails.
    """
    copies = {place: bring(place) for place in dict.fromkeys(remote_sources(config).values())}
    return replace(config, **with_paths(read_paths(config), copies)) if copies else config


def source_facts(config: ExperimentConfig) -> dict[str, str]:
    """Return what of the sources must be equal on all hosts of a run: their content, by place.

    Raises UserError where one cannot be read; nothing is fetched.
    """
    places = dict.fromkeys(remote_sources(config).values())
    return {f"content of {place}": look(place).digest for place in places}


def fetch_command(config: ExperimentConfig, given: FetchOptions) -> None:
    """Run `gmma fetch EXPERIMENT [--check | --places]`."""
    sources = remote_sources(config)
    if given.places:
        print(*dict.fromkeys([*sources.values(), *first_parameters(config)]), sep="\n")
        return
    listings = gather(*(partial(look, place) for place in sources.values()))  # all, then any
    for (name, place), listing in zip(sources.items(), listings, strict=True):
        size = f"{len(listing.files)} files, {spell_bytes(listing.bytes)}"
        copy = "" if given.check else f"; here as {bring(place)}"
        print(f"{name} = {place}: {size}{copy}", flush=True)
    if not sources:
        print("nothing that this experiment reads lies elsewhere")


def first_parameters(config: ExperimentConfig) -> Iterator[str]:
    """Yield the place of the run that `init_from` names, if that lies elsewhere; it stays there."""
    place = place_of(config.init_from)
    if place is not None:
        yield place
