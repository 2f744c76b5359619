"""The shape of the source tree: short modules and functions, imports in one direction, folders that say what they hold."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "dkpnet_ext").rglob("*.py"))
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 80  # lines
REASONS: dict[str, str] = {}  # "path" or "path::function" that is longer -> why, in one line

# From the bottom up: a module imports from its own line and from the lines before it.
LAYERS = (
    "_version errors",
    "files markdown memory device webserver",
    "synthetic",
    "data",
    "ops inspection plots",
    "models",
    "evaluation",
    "training counting",
    "annotation reproduction",
    "cli",
    "annotate train evaluate predict demo prepare reproduce export info",  # the commands
)


def imports(name: str) -> set[str]:
    """The package's modules that module ``name`` imports, inside functions and for type checkers as well; not as a program."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if __name__ ==")]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join(parts + ([node.module] if node.module else []))
            for alias in node.names:
                found.add(f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {name}


GRAPH = {name: imports(name) for name in MODULES}


def test_no_import_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(MODULES)  # raises CycleError


def test_no_layer_imports_a_higher_one():
    rank = {room: number for number, line in enumerate(LAYERS) for room in line.split()}
    rooms = {name: name.split(".")[1] for name in MODULES if name != "dkpnet_ext"}
    assert set(rooms.values()) == rank.keys()
    wrong = [
        f"{name} imports {other}"
        for name in rooms
        for other in GRAPH[name] & rooms.keys()
        if rank[rooms[other]] > rank[rooms[name]]
    ]
    assert not wrong


def test_commands_do_not_import_each_other():
    commands = {f"dkpnet_ext.{command}" for command in LAYERS[-1].split()}
    found = {(name, other) for name in MODULES for other in GRAPH[name] & commands}
    assert found == {("dkpnet_ext.reproduce", "dkpnet_ext.train")}  # it takes train's options


def test_tiling_knows_networks_only():
    assert GRAPH["dkpnet_ext.models.tiling"] == {f"dkpnet_ext.models.{name}" for name in ("network", "head", "fpn")}


def test_modules_and_functions_are_short():
    """Counted with comments and docstrings. Tests are not: their tables of cases may be long."""
    lengths = {}
    for folder in ("dkpnet_ext", "bench", "experiments", "csrc", "python"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".py", ".h", ".cpp", ".cu", ".cuh"):
                continue
            text, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
            lengths[place] = (text.count("\n"), LONGEST_MODULE)
            for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    lengths[f"{place}::{node.name}"] = (lines, LONGEST_FUNCTION)
    assert len(lengths) > 500
    longer = {place for place, (lines, limit) in lengths.items() if lines > limit}
    assert longer == REASONS.keys(), "shorten it, or give the reason in REASONS; drop reasons of what became short"


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda path: path.name)
def test_each_folder_and_module_says_what_it_holds(folder):
    assert (folder / "__init__.py").is_file()
    for path in folder.glob("*.py"):
        if path.name != "_version.py":
            first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            assert len(first) > 20, f"{path} does not begin with a line on what is in it"
