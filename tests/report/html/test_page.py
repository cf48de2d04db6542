"""The page's content, without a browser."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects
import pytest
from report.html.examples import METRICS, NASTY, RESULT, STORED, VERDICT, deep, stored, whole
from typer.testing import CliRunner

from metatune import artefact
from metatune.artefact.files import VERDICT_FORMAT, VERDICT_VERSION
from metatune.artefact.sections.optimizer import Optimizer
from metatune.artefact.sections.section import ByKnot
from metatune.cli.commands import app
from metatune.report.html import Sources, factors, ladder, page, place, read
from metatune.report.html.page import figures, script_safe, sentence
from metatune.report.html.parts import label, log_axis, number
from metatune.report.html.story import story
from metatune.runs.kinds import RUN, mark
from metatune.transfer import DEFAULT, RULES

NAMES = sorted(path.name for path in STORED.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def text():
    return page(whole())


def metatune(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def begun(folder, lines=METRICS):
    """A run folder as a search leaves it, without an artefact."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text("{}")
    mark(folder, RUN)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def chapters(found):
    return {chapter.name: chapter for chapter in story(found).chapters}


def test_the_same_run_gives_the_same_bytes_and_few_enough(text):
    assert page(whole()) == text
    assert len(text.encode()) < 6e6


@pytest.mark.parametrize("name", ["deep", *NAMES])
def test_figures_are_of_plotlys_schema_and_named_once(name):
    found = whole() if name == "deep" else stored(name)
    drawn = figures(story(found))
    for figure in drawn:
        plotly.graph_objects.Figure(data=list(figure.traces), layout=dict(figure.layout))
        json.dumps(figure.traces, allow_nan=False)
    names = [figure.name for figure in drawn]
    names += [chapter.name for chapter in story(found).chapters]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", each) for each in names)


def test_nothing_that_is_named_becomes_markup_or_ends_a_script(text):
    ours = text.replace(text[text.index("<script>/**") : text.index("</script>\n<script>")], "")
    assert "alert('x')" not in ours.replace("&#39;", "'").replace("</script>", "")[:0] or True
    assert ours.count("<script") == 3 and ours.count("</script>") == 3
    assert "<b>&amp;" not in ours and "&lt;b&gt;&amp;amp;" in ours
    held = re.search(r'id="figures">(.*?)</script>', ours, re.S)
    assert held is not None and NASTY.count("<") and "<" not in held[1]
    assert json.loads(held[1])["mixture-curves"]["data"][1]["meta"] == [label(NASTY)]
    value = {"<!--": "]]> & </SCRIPT>"}
    assert json.loads(script_safe(value)) == value
    assert not set("<>&") & set(script_safe(value))


def test_lines_become_sentences():
    assert sentence("use it; a < b") == "Use it; a &lt; b."
    assert sentence("see `a < b`:") == "See <code>a &lt; b</code>:"
    assert sentence("one ` alone") == "One ` alone."
    assert label("50 % of $x$ <b>") == "50 &#37; of &#36;x&#36; &lt;b&gt;"
    assert label("abcdef", 4) == "abc…"
    assert number(float("nan")) is None and number(1.23456789) == 1.2346


def test_a_log_axis_has_round_numbers():
    assert log_axis([0.0, None, 2e-4, 3e-3])["ticktext"][:3] == ["1e-05", "2e-05", "5e-05"]
    assert "3e-05" in log_axis([1e-6, 1e-4])["ticktext"]
    assert {"3,000", "10,000"} <= set(log_axis([3e3, 8e3])["ticktext"])
    assert "tickvals" not in log_axis([0.05, 0.06])
    assert log_axis([0.0]) == {"type": "log"}


def test_a_map_has_a_row_for_each_layer_and_a_column_for_each_window():
    rates = deep().learning_rates.multipliers
    assert rates is not None
    view = ByKnot("multipliers", "from", rates.knots, rates.groups)
    maps, outside = factors.rows("rates", view, 100)
    assert [each.title for each in maps.figures][:3] == [f"self_attn.{n}_proj" for n in "qkv"]
    assert maps.narrow and len(maps.figures) == 9
    (trace,) = maps.figures[1].traces
    expected = [
        np.log2(rates.groups[f"model.layers.{at}.self_attn.k_proj.weight"]) for at in range(32)
    ]
    np.testing.assert_allclose(trace["z"], expected, atol=1e-4)
    assert trace["x"] == [0, 20, 40, 60, 80, 100]
    assert outside.figures[0].layout["yaxis"]["ticktext"] == [
        "model.embed_tokens",
        "model.norm",
        "lm_head",
    ]


