"""Routes whose path alone decides."""

from starlette.routing import Match, Route
from starlette.types import Scope


class ExactRoute(Route):
    """A route that also answers a wrong method, with 405 and what is allowed.

    Starlette's leaves it to later routes, of which the files of the page take every path.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell if a request is for this route."""
        match, child = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.FULL), child
