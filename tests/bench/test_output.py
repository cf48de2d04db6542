"""How `metatune bench` tells what it measured: tables, JSON, a picture, errors."""

import io
import json
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from report.drawn import areas, parsed, texts
from rich.console import Console
from typer.testing import CliRunner

from metatune import bench
from metatune.bench.table import depth_law
from metatune.cli.commands import app
from metatune.recipe.faults import RecipeError
from metatune.report.pictures.canvas import points

MIB = 2**20
SVG = "{http://www.w3.org/2000/svg}"


def row(variant, layers=6, parts=(10, 20, 30), **fields):
    shape = bench.SIZES["5.3M"]._replace(layers=layers)
    carry, parameters, activations = (MIB * part for part in parts)
    inputs = layers * shape.batch * shape.sequence * shape.width * 4
    memory = bench.ProgramMemory(MIB, carry, parameters, activations, inputs)
    (how,) = bench.variants([variant])
    return bench.BenchRow(bench.Case("5.3M", shape), how, memory, 1.0, 5 * MIB, **fields)


ROWS = [
    row("reverse", parts=(10, 50, 540), untimed="needs 9 bytes, 8 are free", plain_seconds=0.5),
    row("mixflow+remat", seconds=3.0, plain_seconds=0.5),
]


def printed(rows):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(bench.tables(rows))
    return console.export_text()


def test_tables_are_markdown():
    text = printed(ROWS)
    assert "5.3M: 6 layers, 8 x 512 tokens, T = 2" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["reverse", "600", "1.0x", "10", "50", "540", "", ""] in cells
    assert ["mixflow+remat", "60", "10.0x", "10", "20", "30", "3", "3.00"] in cells
    assert "reverse not timed: needs 9 bytes, 8 are free" in text
    assert "a plain step: 5 MiB, 0.5 s" in text
    assert "a plain step is gradient and update with block remat" in text


def test_times_are_left_out_where_none_were_taken():
    assert "plain steps" not in printed([row("reverse")])


def test_more_layers_are_told_apart_from_their_inputs():
    more = row("mixflow+remat", 24, (40, 80, 108))
    (line,) = depth_law([ROWS[1], more, row("reverse")])
    assert line.endswith(
        "6 to 24 layers add 78 MiB of activations, 72 for one block input each: +20% beyond"
    )


def test_the_picture_has_a_bar_for_every_part():
    drawing = parsed(bench.cost_svg(ROWS))
    assert {"reverse", "mixflow+remat", "600 MiB", "60 MiB", "3.00"} <= set(texts(drawing))
    lengths = [np.ptp(bar.points[:, 0]) for bar in areas(drawing) if bar.fill == "#009e73"]
    assert lengths[0] / lengths[1] == pytest.approx(540 / 30, rel=1e-3)
    assert max(bar.points[:, 0].max() for bar in areas(drawing)) <= points(880)


def test_the_numbers_are_json():
    document = json.loads(json.dumps(bench.document(ROWS)))
    assert document["plain_step"].startswith("gradient and optimizer update")
    assert {"device", "jax", "cores"} <= set(document["machine"])
    reverse, mixflow = document["rows"]
    assert reverse["seconds"] is None and reverse["untimed"].startswith("needs 9")
    assert mixflow["temp_bytes"] == 60 * MIB
    assert mixflow["plain_steps_per_step"] == 3.0
    assert mixflow["layers"] == 6 and mixflow["variant"] == "mixflow+remat"
    assert {f"{part}_bytes" for part in bench.ProgramMemory._fields} <= set(mixflow)


def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(RecipeError) as raised:
        bench.writable(tmp_path / "none" / "a.json", tmp_path / "a.png")
    assert "a.json': no file can be written there; name a file in a folder" in str(raised.value)
    assert "a.png': must end in .svg" in str(raised.value)
    bench.writable(tmp_path / "a.json", tmp_path / "a.svg")


def test_the_command_measures_and_writes(tmp_path):
    numbers, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    axes = ["layers=1", "steps=1", "batch=1", "sequence=8"]
    done = CliRunner().invoke(
        app,
        ["bench", "--size", "0.5M", "--variant", "mixflow", "--time", "--rounds", "1"]
        + [word for axis in axes for word in ("--vary", axis)]
        + ["--json", str(numbers), "--picture", str(picture)],
    )
    assert done.exit_code == 0, done.output
    assert "0.5M: 1 layers, 1 x 8 tokens, T = 1" in done.output
    (found,) = json.loads(numbers.read_text())["rows"]
    assert found["seconds"] > 0
    assert ET.parse(picture).getroot().tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "7B"], "size = '7B': unknown size"),
        (["--vary", "depth=2"], "vary = 'depth=2': unknown axis"),
        (["--variant", "forward"], "variant = 'forward': unknown variant"),
        (["--json", "/no/such/folder/a.json"], "json = '/no/such/folder/a.json': no file"),
    ],
)
def test_bad_values_are_plain_errors(words, said):
    refused = CliRunner().invoke(app, ["bench", *words])
    assert refused.exit_code == 2
    assert said in refused.output
    assert "Traceback" not in refused.output


def test_it_needs_neither_data_nor_the_command_line():
    script = """
        import sys
        for name in ("datasets", "transformers", "tokenizers", "typer", "torch", "PIL", "orbax"):
            sys.modules[name] = None
        from metatune import bench
        case, = bench.cases(["0.5M"], ["steps=1"])
        print(case)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.stdout == "0.5M: 4 layers, 8 x 128 tokens, T = 1\n", done.stderr