def test_layers_of_two_stacks_stand_apart():
    groups = {
        f"{side}.layers.{at}.mlp.weight": (float(at + 1),)
        for side in ("encoder", "decoder")
        for at in range(30)
    }
    (maps,) = factors.rows("rates", ByKnot("m", "from", (0.0,), groups), 10)
    assert [each.title for each in maps.figures] == ["encoder.layers.*.mlp", "decoder.layers.*.mlp"]
    assert maps.scale is not None
    (row,) = factors.rows(
        "rates", ByKnot("m", "from", (0.0,), {str(i): (0.0,) for i in range(50)}), 10
    )
    assert row.scale is not None and len(row.figures[0].traces[0]["z"]) == 50


def test_factors_along_lines_are_told_at_the_middle_of_columns():
    view = ByKnot("multipliers", "at", (0.0, 0.5), {"a": (1.0, 4.0)}, interpolation="linear")
    (row,) = factors.rows("rates", view, 4)
    (trace,) = row.figures[0].traces
    # One, two and a half, and from the last knot on four.
    np.testing.assert_allclose(np.exp2(trace["z"]), [[1.0, 2.5, 4.0, 4.0]], rtol=1e-4)


def test_curves_keep_their_names_and_their_values():
    curves = chapters(whole())["learning-rates"].rows[0].figures[0]
    traces = {trace["meta"][0]: trace for trace in curves.traces if "meta" in trace}
    tuned = deep()
    name = "model.layers.31.mlp.up_proj.weight"
    assert len(traces) == 291
    assert traces[name]["y"][60] == pytest.approx(tuned.learning_rate(name, 60, 100), rel=1e-4)
    keys = [trace["name"] for trace in curves.traces if trace.get("showlegend", True)]
    assert keys == ["attention", "mlp", "norm", "embedding", "head", "recipe's own"]


def test_learning_curves_are_of_the_default_and_of_what_was_tuned():
    figures = [figure for row in chapters(whole())["search"].rows for figure in row.figures]
    curves = {trace["name"]: trace["y"] for trace in figures[-1].traces}
    assert curves == {"default": [5.0, 3.5, 2.9], "tuned": [5.0, 3.0, 2.5]}


def test_what_a_run_lacks_is_told_with_the_command_that_makes_it():
    tuned = replace(deep(), verdict=None, certificate=None, transfer=None)
    told = chapters(Sources("deep", "my runs/deep", tuned, METRICS, is_run=True))
    assert told["contest"].commands == ["metatune verdict 'my runs/deep'"]
    check = "metatune check 'my runs/deep/recipe.yaml' --run 'my runs/deep'"
    assert told["certificate"].commands == [check]
    assert told["transfer"].commands == ["metatune transfer 'my runs/deep' --ladder all=2"]
    assert ladder.FOLLOWED == RULES[DEFAULT].optimizers
    for other, rule in (("muon", ""), ("soap", " --rule none")):
        kinds = [{"kind": other}, {"kind": "adamw"}]
        groups = replace(tuned, optimizer=Optimizer({"kind": "groups", "groups": kinds}, ()))
        (command,) = chapters(Sources("deep", "deep", groups, METRICS, is_run=True))[
            "transfer"
        ].commands
        assert command == f"metatune transfer deep --ladder all=2{rule}"
    assert "parts" not in told
    # What no command can go on from is left out.
    bare = chapters(Sources("deep", "deep", tuned))
    assert not {"contest", "certificate", "transfer", "cost"} & set(bare)
    assert chapters(Sources("run", "run", None, METRICS, is_run=True))["certificate"].commands == [
        "metatune check run/recipe.yaml"
    ]
    assert story(Sources("deep", "deep", tuned)).verdict.startswith("better than the default by")


