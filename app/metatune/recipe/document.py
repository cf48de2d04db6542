"""The YAML of recipes: plain values by the rules of YAML 1.2, and no key twice.

PyYAML follows YAML 1.1, where `3e-4` is text, `no` is false and `1:30` is ninety. Here numbers are
what they look like, and only `true` and `false` are truth values.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from metatune.recipe import bounds, file_errors
from metatune.recipe.faults import ABSENT, Fault
from metatune.recipe.paths import joined

TAG: Final = "tag:yaml.org,2002:"
MERGE: Final = f"{TAG}merge"

# What an unquoted word is: tag, how it is spelled, how it is read.
SCALARS: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], Any]], ...]] = (
    (f"{TAG}null", re.compile(r"(?:~|null|Null|NULL|)\Z"), lambda text: None),
    (f"{TAG}bool", re.compile(r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE)\Z"), lambda text: text[0] in "tT"),
    (f"{TAG}int", re.compile(r"[-+]?[0-9]+\Z"), bounds.whole),
    (
        f"{TAG}float",
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"),
        bounds.real,
    ),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the scalars of `SCALARS`, lists, mappings, and merge keys (`<<`)."""

    yaml_implicit_resolvers = {}
    yaml_constructors = {
        f"{TAG}str": yaml.SafeLoader.construct_yaml_str,
        f"{TAG}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{TAG}map": yaml.SafeLoader.construct_yaml_map,
        None: yaml.SafeLoader.construct_undefined,
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts what merge keys name into their mapping: own keys win, then what is named first.

        PyYAML 6.0.4 tells keys apart by the identity of their text, so that some merged ones win
        over a mapping's own where it is merged again.
        """
        own, merged = [], dict[Any, tuple[yaml.Node, yaml.Node]]()
        for key, value in node.value:
            if key.tag != MERGE:
                own.append((key, value))
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    problem = f"expected a mapping to merge, but found a {source.id}"
                    raise yaml.constructor.ConstructorError(None, None, problem, source.start_mark)
                self.flatten_mapping(source)
                for pair in source.value:
                    merged.setdefault(_name(pair[0]), pair)
        merged.update((_name(pair[0]), pair) for pair in own)
        node.value = list(merged.values())


def _name(key: yaml.Node) -> Any:
    """What two keys that are the same have in common."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _constructor(pattern: re.Pattern[str], convert: Callable[[str], Any]) -> Callable[..., Any]:
    """How a scalar is read; a tag written out (`!!int x`) may contradict the spelling."""

    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        text = str(loader.construct_scalar(node))
        if not pattern.match(text):
            problem = f"{text!r} cannot be read as {node.tag.removeprefix(TAG)}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        try:
            return convert(text)
        except bounds.OutOfBounds as error:
            mark = node.start_mark
            raise yaml.constructor.ConstructorError(None, None, str(error), mark) from error

    return construct


_Loader.add_implicit_resolver(MERGE, re.compile(r"<<\Z"), ["<"])
for _tag, _pattern, _convert in SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, None)
    _Loader.add_constructor(_tag, _constructor(_pattern, _convert))


def load(text: str) -> tuple[Any, tuple[Fault, ...]]:
    """The value that `text` says, or its faults.

    Returns:
        the value and no faults, or None and the faults: a syntax error (line and column counted
        from 1), every key that appears twice, or what is out of bounds. An empty text says None.
    """
    try:
        bounds.refuse_longer(len(text.encode("utf-8", "surrogatepass")), bounds.MOST_BYTES_YAML)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, ()
        refuse_unbounded(node)
        faults = tuple(_structural_faults(node, "", ()))
        return (None, faults) if faults else (loader.construct_document(node), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        said = ", ".join(part for part in (error.context, error.problem) if part)
    except yaml.reader.ReaderError as error:
        place = f"line {text.count(chr(10), 0, error.position) + 1}"
        said = f"the character {error.character!r} is not allowed"
    except (bounds.OutOfBounds, RecursionError) as error:
        unbounded = error if isinstance(error, bounds.OutOfBounds) else bounds.too_deep()
        return None, (Fault("", ABSENT, f"holds {unbounded}", "write less"),)
    fault = Fault("", ABSENT, f"not valid YAML at {place}: {said}", "correct the text there")
    return None, (fault,)


def refuse_unbounded(root: yaml.Node) -> None:
    """Refuses a document that is too deep, or has too many values once aliases are written out.

    A node is counted once, however often it stands there: what it holds, times how often.

    Raises:
        OutOfBounds: it is.
    """
    sizes: dict[int, tuple[int, int]] = {}  # values and levels of a node
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, seen = stack.pop()
        if id(node) in sizes and not seen:
            continue
        inner = _inner(node)
        if not seen:
            sizes[id(node)] = (1, 1)  # of one that stands in itself, which is refused by name
            stack.append((node, True))
            stack += [(each, False) for each in inner]
            continue
        held = [sizes[id(each)] for each in inner]
        values = 1 + sum(count for count, _ in held)
        levels = 1 + max((level for _, level in held), default=0)
        bounds.refuse_more(values)
        if levels > bounds.DEEPEST:
            raise bounds.too_deep()
        sizes[id(node)] = (values, levels)


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _structural_faults(node: yaml.Node, path: str, above: tuple[yaml.Node, ...]) -> Iterator[Fault]:
    """Keys that appear twice, and values that contain themselves (an alias within its anchor)."""
    if node in above:
        yield Fault(path, ABSENT, "contains itself", "write the value out in place of the alias")
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _structural_faults(item, f"{path}[{index}]", (*above, node))
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            where = joined(path, key.value)
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                problem = f"appears twice, on lines {lines[name]} and {line}"
                yield Fault(where, ABSENT, problem, "keep one of them")
            lines.setdefault(name, line)
            yield from _structural_faults(value, where, (*above, node))


def load_file(path: Path) -> tuple[Any, tuple[Fault, ...]]:
    """The mapping that the file at `path` says, or its faults, as `load` returns them."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None, (Fault("", ABSENT, "no such file", "check the path and the spelling"),)
    except IsADirectoryError:
        return None, (Fault("", ABSENT, "is a folder", "name a YAML file, e.g. one in it"),)
    except OSError as error:
        said = f"cannot be read: {file_errors.problem(error)}"
        return None, (Fault("", ABSENT, said, "check the file and its permissions"),)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {error.start + 1} is 0x{error.object[error.start]:02x})"
        return None, (Fault("", ABSENT, problem, "save the file as UTF-8"),)
    tree, faults = load(text)
    if tree is None and not faults:
        cure = "write the sections model, data, inner, tune and outer"
        return None, (Fault("", ABSENT, "is empty", cure),)
    return tree, faults
