"""`POST /v1/messages/count_tokens`: the length of a request, including its composed context.

The request generates nothing, so it is not recorded.
"""

from agent.engine.errors import EngineError
from agent.gateway.apis.anthropic import CountRequest
from agent.gateway.apis.request import parse
from agent.gateway.exchange import client_error
from agent.gateway.http.asgi import JSON, Call, send_bytes
from agent.gateway.route import choose_version
from agent.gateway.state import GatewayState
from store.contexts import compose
from store.keys import Scope
from store.views import BASE

PATH = "/v1/messages/count_tokens"


async def count(state: GatewayState, call: Call) -> None:
    """Count the prompt tokens of a request, with the context that it would get.

    Raises:
        RequestError: As for `POST /v1/messages`.
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.INFER)
    body = await state.uploads.read(caller.principal, call, state.settings.max_body_bytes)
    request = parse(CountRequest, body, state.settings.max_tokens_cap)
    route = await choose_version(state, caller.namespace, request.model)
    content = request.content_fields(
        compose(request.chat_messages(), route.view.context, elide=route.view.registered)
    )
    model = state.model_name if route.version == BASE else route.version
    body_for_engine = {**request.prompt_fields(), **content, "model": model}
    with state.authenticator.limiter.admit(caller.key):
        try:
            reply = await state.engine.chat(body_for_engine, PATH)
        except EngineError as error:
            raise client_error(error) from error
    await send_bytes(call.send, reply.status, reply.body, [JSON])
