"""`Answer` and `ChatAnswer`: the fake vLLM's bodies and events for both kinds of completion."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
FINGERPRINT = "vllm-0.32.0-fake"


class Answer:
    """One answer, cut to `max_tokens`, in the bodies and chunks of `/v1/completions`.

    Several prompts have a choice each: the same answer, every second one in capitals.
    """

    chat = False

    def __init__(self, body: Body, text: str, number: int) -> None:
        limit = next(filter(None, map(body.get, LIMITS)), None)
        every = words(text)
        self.body = body
        self.indices = range(len(prompts(body)))
        self.tokens = every[:limit]
        self.finish = "length" if limit and len(every) >= limit else "stop"
        self.head: Body = {
            "id": f"chatcmpl-{number}" if self.chat else f"cmpl-{number}",
            "object": "chat.completion" if self.chat else "text_completion",
            "created": int(time.time()),
            "model": body["model"],
        }

    @property
    def usage(self) -> Body:
        """Token counts; the prompt has one token for each word."""
        asked = prompt_tokens(self.body)
        made = (len(self.tokens) + (self.finish == "stop")) * len(self.indices)
        return {"prompt_tokens": asked, "total_tokens": asked + made, "completion_tokens": made}

    def whole(self, logprobs: Body | None) -> Body:
        """The body of an answer that is not streamed."""
        text = "".join(self.tokens)
        last = {"system_fingerprint": FINGERPRINT, "usage": self.usage}
        choices = [self._whole(index, text, logprobs) for index in self.indices]
        return {**self.head, "choices": choices, **last}

    def _whole(self, index: int, text: str, logprobs: Body | None) -> Body:
        text = spoken(index, text)
        choice: Body = {"index": index, "finish_reason": self.finish, "stop_reason": None}
        if self.chat:
            choice |= {"message": {"role": "assistant", "content": text}, "logprobs": None}
        else:
            choice |= {"text": text, "logprobs": logprobs, "prompt_logprobs": None}
        return choice

    def frames(self) -> Iterator[bytes]:
        """The events of a stream as they are sent."""
        for chunk in self.chunks():
            yield f"data: {dump(chunk)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def chunks(self) -> Iterator[Body]:
        """The events of a stream in vLLM's order: role, a token each, the finish, usage.

        The end of the text is a token of its own, with an empty text; a cut has none.
        """
        head = self.head | ({"object": "chat.completion.chunk"} if self.chat else {})
        usage = (self.body.get("stream_options") or {}).get("include_usage")
        pieces = self.tokens if self.finish == "length" else [*self.tokens, ""]
        last = {} if usage else {"system_fingerprint": FINGERPRINT}
        if self.chat:
            first = {"index": 0, "delta": {"role": "assistant", "content": ""}}
            choices = [first | {"logprobs": None, "finish_reason": None}]
            yield head | {"choices": choices, "prompt_token_ids": None, "prompt_text": None}
        for text in pieces[:-1]:
            yield from self._chunks(head, text, {"token_ids": None})
        end = {"finish_reason": self.finish, "stop_reason": None, "token_ids": None}
        yield from self._chunks(head | last, pieces[-1], end)
        if usage:
            yield head | {
                "choices": [], "usage": self.usage, "system_fingerprint": FINGERPRINT
            }  # fmt: skip

    def _chunks(self, head: Body, text: str, more: Body) -> Iterator[Body]:
        for index in self.indices:
            said = spoken(index, text)
            content: Body = {"delta": {"content": said}} if self.chat else {"text": said}
            choice = {"index": index, **content, "logprobs": None, "finish_reason": None}
            yield head | {"choices": [choice | more]}


class ChatAnswer(Answer):
    """One answer of `/v1/chat/completions`."""

    chat = True


def spoken(index: int, text: str) -> str:
    """A piece of the choice of that number."""
    return text.upper() if index % 2 else text


def words(text: str) -> list[str]:
    """The tokens of a text: words, each with the white space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def prompt_tokens(body: Body) -> int:
    """Tokens of a request's prompts, one for each word."""
    return sum(prompt_lengths(body))


def prompt_lengths(body: Body) -> list[int]:
    """Tokens of each of a request's prompts."""
    asked = prompts(body) if "prompt" in body else [" ".join(map(text_of, turns(body)))]
    return [len(words(each) if isinstance(each, str) else each) for each in asked]


def prompts(body: Body) -> list[str | list[int]]:
    """What is to be gone on with, texts or token ids; a chat is one prompt."""
    prompt = body.get("prompt", "")
    is_list = isinstance(prompt, list) and isinstance(prompt[0], (str, list))
    return prompt if is_list else [prompt]


def turns(body: Body) -> list[Body]:
    """What was said, whatever the API."""
    return [turn for turn in body.get("messages") or body.get("input") or () if "role" in turn]


def text_of(message: Body) -> str:
    """The text of a chat message, from a string or from text parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def dump(body: Body) -> str:
    """JSON as pydantic writes it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
