"""`POST /v1/messages/count_tokens`: how long a request would be, with what stands before it.

Nothing is generated, so nothing is logged.
"""

from agent.engine.errors import EngineError
from agent.gateway.apis.anthropic import CountRequest
from agent.gateway.apis.request import parse
from agent.gateway.exchange import engine_failure
from agent.gateway.http.asgi import JSON, Call, send_bytes
from agent.gateway.route import choose
from agent.gateway.state import Parts
from store.contexts import compose
from store.keys import Scope
from store.views import BASE

PATH = "/v1/messages/count_tokens"


async def count(parts: Parts, call: Call) -> None:
    """Answer with the engine's count.

    Raises:
        RequestError: As for the message itself.
    """
    caller = await parts.door.caller(call.headers, Scope.INFER)
    body = await parts.uploads.read(caller.principal, call, parts.settings.max_body_bytes)
    request = parse(CountRequest, body, parts.settings.max_tokens_cap)
    route = await choose(parts, caller.namespace, request.model)
    said = request.said(compose(request.chat(), route.view.context, elide=route.view.registered))
    model = parts.served if route.version == BASE else route.version
    asked = {**request.counted(), **said, "model": model}
    with parts.door.limiter.admitted(caller.key):
        try:
            reply = await parts.engine.chat(asked, PATH)
        except EngineError as error:
            raise engine_failure(error) from error
    await send_bytes(call.send, reply.status, reply.body, [JSON])
