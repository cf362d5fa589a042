"""Which test holds which row of docs/reliability.md, as the tests themselves say.

A test that holds a row is marked with its number: `@pytest.mark.fault(12)`. The page
has the rows, whose last column `python -m tests.faults` makes from the marks.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ("PAGE", "Held", "Row", "held", "render", "rows")

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reliability.md"
# Number, fault, promise, tests; no cell has a bar in it.
_ROW = re.compile(r"(?m)^\| (\d+) \| ([^|]*) \| ([^|]*) \|.*$")


@dataclass(frozen=True)
class Row:
    """A fault, and what is promised when it comes."""

    number: int
    fault: str
    promise: str


@dataclass(frozen=True)
class Held:
    """A test, or a class of tests, that is marked with the number of a row."""

    path: Path
    name: str

    def link(self) -> str:
        words = self.name.removeprefix("test_").replace("_", " ")
        return f"[{words}](../{self.path.relative_to(ROOT)})"


def rows(page: str) -> list[Row]:
    return [Row(int(n), fault, promise) for n, fault, promise in _ROW.findall(page)]


def held() -> dict[int, list[Held]]:
    """Return the tests that hold each row, in the order of their files."""
    found: dict[int, list[Held]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, numbers in _marked(ast.parse(path.read_text())):
            for number in numbers:
                found[number].append(Held(path, name))
    return found


def render(page: str, tests: dict[int, list[Held]]) -> str:
    """Return the page with its last column made anew."""

    def line(row: re.Match[str]) -> str:
        links = ", ".join(test.link() for test in tests.get(int(row[1]), ()))
        return f"| {row[1]} | {row[2]} | {row[3]} | {links or 'no test'} |"

    return _ROW.sub(line, page)


def _marked(tree: ast.Module) -> Iterator[tuple[str, list[int]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for mark in node.decorator_list:
                if (
                    isinstance(mark, ast.Call)
                    and ast.unparse(mark.func) == "pytest.mark.fault"
                ):
                    yield node.name, [ast.literal_eval(each) for each in mark.args]


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(), held()))
