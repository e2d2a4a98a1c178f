"""``llmmem synth SOURCE DIR``: write a synthetic checkpoint."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from pytest_llmmem.cli.arguments import Json, naming_argument
from pytest_llmmem.cli.output import print_facts, print_json
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.long_paths import reachable, resolved
from pytest_llmmem.core.sizes import format_size

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A preset, a config.json, or a folder with one: of the model to stand in for."
    ),
]
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it must not be there yet.")]


def synth(
    source: Source,
    dir: Dir,  # noqa: A002 -- the argument's name in --help
    *,
    dtype: Annotated[str | None, typer.Option(help="Of the weights. Default: the config's.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="No shard is larger, as '5GB'. Default: as published, 5GB for a config.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="safetensors (the default) or bin.")] = None,  # noqa: A002 -- as above
    fill: Annotated[str | None, typer.Option(help="holes (the default), which take no disk, or random.")] = None,
    json: Json = False,
) -> None:
    """Write a checkpoint of a model with holes for weights."""
    from pytest_llmmem.models.checkpoints.reader import read_checkpoint
    from pytest_llmmem.models.checkpoints.sparse_files import disk_bytes
    from pytest_llmmem.models.sources.source import parse_source
    from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic

    options = {"dtype": dtype, "shard": shard, "format": format, "fill": fill}
    query = urlencode({name: value for name, value in options.items() if value is not None})
    text = "?".join(filter(None, (f"synthetic:{source.removeprefix('synthetic:')}", query)))
    with naming_argument(f"SOURCE {source}", source=text):
        spec = parse_source(text, base=Path.cwd()).target
    assert isinstance(spec, SyntheticSpec), "a text that begins so names nothing else"
    folder = reachable(dir)
    if folder.exists():
        msg = f"DIR {dir}: it is there already: name a folder that is not, or remove it"
        raise SettingError(msg)
    try:
        write_synthetic(spec, folder)
    except OSError as error:
        msg = f"DIR {dir}: it cannot be made ({error.strerror or error}): name a folder with room to write"
        raise SettingError(msg) from error
    made = read_checkpoint(folder)
    on_disk_bytes = sum(disk_bytes(path) for path in folder.iterdir())
    if json:
        print_json(
            {
                "schema": 1,
                "path": str(resolved(dir)),
                "parameters": made.parameters,
                "weights_bytes": made.weights_bytes,
                "shards": len(made.shards),
                "disk_bytes": on_disk_bytes,
            }
        )
        return
    print_facts(
        [
            ("folder", str(dir)),
            ("parameters", f"{made.parameters:,}"),
            ("weights", f"{format_size(made.weights_bytes)} {made.dtype} in {len(made.shards)} {made.format} files"),
            ("on disk", format_size(on_disk_bytes)),
        ]
    )
