"""Bootstrap tokens that no state directory made."""

from datetime import UTC, datetime

from bundler.state.tokens import Token, Tokens, make_group

EXPIRES = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)


def make_tokens(*nodes: str) -> Tokens:
    """One token for each node: aaaaaa, aaaaab …"""
    current = {
        node: Token(
            identifier=f"aaaaa{chr(ord('a') + number)}",
            secret="0123456789abcdef",
            generation=1,
            expires=EXPIRES,
            group=make_group(node),
        )
        for number, node in enumerate(nodes)
    }
    return Tokens(current=current, revoked=(), removed={}, notes=())