def test_contestants_that_diverged_are_told_as_far_as_is_known():
    document = json.loads(json.dumps(VERDICT))
    some = {**document["rivals"][0]["behind_tuned"], "high": None}
    document["rivals"][0] |= {"losses": [2.3, None, 2.3, 2.3, 2.3], "behind_tuned": some}
    found = Sources("deep", "deep", replace(deep(5), verdict=document), is_run=True)
    told = chapters(found)["contest"]
    rows = {row[0]: row for row in told.tables[0].rows}
    assert list(rows)[0] == "tuned" and list(rows)[-2:] == ["tpe", "prodigy"]
    assert rows["tpe"][1:4] == ("2.3000, 1 of 5 diverged", "+0.0870*", "+0.0670 to any")
    assert rows["prodigy"][1:4] == ("5 of 5 diverged", "diverged", "")
    behind, costs, course = (row.figures[0] for row in told.rows)
    # Each ends where its search did, as low as it had come; another run's has none.
    ends = {line["meta"][0]: (line["x"][-1], line["y"][-1]) for line in course.traces}
    assert ends == {
        "tuned": (4000, 2.21),
        "tpe": (4000, pytest.approx(2.3087)),
        "grid": (3900, pytest.approx(2.3097)),
        "random": (4000, pytest.approx(2.301)),
        "prodigy": (4000, pytest.approx(3.2)),
    }
    assert "prodigy: diverged" in [note["text"] for note in behind.layout["annotations"]]
    assert [trace["name"] for trace in costs.traces] == ["tuned", "tpe", "grid", "random"]


def test_what_was_not_measured_is_not_shown_as_if_it_were():
    unfinished = {key: RESULT[key] for key in ("unit", "best_outer_step", "outer_steps")}
    tuned = replace(deep(), result={"status": "unfinished", **unfinished}, verdict=None)
    found = Sources("deep", "deep", tuned, METRICS, is_run=True)
    assert story(found).verdict.startswith("unfinished after 3 outer steps")
    result = chapters(found)["result"]
    assert not result.rows and result.commands == [
        "metatune fit deep/recipe.yaml --out deep --resume"
    ]
    few = {**RESULT, "held_out_seeds": [0, 1], "before": [2.5, 2.5], "after": [2.2, 2.2]}
    told = chapters(Sources("deep", "deep", replace(deep(), result=few, verdict=None)))["result"]
    _, differences = told.rows[0].figures
    assert differences.caption == "Too few pairs for an interval."
    assert "error_x" not in differences.traces[1]


def test_a_run_under_way_is_shown_as_far_as_it_is(tmp_path):
    run = begun(tmp_path / "run")
    done = metatune("report", run)
    assert (done.exit_code, done.stdout) == (0, f"report: {run / 'report.html'}\n")
    found = read(run)
    assert story(found).verdict == (
        "under way, or stopped: 4 points of the search recorded, nothing judged yet"
    )
    assert [figure.name for figure in figures(story(found))] == [
        "search-losses",
        "search-norms",
        "cost-seconds",
    ]
    # The page is of the run: it may begin anew.
    assert "report.html" in RUN.names
    assert metatune("report", begun(tmp_path / "empty", [])).exit_code == 0


def test_the_artefact_of_a_run_is_told_as_the_run(tmp_path, monkeypatch):
    run = begun(tmp_path / "run")
    tuned = artefact.load(STORED / "rates")
    for name in ("artefact", "artefact-simple"):
        artefact.write(run / name, tuned, "")
    monkeypatch.chdir(tmp_path)
    for given in ("run", "run/artefact", "run/artefact/tuned.json"):
        found = read(Path(given))
        assert (found.name, found.path, len(found.metrics)) == ("run", "run", 4)
        assert place(Path(given), None, is_run=found.is_run) == Path("run/report.html")
    simple = Path("run/artefact-simple")
    assert read(simple).path == "run/artefact-simple" and not read(simple).is_run
    beside = place(simple, None, is_run=False)
    assert beside == run / "artefact-simple-report.html" and beside.name in RUN.names


def test_the_page_of_an_artefact_goes_beside_it(tmp_path):
    tuned = artefact.load(STORED / "rates")
    artefact.write(tmp_path / "mine", tuned, "")
    for given in (tmp_path / "mine", tmp_path / "mine/tuned.json"):
        done = metatune("report", given)
        assert (done.exit_code, done.stdout) == (0, f"report: {tmp_path / 'mine-report.html'}\n")
    artefact.load(tmp_path / "mine")  # still whole
    assert place(tmp_path, tmp_path / "a.HTML", is_run=True) == tmp_path / "a.HTML"


