"""
Large uploads under daphne; `CeleryProgressbar.asgi` imports this.

Twisted parses every form a second time, for nobody, in memory and on the event loop: an
upload of 300 MB cost 3.7 GB and silenced every socket for 10 s.
"""

from daphne import http_protocol


class UnparsedRequest(http_protocol.WebRequest):
    """daphne's request, whose body is left for Django to parse."""

    def requestReceived(self, command, path, version):
        self._parsePOSTFormSubmission = False
        super().requestReceived(command, path, version)


http_protocol.WebRequest = UnparsedRequest
