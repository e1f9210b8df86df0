"""
Large uploads under daphne: `install(get_asgi_application())` in asgi.py.

Twisted parses every form a second time, for nobody, in memory and on the event loop: an
upload of 300 MB cost 3.7 GB and silenced every socket for 10 s. daphne then hands the
whole body over at once, also in memory. Here it stays in Twisted's temporary file until
Django takes it, part by part.
"""

import asyncio
import io

from daphne import http_protocol

PART = 1024 * 1024  # bytes


class Part:
    """The next `size` bytes of a file, read when it is their turn."""

    def __init__(self, file, size):
        self.file, self.size = file, size

    def __len__(self):
        return self.size

    def read(self):
        return self.file.read(self.size)


class Parts:
    """A file that gives Parts where daphne wants bytes."""

    def __init__(self, file):
        self.file = file
        self.left = file.seek(0, io.SEEK_END)
        file.seek(0)

    def seek(self, *_):
        """daphne means the beginning, where the file is."""

    def read(self, _size):
        size = min(PART, self.left)
        self.left -= size
        return Part(self.file, size)

    @property
    def closed(self):
        return self.file.closed

    def close(self):
        self.file.close()


class UnparsedRequest(http_protocol.WebRequest):
    """daphne's request, whose body is left for Django to read and parse."""

    def requestReceived(self, command, path, version):
        self._parsePOSTFormSubmission = False
        super().requestReceived(command, path, version)

    def process(self):
        is_small = isinstance(self.content, io.BytesIO)
        if not is_small and not self.requestHeaders.hasHeader("upgrade"):
            self.content = Parts(self.content)
        return super().process()


def install(application):
    """Let daphne make such requests; returns the application that understands them."""
    http_protocol.WebRequest = UnparsedRequest

    async def in_parts(scope, receive, send):
        async def read():
            message = await receive()
            if not isinstance(part := message.get("body"), Part):
                return message
            await asyncio.sleep(0)  # for the sockets: a full queue does not wait
            try:
                return {**message, "body": part.read()}
            except ValueError:  # it was closed: the client has gone
                return {"type": "http.disconnect"}

        await application(scope, read, send)

    return in_parts
