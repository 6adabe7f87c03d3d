"""Which of the client's own system text `compose` removes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.contexts import Context, compose

REGISTERED = "You are a support agent"
QUESTION = {"role": "user", "content": "Hi"}

words = st.text("ab. ", min_size=1, max_size=8)


def own_text(text: str, registered: str = REGISTERED) -> str:
    """What of a client's system text stays in the prompt, the registered one being internalised."""
    messages = [{"role": "system", "content": text}, QUESTION]
    first = compose(messages, Context(), elide=registered)[0]
    return first["content"] if first["role"] == "system" else ""


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (REGISTERED, ""),
        (f"{REGISTERED}\n", ""),
        (f"{REGISTERED}\n\nBe brief.", "Be brief."),
        (f"{REGISTERED} of a shop.", "of a shop."),
        (f"{REGISTERED}s' supervisor.", f"{REGISTERED}s' supervisor."),
        (f"{REGISTERED}.", f"{REGISTERED}."),
        (f"Hello. {REGISTERED}", f"Hello. {REGISTERED}"),
        ("\n You  are\ta support\r\nagent\n\n Be brief.", "Be brief."),
        ("Youare a support agent", "Youare a support agent"),
        ("You are a support", "You are a support"),
        ("", ""),
    ],
)
def test_the_registered_prompt_is_removed_from_the_clients_text_only_where_it_is_complete(
    sent: str, kept: str
) -> None:
    assert own_text(sent) == kept


@pytest.mark.parametrize("sent", [REGISTERED, f"{REGISTERED}\n", f"{REGISTERED}\nBe brief."])
def test_trailing_white_space_of_the_registered_prompt_is_ignored(sent: str) -> None:
    assert own_text(sent, f"{REGISTERED}\n") == own_text(sent)


@given(words, words)
def test_no_word_of_the_client_is_ever_removed(registered: str, added: str) -> None:
    sent = registered + added
    kept = own_text(sent, registered)
    assert kept == sent or registered.split() + kept.split() == sent.split()


@given(st.text("ab \n\t", max_size=12), st.text(" \n\t", min_size=1, max_size=3), words)
def test_differences_in_white_space_are_ignored(registered: str, space: str, added: str) -> None:
    sent = space.join([*registered.split(), *added.split()])
    whole = own_text(sent, registered)
    assert whole.split() == added.split() or not registered.split()
