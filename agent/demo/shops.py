"""The shop of the demo: questions, right answers, and how to tell that an answer is right."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.demo.errors import ShopError

DEFAULT = Path(__file__).parents[2] / "config" / "examples" / "shop.toml"


class Fact(BaseModel):
    """Something the operator knows and the model does not."""

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
        """Whether an answer says it."""
        return re.search(self.expect, answer, re.IGNORECASE | re.DOTALL) is not None


class Shop(BaseModel):
    """All facts of a shop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    fact: tuple[Fact, ...] = Field(min_length=2)

    @property
    def measured(self) -> list["Question"]:
        """The questions that nothing is trained on."""
        return [Question(text, fact) for fact in self.fact for text in fact.measure]


@dataclass(frozen=True)
class Question:
    """A wording, and the fact it asks for."""

    text: str
    fact: Fact


def read_shop(path: Path) -> Shop:
    """Read a shop file.

    Raises:
        ShopError: It is missing, not TOML, or not a shop.
    """
    try:
        return Shop.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, re.error) as error:
        raise ShopError(f"Cannot read the shop {path}: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ShopError(f"The shop {path} is not complete: {wrong}") from error
