"""The command that embeds a cache of clips with a frozen CNN."""

from pathlib import Path

import click
import cloup

from features.backbones import CLASSIFIERS, WeightsUnavailable, load_backbone
from features.embedding import STREAMS, embed, weights_warning
from pipeline.cache import Cache
from pipeline.cli import Command, log_json_option, some_of


@cloup.command(cls=Command)
@cloup.argument(
    "cache", type=click.Path(path_type=Path), help="A cache that pipeline.extract made."
)
@cloup.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the new cache.",
)
@cloup.option_group(
    "The network",
    cloup.option(
        "--backbone", type=click.Choice(list(CLASSIFIERS)), default="resnet18", help="Which CNN."
    ),
    cloup.option(
        "--weights",
        metavar="WEIGHTS",
        default="imagenet",
        help="imagenet (torchvision's; downloaded once), the PATH of a state dict, or random:SEED.",
    ),
    cloup.option(
        "--fallback",
        metavar="WEIGHTS",
        help="Weights to use if those of --weights cannot be downloaded.  [default: an error]",
    ),
    cloup.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..."),
)
@cloup.option_group(
    "What is embedded",
    cloup.option(
        "--streams",
        metavar="STREAMS",
        default=",".join(STREAMS),
        callback=some_of(STREAMS),
        help="flow, frames, or both.",
    ),
)
@log_json_option
def main(
    cache: Path,
    output: Path,
    backbone: str,
    weights: str,
    fallback: str | None,
    device: str,
    streams: tuple[str, ...],
) -> None:
    """Run a frozen CNN once over the frames and flow maps of CACHE and keep the embeddings.

    Flow maps go in as three equal channels, normalised like the pictures the weights were trained
    on. Interrupted, the same command goes on where it stopped.

    \b
    Example:
      python -m features.embed caches/dfd -o caches/dfd-resnet18
    """
    source = Cache(cache, "extract")
    try:
        network = load_backbone(backbone, weights, device)
    except WeightsUnavailable as error:
        if not fallback:
            raise
        click.secho(f"WARNING: {error}", err=True, fg="yellow")
        click.secho(
            f"WARNING: falling back to {fallback} weights", err=True, fg="yellow", bold=True
        )
        network = load_backbone(backbone, fallback, device)
    embedded = embed(source, output, network, streams)
    click.echo(
        f"{output}: {len(embedded.clips)} clips, {' and '.join(streams)} as vectors of "
        f"{network.dimension} numbers by {network.name} on {network.device}"
    )
    if warning := weights_warning(embedded.settings):
        click.secho(f"WARNING: {warning}", fg="yellow")


if __name__ == "__main__":
    main()
