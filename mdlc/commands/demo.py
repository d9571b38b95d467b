"""mdlc demo: a network in the browser, before the camera."""

from __future__ import annotations

import contextlib
import webbrowser
from dataclasses import replace
from pathlib import Path

import click

from mdlc.answers import check_labels
from mdlc.codegen.answer.checks import read_lines
from mdlc.codegen.cpp.emit import answer_code
from mdlc.commands.console import out, progress
from mdlc.commands.options import GroupedCommand, Job, takes_model
from mdlc.commands.paths import Written
from mdlc.demo import HOST, demo_options, serve, site
from mdlc.inputs.pictures import check_picture
from mdlc.option import Group
from mdlc.output import write_files


@click.command("demo", cls=GroupedCommand, example="mdlc demo detector.onnx --answer yolov8")
@takes_model({Group.INPUT, Group.ANSWER, Group.WEIGHTS})
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What the page looks at first.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names of the classes, one a line.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
@click.option(
    "-o",
    "--output",
    type=Written(folder=True),
    metavar="DIR",
    help="Write the page to this folder instead of serving it; any web server has it then.",
)
def command(
    job: Job,
    picture: Path | None,
    labels: Path | None,
    port: int,
    no_open: bool,
    output: Path | None,
) -> None:
    """Show what MODEL sees: a page with the camera or a picture, computed in the browser.

    The class is compiled to WebAssembly. The page is served to this machine alone and sends
    nothing anywhere. An output that looks like classes, or like a map of labels, is shown as such;
    --answer says what others mean.
    """
    names = read_lines(labels, "--labels") if labels is not None else ()
    if picture is not None:
        check_picture(picture)
    options = demo_options(job.model, job.options)
    compiled = replace(job, options=options).compile()
    answer, code = compiled.plan.answer, answer_code(compiled.plan)
    if names and answer is not None and code is not None:
        check_labels(names, {code.classes} if code.classes else set(), "--labels")
        named = replace(compiled.plan, answer=replace(answer, labels=tuple(names)))
        compiled = replace(compiled, plan=named)
    with progress(job.verbose) as tell:
        tell("building for WebAssembly")
        files = site(compiled, None if picture is None else picture.read_bytes())
    console = out()
    if output is not None:
        for path in write_files(output, files):
            console.print(str(path), soft_wrap=True)
        return
    server = serve(files, port)
    url = f"http://{HOST}:{server.server_address[1]}/"
    console.print(f"{url}  (Ctrl-C ends it)", soft_wrap=True)
    if not no_open:
        webbrowser.open(url)
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()
