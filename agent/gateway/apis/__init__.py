"""The supported APIs: their request schemas, and the parsers of their answers."""

from agent.gateway.apis import (
    anthropic,
    anthropic_answers,
    chat,
    choices,
    completions,
    embeddings,
    responses,
    responses_answers,
)
from agent.gateway.apis.api import Api

APIS = (
    Api(
        path="/v1/chat/completions",
        request=chat.ChatRequest,
        parse_body=choices.parse_body,
        parse_events=choices.parse_events,
        is_end=choices.is_end,
        is_usage_only=choices.is_usage_only,
        has_usage_option=True,
    ),
    Api(
        path="/v1/completions",
        request=completions.CompletionRequest,
        parse_body=choices.parse_body,
        parse_events=choices.parse_events,
        is_end=choices.is_end,
        is_usage_only=choices.is_usage_only,
        has_usage_option=True,
        is_conversation=False,
    ),
    Api(
        path="/v1/messages",
        request=anthropic.MessagesRequest,
        parse_body=anthropic_answers.parse_body,
        parse_events=anthropic_answers.parse_events,
        is_end=anthropic_answers.is_end,
        error=anthropic_answers.error_body,
        error_event=anthropic_answers.error_event,
    ),
    Api(
        path="/v1/responses",
        request=responses.ResponsesRequest,
        parse_body=responses_answers.parse_body,
        parse_events=responses_answers.parse_events,
        is_end=responses_answers.is_end,
    ),
    Api(
        path="/v1/embeddings",
        request=embeddings.EmbeddingRequest,
        parse_body=embeddings.parse_body,
        parse_events=embeddings.parse_events,
        is_conversation=False,
    ),
)