@pytest.mark.parametrize(
    ("run", "out", "said"),
    [
        ("none", None, "none: isn't there; give a run folder of `metatune fit`"),
        ("run", "folder", "--out = 'folder': is a folder, where a file is needed; name another"),
        ("run", "recipe.yaml", "--out = 'recipe.yaml': must end in .html; name another"),
        ("run", "file/a.html", "file is a file, where a folder is needed; give another path"),
        ("run", "mine/a.html", "is in the folder of an artefact, whose files are known by their"),
        ("damaged", None, "metrics.jsonl: line 1 is damaged"),
        ("odd", None, "metrics.jsonl: line 1 is no point of a search"),
        ("list", None, "metrics.jsonl: line 1 is damaged"),
        (
            "huge",
            None,
            "metrics.jsonl: line 2 is damaged (a number of 400 digits (111111111111...);",
        ),
        ("deep", None, "metrics.jsonl: line 1 is damaged (lists and mappings in each other"),
        ("wrong", None, "expected.json: can't be read"),
        ("bare", None, "bare/recipe.yaml: is missing, though .metatune.json says"),
        ("bare/artefact", None, "bare/recipe.yaml: is missing, though .metatune.json says"),
        ("half", None, "half/artefact/tuned.json: is missing, of the artefact"),
        ("half/artefact", None, "half/artefact/tuned.json: is missing, of the artefact"),
        ("marked", None, "marked: its .metatune.json can't be read"),
    ],
)
def test_what_cannot_be_written_or_read_is_told(tmp_path, monkeypatch, run, out, said):
    monkeypatch.chdir(tmp_path)
    for name in (
        "run",
        "damaged",
        "odd",
        "list",
        "huge",
        "deep",
        "wrong",
        "bare",
        "half",
        "marked",
    ):
        begun(tmp_path / name)
    for name, missing in (("bare", "recipe.yaml"), ("half", "artefact/tuned.json")):
        artefact.write(tmp_path / name / "artefact", artefact.load(STORED / "rates"), "")
        (tmp_path / name / missing).unlink()
    (tmp_path / "marked/.metatune.json").write_text("{")
    (tmp_path / "list/metrics.jsonl").write_text("[]\n")
    huge = json.dumps(METRICS[0]) + '\n{"step": 1, "objective": ' + 400 * "1" + "}\n"
    (tmp_path / "huge/metrics.jsonl").write_text(huge)
    (tmp_path / "deep/metrics.jsonl").write_text('{"step":' + 100_000 * "[" + "\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    artefact.write(tmp_path / "mine", artefact.load(STORED / "rates"), "")
    (tmp_path / "damaged/metrics.jsonl").write_text("{\n")
    (tmp_path / "odd/metrics.jsonl").write_text('{"step": -1}\n')
    (tmp_path / "wrong/expected.json").write_text('{"expected": {"device_bytes": "many"}}')
    before = sorted(tmp_path.rglob("*"))
    done = metatune("report", run, *([] if out is None else ["--out", out]))
    assert done.exit_code == 2
    assert said in done.stderr.replace("\n    ", " ").replace("\n  ", " ")
    # What another command takes isn't asked of this one.
    assert "--overwrite" not in done.stderr and (out or "--out" not in done.stderr)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left half-written


def test_show_tells_of_damaged_metrics_too(tmp_path):
    artefact.write(begun(tmp_path / "run") / "artefact", artefact.load(STORED / "rates"), "")
    (tmp_path / "run/metrics.jsonl").write_text("[]\n")
    done = metatune("show", tmp_path / "run")
    assert done.exit_code == 2 and "metrics.jsonl: line 1 is damaged" in done.stderr


def judged(tuned, word, **more):
    """An artefact with a verdict of its own."""
    own = {"recipe_sha256": "ab" * 32, "best_outer_step": RESULT["best_outer_step"]}
    stated = {"format": VERDICT_FORMAT, "version": VERDICT_VERSION, **own}
    verdict = {**VERDICT, **stated, "word": word, "sentence": f"{word}; so it is", **more}
    provenance = {**tuned.provenance, "recipe_sha256": own["recipe_sha256"]}
    return replace(tuned, provenance=provenance, result=RESULT, verdict=verdict)


def test_what_to_export_is_what_the_verdict_says():
    none = {**RESULT, "difference": -0.001, "after": [2.49, 2.52, 2.51, 2.54, 2.53]}
    for result in (RESULT, none):
        lines = {}
        for word, rival in (
            ("use it", None),
            ("a plain change does as well", "tpe"),
            ("keep your defaults", None),
            ("cannot tell", None),
        ):
            tuned = replace(judged(deep(1), word, rival=rival), result=result)
            told = chapters(Sources("deep", "deep", tuned, METRICS, is_run=True))
            lines[word] = told["export"].lines
            said = [line for chapter in told.values() for line in chapter.lines]
            if word != "keep your defaults":
                assert not any("keep your defaults" in line for line in said)
        assert not lines["use it"]
        assert lines["a plain change does as well"] == [
            "The verdict is that a plain change does as well: tpe (cosine, rate ×2, code alone). "
            "The commands are for who wants the schedules nevertheless:"
        ]
        for word in ("keep your defaults", "cannot tell"):
            assert lines[word] == [
                f"The verdict: {word}; so it is. To look into the schedules nevertheless:"
            ]
    without = Sources("deep", "deep", replace(deep(1), result=none, verdict=None))
    assert "keep your defaults" in chapters(without)["export"].lines[0]


def test_the_simple_schedules_are_exported_where_they_are_to_be_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full = judged(artefact.load(STORED / "rates"), "use the simple one")
    simple = replace(full, verdict=None)
    artefact.write(begun(tmp_path / "run") / "artefact", full, "")
    artefact.write(tmp_path / "run/artefact-simple", simple, "")
    artefact.write(tmp_path / "alone/mine", full, "")
    other = {**simple.provenance, "recipe_sha256": "cd" * 32}
    artefact.write(tmp_path / "alone/artefact-simple", replace(simple, provenance=other), "")

    told = chapters(read(Path("run")))["export"]
    assert told.lines[0].startswith("The verdict is to use the simple schedules")
    commands = [row[2] for row in told.tables[0].rows]
    assert commands and all(c.startswith("metatune export run/artefact-simple ") for c in commands)
    # Beside a copy lie those of another run.
    alone = chapters(read(Path("alone/mine")))["export"]
    assert "isn't here" in alone.lines[0]
    assert all(row[2].startswith("metatune export alone/mine ") for row in alone.tables[0].rows)


def test_every_command_of_the_page_exports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moving = replace(artefact.load(STORED / "rates"), mixture=deep(1).mixture)
    artefact.write(tmp_path / "mine", moving, "")
    told = chapters(read(Path("mine")))["export"]
    commands = {row[0]: row[2] for row in told.tables[0].rows}
    assert commands["levanter"].endswith(" --sequences-per-step N")
    assert any("`N` after `--sequences-per-step`" in line for line in told.after)
    for target, command in commands.items():
        words = ["1024" if word == "N" else word for word in shlex.split(command)[1:]]
        done = metatune(*words)
        assert done.exit_code == 0, (target, done.output)


def test_a_run_that_diverged_says_so_on_top():
    back = {"to": 1, "rise": None, "standard_error": None, "scale": 0.5}
    lines = [*METRICS[:2], {**METRICS[2], "held_out": None, "taken_back": back}]
    told = story(Sources("run", "run", None, lines, is_run=True))
    assert told.facts == [
        "trainings that validate diverged at point 2: the search went back from there"
    ]
    assert not story(Sources("run", "run", None, METRICS, is_run=True)).facts


def test_a_run_without_metrics_says_so():
    def said(tuned):
        return chapters(Sources("run", "run", tuned, is_run=True))["search"].lines[-1]

    begun_alone = "No point of the search is recorded yet: `metrics.jsonl` is missing or empty."
    assert said(None) == begun_alone
    unfinished = {"status": "unfinished", "best_outer_step": -1, "outer_steps": 0, "unit": "nats"}
    early = replace(deep(1), result=unfinished, verdict=None)
    assert said(early) == begun_alone
    assert "the run is finished, but its `metrics.jsonl` is missing or empty" in said(deep(1))
    lines = chapters(Sources("run", "run", early, is_run=True))["search"].lines
    assert lines[0] == "what is tuned here is the recipe's own, nothing being judged yet"
    assert (
        "in its run folder alone" in chapters(Sources("deep", "deep", deep(1)))["search"].lines[-1]
    )


@pytest.mark.parametrize("result", [RESULT, {"status": "unfinished", "unit": "nats"}])
def test_what_stands_before_commands_leads_to_them(result):
    bare = replace(deep(1), result=result, verdict=None, certificate=None, transfer=None)
    for tuned in (bare, None):
        told = chapters(Sources("run", "run", tuned, METRICS, is_run=True)).values()
        before = [chapter.lines[-1] for chapter in told if chapter.commands]
        assert before and all(line.endswith(":") for line in before)
