"""The demo's shop file: questions, right answers, and patterns that right answers match."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.demo.errors import ShopError

DEFAULT = Path(__file__).parents[2] / "config" / "examples" / "shop.toml"


class Fact(BaseModel):
    """A fact that the operator knows and the model does not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ask: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    expect: str = Field(min_length=1)
    measure: tuple[str, ...] = Field(min_length=1)

    @field_validator("expect")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        re.compile(value)
        return value

    def is_right(self, answer: str) -> bool:
        """Return whether an answer states the fact."""
        return re.search(self.expect, answer, re.IGNORECASE | re.DOTALL) is not None


class Shop(BaseModel):
    """A shop and its facts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    fact: tuple[Fact, ...] = Field(min_length=2)

    @property
    def measured(self) -> list["Question"]:
        """The test questions, which are not used in training."""
        return [Question(text, fact) for fact in self.fact for text in fact.measure]


@dataclass(frozen=True)
class Question:
    """A test question and the fact that it asks for."""

    text: str
    fact: Fact


def read_shop(path: Path) -> Shop:
    """Read a shop file.

    Raises:
        ShopError: The file is missing or invalid.
    """
    try:
        return Shop.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, re.error) as error:
        raise ShopError(f"Cannot read the shop file {path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ShopError(f"The shop file {path} is invalid: {problems}") from error
