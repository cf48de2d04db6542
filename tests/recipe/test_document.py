import pytest

from metatune.recipe.document import load, load_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 0.0003),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("010", 10),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        # What YAML 1.1 takes for false, true, ninety, a date and a number, and 1.2 for text:
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'3e-4'", "3e-4"),
        (".nan", ".nan"),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    read, faults = load(text)
    assert (read, type(read), faults) == (value, type(value), ())


def test_merge_keys_and_aliases():
    text = "a: &a {x: 1, y: 2}\nb: {deep: &b {<<: *a, x: 3}}\nc: {<<: *b}\n"
    value, faults = load(text)
    assert faults == ()
    assert value["b"]["deep"] == value["c"] == {"x": 3, "y": 2}
    text = "a: &a {one: 1}\nb: &b {one: 2, two: 2}\nc: {three: 3, <<: [*b, *a], two: 4}\n"
    value, faults = load(text)
    assert faults == ()
    assert list(value["c"].items()) == [("one", 2), ("two", 4), ("three", 3)]  # merged ones first


@pytest.mark.parametrize("merged", ["1", "[1]", "[[a]]"])
def test_only_mappings_are_merged(merged):
    _, (fault,) = load(f"a: {{<<: {merged}}}\n")
    assert "not valid YAML at line 1" in fault.problem
    assert "expected a mapping to merge, but found a s" in fault.problem  # scalar, sequence


def test_every_key_that_appears_twice_is_named_with_both_lines():
    text = "inner:\n  steps: 1\n  kind: x\n  steps: 2\nseed: 0\nlist:\n- {a: 1}\n- a: 1\n  a: 2\n"
    value, faults = load(text)
    assert value is None
    assert [str(fault) for fault in faults] == [
        "inner.steps: appears twice, on lines 2 and 4; keep one of them",
        "list[1].a: appears twice, on lines 8 and 9; keep one of them",
    ]


def test_a_value_within_itself_is_refused():
    _, (fault,) = load("a: &a {b: [*a]}")
    assert str(fault) == "a.b[0]: contains itself; write the value out in place of the alias"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "not valid YAML at line 3, column 2: "),
        ("a: 1\n---\nb: 2\n", "at line 2, column 1: expected a single document"),
        ("a: !!python/object:os.system {}", "at line 1, column 4: could not determine"),
        ("a: !!int x", "at line 1, column 4: 'x' cannot be read as int"),
        ("a: 1\nb: \x07", "at line 2: the character"),
        ("a: *nothing", "at line 1, column 4: found undefined alias 'nothing'"),
        ("{[1]: 2}", "at line 1, column 2: while constructing a mapping, found unhashable key"),
    ],
)
def test_what_is_no_yaml_is_one_fault_with_its_place(text, said):
    value, (fault,) = load(text)
    assert value is None
    assert said in str(fault)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("seed: é".encode("latin-1"))
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\n")

    def said(name):
        _, (fault,) = load_file(tmp_path / name)
        return str(fault)

    assert said("missing.yaml") == "recipe: no such file; check the path and the spelling"
    assert said(".") == "recipe: is a folder; name a YAML file, e.g. one in it"
    assert said("latin.yaml") == "recipe: not UTF-8 text (byte 7 is 0xe9); save the file as UTF-8"
    assert said("empty.yaml").startswith("recipe: is empty; write the sections model, data,")
    assert said("missing.yaml/below").startswith("recipe: ")
    assert load_file(tmp_path / "bom.yaml") == ({"seed": 1}, ())


def test_a_file_as_a_folder_on_the_way(tmp_path):
    (tmp_path / "file").write_text("a")
    _, (fault,) = load_file(tmp_path / "file" / "below")
    said = f"{tmp_path / 'file'} is a file, where a folder is needed"
    assert str(fault).startswith(f"recipe: cannot be read: {said}; ")
