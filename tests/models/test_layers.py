"""The modules of models/ import each other in one direction only, inside functions and for type checkers as well."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dkpnet_ext.models


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_no_import_circle():
    files = {path.stem: path for path in Path(dkpnet_ext.models.__file__).parent.glob("*.py")}
    graph = {name: imports(path) & files.keys() for name, path in files.items() if name != "__init__"}
    assert graph["tiling"] == {"network", "head", "fpn"}
    assert not graph["network"] & {"tiling", "counter", "hub", "registry"}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)  # raises CycleError
