"""Parts of a Markdown page: links, headings and code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str


class Page:
    """A Markdown page.

    Attributes:
        path: File of the page, which relative links start from.
        text: Source of the page.
        blocks: Fenced blocks of code.
        spans: Code inside of sentences and tables.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8") if text is None else text
        self.blocks = [Block(m["language"], m["code"]) for m in _FENCE.finditer(self.text)]
        self._prose = _FENCE.sub("", self.text)
        self.spans = [" ".join(span.split()) for span in _INLINE.findall(self._prose)]

    @property
    def code(self) -> list[str]:
        """All code of the page, blocks and spans."""
        return [block.code for block in self.blocks] + self.spans

    @property
    def links(self) -> list[str]:
        """Targets of the links that stay within the repository."""
        targets = _LINK.findall(_INLINE.sub("", self._prose))
        return [target for target in targets if not re.match(r"\w+:", target)]

    @property
    def anchors(self) -> set[str]:
        """Anchors of the headings, by GitHub's rule."""
        headings = _HEADING.findall(self._prose)
        return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
