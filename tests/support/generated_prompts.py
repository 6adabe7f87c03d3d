"""`prompts()`: system prompts of all the forms that the trainer reads, with no sentence twice."""

import textwrap
from itertools import count

from hypothesis import strategies as st

NOUNS = ("lamp", "kayak", "ticket", "garden", "lesson", "harbour", "parcel", "bakery")
BULLETS = ("- ", "* ", "1. ", "a) ")


class Writer:
    """Draws parts of a prompt; each has a number of its own in it."""

    def __init__(self, draw) -> None:
        self._draw = draw
        self._numbers = count(11)

    def pick(self, *options):
        return self._draw(st.sampled_from(options))

    def times(self, least: int, most: int) -> range:
        return range(self._draw(st.integers(least, most)))

    def name(self) -> str:
        return f"{self.pick(*NOUNS).title()} {next(self._numbers)}"

    def sentence(self) -> str:
        noun, number = self.pick(*NOUNS), next(self._numbers)
        return self.pick(
            f"The {noun} costs {number} euros in each of our shops.",
            f"Tell people that a {noun} is ready after {number} days.",
            f"Never promise anybody more than {number} of them, even if a {noun} is there.",
            f"The **{noun}** has number {number} here.",
            f"It takes {number} minutes to be shown the {noun} there.",
        )

    def phrase(self) -> str:
        return f"{self.pick(*NOUNS)} number {next(self._numbers)}"

    def prose(self, indent: str = "") -> list[str]:
        text = " ".join(self.sentence() for _ in self.times(1, 4))
        width = self.pick(60, 80, 1000)
        return [indent + line for line in textwrap.wrap(text, width, break_on_hyphens=False)]

    def items(self, indent: str = "") -> list[str]:
        bullet, lines = self.pick(*BULLETS), []
        for _ in self.times(1, 3):
            kind = self.pick("phrase", "prose", "list") if len(indent) < 4 else "phrase"
            if kind == "list":
                lines.append(f"{indent}{bullet}{self.name()}:")
                lines += self.items(indent + "  ")
            else:
                first, *rest = [self.phrase()] if kind == "phrase" else self.prose()
                lines.append(indent + bullet + first)
                lines += [indent + " " * len(bullet) + line for line in rest]
        return lines

    def introduced_list(self) -> list[str]:
        introduction = self.pick("{}:", "This holds for everything about {}:", "Ask. {}:")
        return [introduction.format(self.name()), *self.pick([], [""]), *self.items()]

    def bare_list(self) -> list[str]:
        return self.items()

    def table(self) -> list[str]:
        columns = [self.name() for _ in self.times(2, 3)]
        rows = [[self.phrase() for _ in columns] for _ in self.times(1, 3)]
        lines = [f"| {' | '.join(cells)} |" for cells in [columns, *rows]]
        return [lines[0], "|" + "---|" * len(columns), *lines[1:]]

    def yaml(self, indent: str = "") -> list[str]:
        lines: list[str] = []
        for _ in self.times(1, 3):
            key = f"{indent}{self.pick(*NOUNS)}_{next(self._numbers)}:"
            is_leaf = len(indent) >= 4 or self.pick(True, False)
            lines += [f"{key} {self.phrase()}"] if is_leaf else [key, *self.yaml(indent + "  ")]
        return lines

    def named(self) -> list[str]:
        """Lines below a name that are no deeper."""
        return [f"{self.name()}:", *(self.sentence() for _ in self.times(1, 3))]

    def code(self) -> list[str]:
        # A list right below would be read as introduced by the line above the code.
        shown = ["```json", f'{{"{self.phrase()}": 1}}', "```"]
        return [f"Write {self.name()} like this:", *shown, self.sentence()]

    def fenced(self) -> list[str]:
        return ["```", *self.prose(), "```"]

    def unasked(self) -> list[str]:
        return ["It is so."]

    def tagged_line(self) -> list[str]:
        tag = self.pick(*NOUNS)
        return [f"<{tag}>{self.sentence()}</{tag}>"]

    def section(self) -> list[str]:
        kinds = (
            *(self.prose, self.introduced_list, self.bare_list, self.table, self.yaml, self.named),
            *(self.code, self.fenced, self.tagged_line, self.unasked),
        )
        lines: list[str] = []
        for _ in self.times(1, 3):
            lines += [*self.pick(*kinds)(), ""]
        return lines

    def sections(self) -> list[str]:
        lines: list[str] = []
        for number in self.times(0, 3):
            name = self.name()
            tag = f"{self.pick(*NOUNS)}_{number}"
            before, after = self.pick(
                ([f"## {name}"], []),
                ([f"### {name}"], []),
                ([f"**{name}**", ""], []),
                ([f"<{tag}>"], [f"</{tag}>"]),
            )
            lines += [*before, *self.section(), *after]
        return lines

    def pairs(self) -> list[str]:
        lines = ["## Questions"]
        for _ in self.times(2, 3):
            lines += [f"Q: Where is the {self.phrase()}?", f"A: {self.sentence()}", ""]
        return lines


@st.composite
def prompts(draw) -> str:
    """A prompt with a title, sections of many forms, and perhaps questions with answers."""
    writer = Writer(draw)
    lines = [f"# {writer.name()}", *writer.section(), *writer.sections()]
    lines += writer.pairs() if draw(st.booleans()) else []
    return "\n".join(lines)
