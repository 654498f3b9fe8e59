"""Who may call: the tokens of requests."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import UnauthenticatedError
from server.security.tokens import Tokens
from server.transport.http.refusals import refusal


class TokenCheck:
    """Lets a request through to an application if it has a token."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        values = Headers(scope=scope).getlist("authorization")
        try:
            self._tokens.check([("authorization", value) for value in values])
        except UnauthenticatedError as error:
            challenge = {"www-authenticate": "Bearer"}
            await refusal(scope, 401, str(error), challenge)(scope, receive, send)
            return
        await self._app(scope, receive, send)
