"""Links between the project's own pages lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
SKIPPED = {"node_modules", "build", "dist"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def pages() -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(
            part in SKIPPED or part.startswith(".")
            for part in path.relative_to(ROOT).parts
        )
    )


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ +(.+)$", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue  # The outside world is not ours to test.
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        found = target.exists() and (
            not fragment or target.suffix != ".md" or fragment in anchors(target)
        )
        broken += [] if found else [link]

    assert broken == []


@pytest.mark.parametrize("name", ["demo", "test", "lint", "bench"])
def test_make_knows_what_the_pages_name(name: str) -> None:
    subprocess.run(["make", "-n", name], cwd=ROOT, check=True, capture_output=True)
