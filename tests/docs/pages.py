"""Read and run the code of a page, block by block, as somebody would who follows it.

- A ``python`` block is run; all of a page share their names.
- One whose first line is ``# FILE.py`` is written to that file, for later blocks and commands.
- Of a ``sh`` block every ``metanet ...`` and ``python ...`` line is run.
- A block whose first line is ``# not run: REASON`` is only read: by people.
"""

import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

from metanet import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "made" not in p.parts),
]
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.S | re.M)
NOT_RUN = re.compile(r"# not run: \S.*")
FILE = re.compile(r"# (\w+\.py)")
# what sets up a machine, and what needs several of its processes
NEVER_RUN = ("make", "pip", "git", "torchrun", "pre-commit")


@dataclass(frozen=True)
class Block:
    """A piece of code on a page.

    Attributes:
        page: the file.
        line: of the fence above it, from 1.
        language: python, sh, toml, yaml, text.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def is_run(self) -> bool:
        return self.language in ("python", "sh") and not NOT_RUN.fullmatch(self.first)

    @property
    def file(self) -> str | None:
        """Where the block belongs; ``None`` if it is to be run."""
        match = FILE.fullmatch(self.first)
        return match[1] if match and self.language == "python" else None

    def commands(self) -> list[list[str]]:
        """The lines of a shell block, split into words; comments and continued lines are seen to."""
        text = self.text.replace("\\\n", " ")
        lines = (shlex.split(line, comments=True) for line in text.splitlines())
        return [words for words in lines if words]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"])
        for match in FENCE.finditer(text)
    ]


def run_page(page: Path) -> types.ModuleType:
    """Run all of a page in the current folder.

    Returns:
        A module with the names that its Python blocks define.
    """
    names = types.ModuleType(f"page_{page.stem}")
    sys.modules[names.__name__] = names
    for block in blocks_of(page):
        if not block.is_run:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            # at its place in the file, so that tracebacks point into the page
            code = compile("\n" * block.line + block.text, str(page), "exec")
            exec(code, vars(names))
        else:
            for words in block.commands():
                run_command(words, f"{page.name}:{block.line}")
    return names


def run_command(words: list[str], place: str) -> None:
    program, *rest = words
    if program == "metanet":
        assert cli.main(rest) == 0, f"{place}: {shlex.join(words)}"
    elif program == "python":
        done = subprocess.run([sys.executable, *rest], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{place}: {shlex.join(words)}\n{done.stderr}"
    else:
        assert program in NEVER_RUN, f"{place}: run {program}, or say why it is not run"
