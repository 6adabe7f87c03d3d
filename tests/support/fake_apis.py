"""The fake vLLM's Anthropic messages, OpenAI responses and embeddings.

Bodies and events come in vLLM 0.32's order, with the fields that clients and byheart read.
"""

from collections.abc import Callable, Iterator
from typing import Any

from tests.support.fake_answers import Answer, Body, dump, words

STOPS = {"length": "max_tokens", "stop": "end_turn"}


class MessageAnswer(Answer):
    """An answer of `/v1/messages`."""

    def whole(self, _logprobs: Body | None) -> Body:
        text = {"type": "text", "text": "".join(self.tokens)}
        last = {"stop_reason": STOPS[self.finish], "usage": self._tokens()}
        return {**self._message(), "content": [text], **last}

    def frames(self) -> Iterator[bytes]:
        yield frame("message_start", message=self._message() | {"usage": self._tokens(0)})
        block = {"type": "text", "text": ""}
        yield frame("content_block_start", index=0, content_block=block)
        for token in self.tokens:
            delta = {"type": "text_delta", "text": token}
            yield frame("content_block_delta", index=0, delta=delta)
        yield frame("content_block_stop", index=0)
        delta = {"stop_reason": STOPS[self.finish], "stop_sequence": None}
        yield frame("message_delta", delta=delta, usage=self._tokens())
        yield frame("message_stop")

    def _message(self) -> Body:
        head = {"id": self.head["id"], "type": "message", "role": "assistant", "content": []}
        return {**head, "model": self.head["model"], "stop_reason": None}

    def _tokens(self, made: int | None = None) -> Body:
        usage = self.usage
        return {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"] if made is None else made,
        }


class ResponseAnswer(Answer):
    """An answer of `/v1/responses`."""

    def whole(self, _logprobs: Body | None) -> Body:
        item = self._call() if self._must_call() else self._message()
        return self._response(self._status(), [item]) | {"usage": self._tokens()}

    def _must_call(self) -> bool:
        return self.body.get("tool_choice") == "required"

    def _call(self) -> Body:
        name = self.body["tools"][0]["name"]
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name}
        item |= {"arguments": "".join(self.tokens), "status": "completed"}
        return item | dict.fromkeys(("async", "caller", "namespace"))

    def _message(self) -> Body:
        text = "".join(self.tokens)
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        return item | {"content": [part]}

    def frames(self) -> Iterator[bytes]:
        numbers = iter(range(1_000_000))

        def numbered(kind: str, **fields: Any) -> bytes:
            return frame(kind, sequence_number=next(numbers), **fields)

        begun = self._response("in_progress", [])
        yield numbered("response.created", response=begun)
        yield numbered("response.in_progress", response=begun)
        whole = self.whole(None)
        [item] = whole["output"]
        unsaid = {"arguments": ""} if self._must_call() else {"content": []}
        begun = item | unsaid | {"status": "in_progress"}
        yield numbered("response.output_item.added", output_index=0, item=begun)
        yield from self._called(item, numbered) if self._must_call() else self._said(item, numbered)
        yield numbered("response.output_item.done", output_index=0, item=item)
        yield numbered(f"response.{self._status()}", response=whole)

    def _said(self, item: Body, numbered: Callable[..., bytes]) -> Iterator[bytes]:
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        [part] = item["content"]
        yield numbered("response.content_part.added", **place, part=part | {"text": ""})
        for token in self.tokens:
            yield numbered("response.output_text.delta", **place, delta=token, logprobs=[])
        yield numbered("response.output_text.done", **place, text=part["text"], logprobs=[])
        yield numbered("response.content_part.done", **place, part=part)

    def _called(self, item: Body, numbered: Callable[..., bytes]) -> Iterator[bytes]:
        place = {"item_id": item["id"], "output_index": 0}
        for token in self.tokens:
            yield numbered("response.function_call_arguments.delta", **place, delta=token)
        said = {"arguments": item["arguments"], "name": item["name"]}
        yield numbered("response.function_call_arguments.done", **place, **said)

    def _status(self) -> str:
        return "incomplete" if self.finish == "length" else "completed"

    def _response(self, status: str, output: list[Body]) -> Body:
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.head["id"],
            "object": "response",
            "created_at": self.head["created"],
            "model": self.head["model"],
            "status": status,
            "output": output,
            "incomplete_details": cut,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def _tokens(self) -> Body:
        usage = self.usage
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }


def embeddings(body: Body) -> Body:
    """A vector of two numbers for each text."""
    vectors = [
        {"object": "embedding", "index": index, "embedding": [float(len(text)), 1.0]}
        for index, text in enumerate(body["input"])
    ]
    count = sum(len(words(text)) for text in body["input"])
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": body["model"], "data": vectors, "usage": usage}


def frame(kind: str, **fields: Any) -> bytes:
    """An event with its type."""
    return f"event: {kind}\ndata: {dump({'type': kind, **fields})}\n\n".encode()
