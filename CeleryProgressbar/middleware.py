"""Security headers that Django does not set by itself."""

from django.core.exceptions import DisallowedHost


class ContentSecurityPolicyMiddleware:
    """Allow a page its own origin only: no inline script or style, no frame."""

    POLICY = (
        "default-src 'self'; img-src 'self' data:; connect-src 'self'{sockets}; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        try:
            host = request.get_host()
        except DisallowedHost:
            sockets = ""
        else:
            # Safari before 15.4 does not count ws: and wss: as 'self'.
            sockets = f" ws://{host} wss://{host}"
        response.setdefault(
            "Content-Security-Policy", self.POLICY.format(sockets=sockets)
        )
        return response
