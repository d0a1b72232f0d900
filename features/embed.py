"""Command: embed a cache of clips with a frozen network."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import click
import cloup

from features.settings import COPIES, PRECISIONS, STREAMS, Options, weights_warning
from pipeline.cache import Cache
from pipeline.common.cli import Command, log_json_option, number_or, some_of
from pipeline.common.errors import IntegrityError, SettingsError

DEFAULTS = Options()


def _list_backbones(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from features.catalogue import catalogue

        click.echo(catalogue())
        context.exit()


def _parse_batch(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of images")
    return int(value)


def _parse_depths(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[int, ...] | None:
    if value in ("auto", "none"):
        return None if value == "auto" else ()
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto, none, nor some numbers") from None


def _stored_precision(output: Path) -> str | None:
    """Return the precision of embeddings that are already there."""
    with contextlib.suppress(SettingsError, IntegrityError):
        return str(Cache(output, "embed", whole=False).settings["precision"])
    return None


@cloup.command(cls=Command)
@cloup.argument("cache", type=click.Path(path_type=Path), help="Cache made by pipeline.extract.")
@cloup.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the embeddings.",
)
@cloup.option_group(
    "The network",
    cloup.option(
        "--backbone",
        metavar="NAME",
        default="resnet18",
        help="Any image or video classifier of torchvision.",
    ),
    cloup.option(
        "--list-backbones",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list_backbones,
        help="List all backbones with embedding length, parameters and time, and exit.",
    ),
    cloup.option(
        "--weights",
        metavar="WEIGHTS",
        default="imagenet",
        help="imagenet (torchvision's own, downloaded once; Kinetics for video networks), the PATH "
        "of a state dict, or random:SEED.",
    ),
    cloup.option(
        "--fallback",
        metavar="WEIGHTS",
        help="Use these weights if --weights cannot be downloaded.  [default: an error]",
    ),
)
@cloup.option_group(
    "What is embedded",
    cloup.option(
        "--streams",
        metavar="STREAMS",
        default=",".join(STREAMS),
        callback=some_of(STREAMS),
        help="Embed flow, frames, or both.",
    ),
    cloup.option(
        "--flow-scale",
        metavar="PX",
        default="per-map" if DEFAULTS.flow_scale is None else f"{DEFAULTS.flow_scale:g}",
        callback=number_or("per-map", "pixels per frame", below=1e4),
        help="Motion in pixels per frame that is white in every flow map; per-map keeps each map "
        "scaled to its own range.",
    ),
    cloup.option(
        "--every",
        metavar="K",
        type=click.IntRange(1),
        default=DEFAULTS.every,
        help="Embed every K-th map or frame. Video networks see windows of 16, K apart, or 8 if K "
        "is 1.",
    ),
    cloup.option(
        "--depths",
        metavar="NUMBERS",
        default="auto",
        callback=_parse_depths,
        help="Depths of the network whose trajectories are described, such as 2,4; 1 is the first "
        "and finest. auto: the last four. none: no trajectories.",
    ),
    cloup.option(
        "--augment",
        metavar="COPIES",
        callback=lambda c, p, value: some_of(COPIES)(c, p, value) if value else (),
        help="Embed altered copies too, for model.fit to train with: flip (mirrored).",
    ),
)
@cloup.option_group(
    "Computation",
    cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..."),
    cloup.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        help="Compute embeddings in this precision. auto is float32, which trajectories need; with "
        "--depths none, bfloat16 if this machine supports it and embeddings agree with float32.",
    ),
    cloup.option(
        "--batch-size",
        metavar="N",
        default="auto",
        callback=_parse_batch,
        help="Embed at most N images at once; halved if memory runs out.",
    ),
    log_json_option,
)
def main(
    cache: Path,
    output: Path,
    backbone: str,
    weights: str,
    fallback: str | None,
    device: str,
    precision: str,
    batch_size: int | None,
    depths: tuple[int, ...] | None,
    **options: Any,
) -> None:
    """Run a frozen network over the frames and flow maps of CACHE and store the embeddings.

    Flow maps enter as three equal channels. How the network's maps move from image to image, at
    several depths, is described in the same pass. To resume an interrupted run, or to add
    trajectories to embeddings that lack them, repeat the command.

    \b
    Examples:
      python -m features.embed caches/dfd -o caches/dfd-resnet18
      python -m features.embed --list-backbones
    """
    source = Cache(cache, "extract")
    selected = Options(**options)
    from features.backbones import load_backbone
    from features.embedding import checked_on, embed
    from features.weights import WeightsUnavailable

    if precision == "auto":
        precision = _stored_precision(output) or precision
    try:
        network = load_backbone(backbone, weights, device, precision, depths)
    except WeightsUnavailable as error:
        if not fallback:
            raise
        click.secho(f"WARNING: {error}", err=True, fg="yellow")
        click.secho(
            f"WARNING: falling back to {fallback} weights", err=True, fg="yellow", bold=True
        )
        network = load_backbone(backbone, fallback, device, precision, depths)
    if batch_size is not None:
        network = dataclasses.replace(network, batch=batch_size)
    network = checked_on(network, source, selected)
    embedded = embed(source, output, network, selected)
    click.echo(
        f"{output}: {len(embedded.clips)} clips, {' and '.join(selected.streams)} as vectors of "
        f"{network.dimension} numbers by {network.name} on {network.device} in "
        f"{embedded.settings['precision']}"
    )
    described = ", ".join(map(str, network.depths))
    click.echo(f"trajectories: {f'depths {described}' if described else 'none'}")
    if warning := weights_warning(embedded.settings):
        click.secho(f"WARNING: {warning}", fg="yellow")


if __name__ == "__main__":
    main()
